"""Plug-ins of a single file, `path/to/file.py:Class`: imported under a name of their own, and what lies beside them with it.

What a run rests on is the file, and the files that it imports from its folder. A process has one module of a name: where
two plug-ins have files of one name beside them, or such a file changes, the second is refused, not mistaken for the first.
"""

import hashlib
import importlib.util
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from lape_bench.core.errors import FAILURES, UserError, summarize_error, unknown
from lape_bench.core.paths import require_exists, sha256
from lape_bench.plugins import local_classes
from lape_bench.plugins.local_imports import imported_files, module_name

_folders: list[str] = []
"""Of plug-ins' files, in the order in which Python looks there: after everything else, the last loaded first."""
_imported_as: dict[Path, str] = {}
"""The SHA-256 of each file beside a plug-in, when this process imported it."""
_codes: dict[str, str] = {}
"""Of the module that a plug-in's file, or one beside it, is: what its code is, as `describe_code` says it."""


class _Uncompiled(SourceFileLoader):
    """Reads a file as it is: what Python keeps compiled passes for new if the second and the length are the same."""

    def path_stats(self, path: Any) -> Any:
        """Say that nothing is known to compare a compiled file with, so that none is read or written."""
        raise OSError


def plugin_file(name: str) -> Path:
    """Return the file of `path/to/file.py:Class`."""
    # Resolved, so that one file has one spelling, and its folder is that of `python FILE`.
    path = require_exists(Path(name.rpartition(":")[0]), "the plug-in file").resolve()
    if not path.is_file():
        raise UserError(f"{path} is not a file", next_step="give a Python file with a class in it")
    return path


def describe_code(name: str) -> str:
    """Return name and SHA-256 of a plug-in's file, and of those that it imports from its folder.

    Raises:
        UserError: one of the latter is not what this process has imported under its name.
    """
    path = plugin_file(name)
    beside = _beside(path)
    for file in beside:
        module = sys.modules.get(module_name(file, path.parent))
        if module is None:
            continue
        loaded = Path(getattr(module, "__file__", None) or "")
        if loaded.resolve() != file.resolve():
            raise UserError(
                f"{path} imports {file}, and another module of that name is loaded: {loaded}",
                next_step="rename one of them, or run the systems one after the other",
            )
        if _imported_as.setdefault(file, sha256(file)) != sha256(file):
            raise UserError(
                f"{file} has changed since this process imported it", next_step="run again"
            )
    return _describe([path, *beside])


def class_code(kind: type) -> list[str]:
    """Return the code of a class of this process, and of those files of plug-ins that it or a base is written in.

    What is computed by a class and kept is kept by this too: a class that a plug-in imports from beside it has a
    module's plain name, which stays when the code changes.
    """
    modules = {base.__module__ for base in kind.__mro__}
    of_files = {_codes[module] for module in modules if module in _codes}
    return sorted(of_files.union(filter(None, map(local_classes.class_code, kind.__mro__))))


def load(name: str) -> Any:
    """Import a file as a module of its own, named by its place and code, and return what the name asks of it.

    Raises:
        UserError: the file is missing, fails, or has no such class.
    """
    path, class_name = plugin_file(name), name.rpartition(":")[2]
    _look_beside(path)
    unique = (
        f"{path.stem}_{hashlib.sha256(f'{path}: {describe_code(name)}'.encode()).hexdigest()[:12]}"
    )
    module = sys.modules.get(unique)
    if module is None:
        spec = importlib.util.spec_from_file_location(unique, loader=_Uncompiled(unique, str(path)))
        assert spec is not None, "its name ends in .py"
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        for file in (beside := _beside(path)):
            _imported_as[file] = sha256(file)
            _codes[module_name(file, path.parent)] = _describe([file, *beside])
        _codes[unique] = describe_code(name)
        sys.modules[unique] = module  # before it runs: dataclasses and pydantic look there
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[unique]
            if not isinstance(error, FAILURES):
                raise
            raise UserError(
                f"{path} cannot be loaded: it raised {summarize_error(error)}",
                next_step="fix the file",
            ) from error
    if not hasattr(module, class_name):
        own = [n for n, value in vars(module).items() if getattr(value, "__module__", "") == unique]
        raise unknown("class", class_name, own, where=str(path))
    return getattr(module, class_name)


def _describe(files: list[Path]) -> str:
    return "; ".join(f"{file.name}, SHA-256 {sha256(file)}" for file in files)


def _beside(path: Path) -> list[Path]:
    """Return the files that a plug-in's file imports from its folder."""
    others = {folder for folder in _folders if folder != str(path.parent)}
    return imported_files([path], path.parent, [entry for entry in sys.path if entry not in others])


def _look_beside(path: Path) -> None:
    """Have Python look for modules in the folder of a plug-in's file too, as by `python FILE`, but last."""
    folder = str(path.parent)
    if folder in sys.path and folder not in _folders:
        return
    sys.path[:] = [entry for entry in sys.path if entry not in _folders]
    _folders[:] = [folder, *(other for other in _folders if other != folder)]
    sys.path.extend(_folders)
