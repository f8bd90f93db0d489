"""What is visibly wrong with a plug-in, seen without importing its module, so that listings need not wait for it.

A module may still fail in ways that only importing shows; whoever uses it is told then.
"""

import ast
import importlib.util
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

from lape_bench.core.errors import FAILURES, in_a_line


def visible_fault(point: EntryPoint) -> str:
    """Say why an entry point cannot be loaded, as far as that is visible; empty where nothing is.

    Seen are a module that is missing, no Python, or imports at its top what is not installed; a package around it that
    fails; and a name that the module does not define.
    """
    try:
        module, attribute = point.module, point.attr
    except AttributeError:  # what its pattern does not match
        attribute = None
    if not attribute:
        return f"'{point.value}' is not of the form 'module:Class'"
    try:
        spec = importlib.util.find_spec(module)  # imports the packages around it, not the module
    except ModuleNotFoundError as error:
        return f"there is no module '{error.name}'"
    except FAILURES as error:  # of a stranger's package, whatever it be
        return f"importing {module.rpartition('.')[0]} raised {in_a_line(error)}"
    if spec is None:
        return f"there is no module '{module}'"
    path = Path(spec.origin or "")
    if path.suffix != ".py":  # compiled; or a folder, which may define anything
        return ""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError) as error:
        return f"{path.name} cannot be read: {error}"
    absent = [name for name in _imported_first(tree) if not _is_installed(name)]
    if absent:
        return f"{module} imports '{absent[0]}', which is not installed"
    wanted = attribute.partition(".")[0]
    if not _may_define(tree, wanted):
        return f"{module} defines no '{wanted}'"
    return ""


def _imported_first(tree: ast.Module) -> Iterator[str]:
    """Yield the packages that a module imports whatever happens: at its top, outside `try` and `if`."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # imported already, by means that leave no trace of where from
        return True


def _may_define(tree: ast.Module, name: str) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found = {node.name}
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found = {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found = {node.id}
        else:
            continue
        if found & {name, "*", "__getattr__"}:
            return True
    return False
