"""Find the files that a module imports from its own folder.

The code is read and not run, so names that are built at run time are not found. Modules outside of the folder are not
followed: the code of an installed package is identified by its version.
"""

import ast
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from lape_bench.core.errors import INSTALLED, OURS


def imported_files(files: Iterable[Path], root: Path, path: Sequence[str]) -> list[Path]:
    """Return the files of a folder that the given files import, directly or indirectly, sorted.

    Args:
        files: Python files at any depth of the folder; they are not returned themselves.
        root: the folder.
        path: where Python looks, as in `sys.path`; a module found there, outside of the folder, hides one in the
            folder.
    """
    if INSTALLED & set(root.parts):
        return []
    own = set(files)
    files, left = set(own), sorted(own)
    while left:
        for name in _imported_names(left.pop(), root):
            top = name.partition(".")[0]
            if not _is_elsewhere(top, root, path):
                new = set(_files(name, root)) - files
                files |= new
                left.extend(sorted(new))
    return sorted(files - own)


def module_name(file: Path, root: Path) -> str:
    """Return the name by which a file of a folder is imported."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported_names(file: Path, root: Path) -> Iterator[str]:
    """Return the dotted names that a file imports; none if the file cannot be read."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):
        return
    package = file.relative_to(root).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level <= len(package):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            # A name imported from a package may be one of its modules.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _files(name: str, root: Path) -> Iterator[Path]:
    """Return the files that run if a dotted name is imported: the module and its parent packages."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:depth])
        both = (place / "__init__.py", place.with_name(f"{place.name}.py"))
        yield from (file for file in both if file.is_file())


def _is_elsewhere(top: str, root: Path, path: Sequence[str]) -> bool:
    """Return True if Python finds a package outside of the folder. The harness always counts as outside, even in its
    checkout.
    """
    if top == OURS or top in sys.stdlib_module_names:
        return True
    spec = PathFinder.find_spec(top, path)
    if spec is None:
        return False
    places = [*(spec.submodule_search_locations or []), *filter(None, [spec.origin])]
    return not any(Path(each).resolve().is_relative_to(root.resolve()) for each in places)
