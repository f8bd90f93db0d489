"""Plug-ins in a single file, `path/to/file.py:Class`, and the modules that they import from beside it.

A run is identified by the file and the files that it imports from its folder. A process has one module of each name. If
two plug-ins have files of the same name beside them, or such a file changes, the second is refused.
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
from lape_bench.plugins.isolated_import import isolated_import
from lape_bench.plugins.local_imports import imported_files, module_name

_folders: list[str] = []
"""Folders of plug-in files, in the order in which Python searches them: after all others, the last loaded first."""
_imported_as: dict[Path, str] = {}
"""The SHA-256 of each file beside a plug-in at the time this process imported it."""
_codes: dict[str, str] = {}
"""The text that identifies the code of each plug-in module, as returned by `describe_code`."""


class _Uncompiled(SourceFileLoader):
    """Loads the source and not Python's compiled copy, which counts as new if the time in seconds and the length
    match.
    """

    def path_stats(self, path: Any) -> Any:
        """Raise an `OSError`, so that Python neither reads nor writes a compiled file."""
        raise OSError


def plugin_file(name: str) -> Path:
    """Return the file of `path/to/file.py:Class`."""
    # Resolved, so that each file has one spelling, and its folder is the one that `python FILE` would use.
    path = require_exists(Path(name.rpartition(":")[0]), "the plug-in file").resolve()
    if not path.is_file():
        raise UserError(f"{path} is not a file", next_step="give a Python file with a class in it")
    return path


def describe_code(name: str) -> str:
    """Return name and SHA-256 of a plug-in's file and of the files that it imports from its folder.

    Raises:
        UserError: this process has imported another module, or another state of the file, under one of these names.
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
                f"{path} imports {file}, but another module of that name is loaded: {loaded}",
                next_step="rename one of them, or run the systems one after the other",
            )
        if _imported_as.setdefault(file, sha256(file)) != sha256(file):
            raise UserError(
                f"{file} has changed since this process imported it",
                next_step="run again, in a notebook after a restart of its kernel",
            )
    return _describe([path, *beside])


def class_code(kind: type) -> list[str]:
    """Return the text that identifies a class of this process and the plug-in files in which it and its bases are
    written.

    The keys of artifacts hold this text: the name of a module beside a plug-in stays the same when its code changes.
    """
    modules = {base.__module__ for base in kind.__mro__}
    of_files = {_codes[module] for module in modules if module in _codes}
    return sorted(of_files.union(filter(None, map(local_classes.class_code, kind.__mro__))))


def load(name: str) -> Any:
    """Import a file as a module named by its path and code, and return the class that the name asks for.

    Raises:
        UserError: the file is missing, cannot be imported, or has no such class.
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
        sys.modules[unique] = module  # before it runs, since dataclasses and pydantic look there
        try:
            with isolated_import():
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
    """Return the files that a plug-in file imports from its folder."""
    others = {folder for folder in _folders if folder != str(path.parent)}
    return imported_files([path], path.parent, [entry for entry in sys.path if entry not in others])


def _look_beside(path: Path) -> None:
    """Let Python look for modules in the folder of a plug-in file too, as `python FILE` does, but last."""
    folder = str(path.parent)
    if folder in sys.path and folder not in _folders:
        return
    sys.path[:] = [entry for entry in sys.path if entry not in _folders]
    _folders[:] = [folder, *(other for other in _folders if other != folder)]
    sys.path.extend(_folders)
