"""Which files a module's code comes from, beyond its own: what it imports from the folder that it lies in.

They are found by reading, without running anything; a name that is put together when the module runs is not seen. Of
what is installed nothing is followed: there a package's version says what its code is.
"""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from lape_bench.errors import INSTALLED


def imported_files(files: Iterable[Path], root: Path) -> list[Path]:
    """Return the files that some files import from a folder, and those import in turn, sorted.

    Args:
        files: Python files at any depth of the folder; they themselves are not returned.
        root: the folder, as Python has it in `sys.path`.
    """
    if INSTALLED & set(root.parts):
        return []
    own = set(files)
    found, left = set(own), sorted(own)
    while left:
        for name in _imported_names(left.pop(), root):
            new = set(_files(name, root)) - found
            found |= new
            left.extend(sorted(new))
    return sorted(found - own)


def _imported_names(file: Path, root: Path) -> Iterator[str]:
    """Read the dotted names that a file asks for; one that cannot be read asks for none."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    package = file.relative_to(root).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join((*above, *filter(None, [node.module])))
            # What is asked of a package may be a module of it.
            yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names)


def _files(name: str, root: Path) -> Iterator[Path]:
    """Return the files that run where a dotted name is imported: a module, and the packages around it."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:depth])
        yield from (
            file
            for file in (place / "__init__.py", place.with_name(f"{place.name}.py"))
            if file.is_file()
        )
