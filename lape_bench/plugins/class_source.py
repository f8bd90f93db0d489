"""The source of a class from a notebook or a script, as text to hash.

The text covers the class and what it uses: base classes, functions, other classes, constants, arrays, and modules that
are not installed. Other kinds of objects are not covered, and neither are names that are built at run time.
"""

import __future__

import ast
import dis
import hashlib
import inspect
import linecache
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from lape_bench.core.errors import INSTALLED, OURS, PYTHONS
from lape_bench.core.paths import sha256
from lape_bench.plugins.local_imports import imported_files

READS_A_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME"}
PLAIN = (int, float, complex, str, bytes, bool, type(None), Path)


class SourceNotFound(Exception):
    """The source of a class or function is not known. The message names the class or function."""


def source_of(kind: type) -> str:
    """Return the source of a class and of the objects that it uses. The text is the same in every process.

    Raises:
        SourceNotFound: the code was made by `exec`, typed into a plain interpreter, or its file has changed since.
    """
    texts: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = [(kind.__qualname__, kind)]
    seen: set[int] = set()
    while waiting:
        name, value = waiting.pop()
        if id(value) in seen and not isinstance(value, PLAIN):
            continue
        seen.add(id(value))
        if isinstance(value, type | FunctionType):
            if _is_installed(value.__module__):
                continue
            texts[f"{value.__module__}:{value.__qualname__}"] = _text(value)
            waiting += _used_by(value)
        elif isinstance(value, ModuleType):
            if not _is_installed(value.__name__):
                texts[value.__name__] = _files(value)
        elif (described := _described(value)) is not None:
            texts[name] = described
    # Cells of a notebook have no lasting names, and a class may move to another module.
    return "\n".join(f"{name}\n{texts[name]}" for name in sorted(texts))


def _used_by(value: type | FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the objects that a class or function refers to, each with a name that says where."""
    if isinstance(value, type):
        methods = _methods(value)
        yield from ((f"{value.__qualname__} base", base) for base in value.__bases__)
        for name, attribute in vars(value).items():
            function = _function(attribute)
            if function is not None and function in methods:
                yield from _used_by(function)
            elif function is not None:
                yield f"{value.__qualname__}.{name}", function
            elif not name.startswith("__"):
                yield f"{value.__qualname__}.{name}", attribute
        return
    yield f"{value.__qualname__} defaults", [value.__defaults__, value.__kwdefaults__]
    reachable = dict(value.__globals__)
    for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
        try:
            reachable[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        yield f"{value.__qualname__} uses {name}", reachable[name]
    for code in _codes_within(value.__code__):
        for instruction in dis.get_instructions(code):
            name = instruction.argval
            if instruction.opname in READS_A_GLOBAL and name in reachable:
                yield f"{value.__module__}.{name}", reachable[name]


def _function(attribute: Any) -> FunctionType | None:
    """Return the function behind a method, a property or a decorated function."""
    if isinstance(attribute, staticmethod | classmethod):
        attribute = attribute.__func__
    elif isinstance(attribute, property):
        attribute = attribute.fget
    elif isinstance(attribute, cached_property):
        attribute = attribute.func
    attribute = inspect.unwrap(attribute) if callable(attribute) else attribute
    return attribute if isinstance(attribute, FunctionType) else None


def _text(value: type | FunctionType) -> str:
    """Return the text of a class or function, checked against the code that runs.

    `inspect.getsource` is not enough: it finds no class of a notebook, and after an edit it returns the new text of the
    file instead of the imported one.
    """
    functions = [value] if isinstance(value, FunctionType) else _methods(value)
    if not functions:  # base classes and attributes are enough
        return f"class {value.__qualname__}"
    code = functions[0].__code__
    lines = "".join(linecache.getlines(code.co_filename, functions[0].__globals__))
    try:
        tree = ast.parse(lines)
        compiled = _compiled(tree, code)
    except (SyntaxError, ValueError) as error:
        raise SourceNotFound(value.__qualname__) from error
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        and getattr(node, "name", value.__name__) == value.__name__
        and _first_line(node) <= code.co_firstlineno <= (node.end_lineno or 0)
    ]
    if not around or any(function.__code__ not in compiled for function in functions):
        raise SourceNotFound(value.__qualname__)
    node = around[-1]  # the innermost one
    return "\n".join(lines.splitlines()[_first_line(node) - 1 : node.end_lineno])


def _methods(kind: type) -> list[FunctionType]:
    """Return the functions that were defined in the body of a class."""
    functions = filter(None, map(_function, vars(kind).values()))
    return [f for f in functions if f.__qualname__.startswith(f"{kind.__qualname__}.")]


def _compiled(tree: ast.Module, code: CodeType) -> set[CodeType]:
    """Compile a file as a whole, as Python does, and statement by statement, as a notebook does.

    The results differ: Python 3.11 compiles a call of `nn.Linear` differently if the same text imports `nn`.
    """
    # An earlier cell of the notebook may have imported it from __future__.
    flags = code.co_flags & __future__.annotations.compiler_flag
    texts = [tree, *(ast.Module([statement], []) for statement in tree.body)]
    modules = (compile(text, code.co_filename, "exec", flags, dont_inherit=True) for text in texts)
    return {each for module in modules for each in _codes_within(module)}


def _first_line(node: Any) -> int:
    """Return the first line of a definition, decorators included."""
    return min(int(part.lineno) for part in [node, *getattr(node, "decorator_list", ())])


def _codes_within(code: CodeType) -> Iterator[CodeType]:
    """Yield a code object and those of the functions and classes in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes_within(constant)


def _is_installed(module: str) -> bool:
    """Return True if a module belongs to Python, the harness or an installed package, so that a version identifies its
    code.
    """
    if module == "__main__":  # a notebook or a script
        return False
    top = module.partition(".")[0]
    if top == OURS or top in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return module in sys.modules  # built in, or a namespace
    path = Path(file)
    return bool(INSTALLED & set(path.parts)) or path.is_relative_to(PYTHONS)


def _files(module: ModuleType) -> str:
    """Return the hashes of a module's file and of the files that it imports from its folder."""
    path = Path(module.__file__ or "")
    if not path.is_file():
        raise SourceNotFound(module.__name__)
    files = [path, *imported_files([path], path.parent, sys.path)]
    return "\n".join(f"{file.name} {sha256(file)}" for file in files)


def _described(value: Any) -> str | None:
    """Return plain data or an array as text; None for other objects."""
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(str(_described(each)) for each in value)}]"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(str(_described(each)) for each in value))}}}"
    if isinstance(value, Mapping):
        pairs = (f"{_described(key)}: {_described(each)}" for key, each in value.items())
        return f"{{{', '.join(pairs)}}}"
    to_numpy = getattr(value, "numpy", None)  # a tensor
    if callable(to_numpy) and hasattr(value, "detach"):
        value = value.detach().cpu().float().numpy()
    if hasattr(value, "tobytes") and hasattr(value, "shape"):
        return f"array {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
    return None
