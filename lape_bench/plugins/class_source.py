"""The source of a class from a notebook or a script, as text to hash.

The text covers the class and what it uses: base classes, functions with their decorators, other classes, constants,
arrays, the weights of torch's modules, and Python modules that are not installed. Another object of an installed class is
only covered as far as its `repr` goes, and names that are built at run time are not covered.
"""

import __future__

import ast
import dis
import hashlib
import linecache
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cached_property, partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from lape_bench.core.errors import INSTALLED, OURS, PYTHONS
from lape_bench.core.paths import sha256
from lape_bench.plugins.local_imports import imported_files

READS_A_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME"}
PLAIN = (int, float, complex, str, bytes, bool, type(None), Path)
COLLECTION = (list, tuple, set, frozenset, Mapping)
ADDRESS = re.compile(" at 0x[0-9a-f]")  # in the repr() of an object


class SourceNotFound(Exception):
    """The source of a class or function is not known. The message names the class or function."""


def source_of(kind: type) -> str:
    """Return the source of a class and of the objects that it uses. The text is the same in every process.

    Raises:
        SourceNotFound: the code was made by `exec`, typed into a plain interpreter, or its file has changed since; or
            a list that is used holds itself.
    """
    # A set of pairs, since names are not unique: every lambda of a module has the same.
    texts: set[tuple[str, str]] = set()
    waiting: list[tuple[str, Any]] = [(kind.__qualname__, kind)]
    seen: dict[int, Any] = {}  # by ID; the object is kept, or another one could get its ID
    while waiting:
        name, value = waiting.pop()
        try:
            texts.add((name, _described(value)))
        except RecursionError as error:  # a list that holds itself
            raise SourceNotFound(name) from error
        if id(value) in seen or isinstance(value, PLAIN):
            continue
        seen[id(value)] = value
        if isinstance(value, type | FunctionType) and not _is_installed(_module_of(value)):
            texts.add((f"{_module_of(value)}:{value.__qualname__}", _text(value)))
            waiting += _used_by(value)
        elif isinstance(value, ModuleType) and not _is_installed(value.__name__):
            texts.add((value.__name__, _files(value)))
        elif not isinstance(value, type | FunctionType | ModuleType):
            waiting += _parts(name, value)
    # Cells of a notebook have no lasting names, and a class may move to another module.
    return "\n".join(f"{name}\n{text}" for name, text in sorted(texts))


def _module_of(value: type | FunctionType) -> str:
    """Return the module in which a class or function was written. `functools.wraps` changes a function's `__module__`."""
    if isinstance(value, type):
        return value.__module__
    return str(value.__globals__.get("__name__", value.__module__))


def _used_by(value: type | FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the objects that a class or function refers to, each with a name that says where."""
    if isinstance(value, type):
        methods = _methods(value)
        yield from ((f"{value.__qualname__} base", base) for base in value.__bases__)
        if is_dataclass(value):
            facts = [[each.name, each.default, each.default_factory] for each in fields(value)]
            yield f"{value.__qualname__} fields", facts
        for name, attribute in vars(value).items():
            functions = _functions(attribute)
            for function in functions:
                if function in methods:
                    yield from _used_by(function)
                elif not _is_made_by_dataclass(function):
                    yield f"{value.__qualname__}.{name}", function
            if not functions and not name.startswith("__"):
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
                yield f"{_module_of(value)}.{name}", reachable[name]


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the objects within a collection, a decorated function, a method, or an object of a class that is not
    installed.
    """
    if isinstance(value, COLLECTION):
        items = value.values() if isinstance(value, Mapping) else value
        # Constants are in the text of the collection.
        yield from ((name, item) for item in items if not isinstance(item, PLAIN))
    elif isinstance(value, partial):
        yield from ((name, part) for part in (value.func, value.args, value.keywords))
    elif isinstance(value, MethodType):
        yield from ((name, part) for part in (value.__func__, value.__self__))
    elif hasattr(value, "__wrapped__"):  # such as by functools.cache
        yield name, value.__wrapped__
    elif not _is_installed(type(value).__module__):
        yield f"{name} class", type(value)
        attributes = getattr(value, "__dict__", {})
        yield from ((f"{name}.{key}", attribute) for key, attribute in attributes.items())


def _functions(attribute: Any) -> list[FunctionType]:
    """Return the functions behind a method, a property or a decorated function: its decorators' and its own."""
    if isinstance(attribute, staticmethod | classmethod):
        attribute = attribute.__func__
    elif isinstance(attribute, property):
        attribute = attribute.fget
    elif isinstance(attribute, cached_property):
        attribute = attribute.func
    functions = []
    while callable(attribute) and not isinstance(attribute, type):
        if isinstance(attribute, FunctionType):
            functions.append(attribute)
        attribute = getattr(attribute, "__wrapped__", None)
    return functions


def _is_made_by_dataclass(function: FunctionType) -> bool:
    """Return True for a method that `dataclass` made of the fields."""
    return function.__code__.co_qualname.startswith("__create_fn__.")


def _text(value: type | FunctionType) -> str:
    """Return the text of a class or function, checked against the code that runs.

    `inspect.getsource` is not enough: it finds no class of a notebook, and after an edit it returns the new text of the
    file instead of the imported one.
    """
    functions = [value] if isinstance(value, FunctionType) else _methods(value)
    if not functions:  # base classes and attributes are enough
        return f"class {value.__qualname__}"
    code = functions[0].__code__
    name = (
        value.__name__ if isinstance(value, type) else code.co_name
    )  # not that of a decorated function
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
        and getattr(node, "name", name) == name
        and _first_line(node) <= code.co_firstlineno <= (node.end_lineno or 0)
    ]
    if not around or any(function.__code__ not in compiled for function in functions):
        raise SourceNotFound(value.__qualname__)
    node = around[-1]  # the innermost one
    return "\n".join(lines.splitlines()[_first_line(node) - 1 : node.end_lineno])


def _methods(kind: type) -> list[FunctionType]:
    """Return the functions that were defined in the body of a class."""
    functions = [function for value in vars(kind).values() for function in _functions(value)]
    return [f for f in functions if f.__code__.co_qualname.startswith(f"{kind.__qualname__}.")]


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


def _described(value: Any) -> str:
    """Return a value as text that is the same in every process: data in full, and other objects as far as possible."""
    if isinstance(value, PLAIN):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_described, value))}]"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(map(_described, value)))}}}"
    if isinstance(value, Mapping):
        pairs = (f"{_described(key)}: {_described(each)}" for key, each in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, ModuleType):
        return f"module {value.__name__}"
    if isinstance(value, type) or hasattr(value, "__qualname__"):  # a class or a function
        return _place(value)
    with suppress(Exception):  # an array that cannot be converted, or a class whose repr() fails
        if callable(getattr(value, "state_dict", None)):
            # A module's repr() does not show its weights, nor they their activations.
            shown = ADDRESS.split(repr(value))[0]
            return f"{_place(type(value))} {shown} {_described(value.state_dict())}"
        if callable(getattr(value, "numpy", None)) and hasattr(value, "detach"):  # a tensor
            value = _as_array(value.detach().cpu())
        if hasattr(value, "tobytes") and hasattr(value, "shape"):
            return (
                f"array {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()}"
            )
        if not ADDRESS.search(text := repr(value)):
            return text
    return f"object of {_place(type(value))}"


def _as_array(tensor: Any) -> Any:
    """Return a tensor as an array; one in bfloat16, which NumPy lacks, in float32."""
    try:
        return tensor.numpy()
    except TypeError:
        return tensor.float().numpy()


def _place(value: Any) -> str:
    """Return the name of a class or function with the package that it is from; modules in a package may move."""
    return f"{str(value.__module__).partition('.')[0]}: {value.__qualname__}"
