"""Whose code a module is: files of its folder, however they are imported, and nothing of what is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from lape_bench.plugins.local_imports import imported_files

FILES = {
    "mine.py": "import os, torch, plain\nfrom pack import sub, NUMBER\ndef later():\n    import lazy\n",
    "plain.py": "import plain_too as other\n",
    "plain_too.py": "import plain  # and back\n",
    "lazy.py": "",
    "pack/__init__.py": "NUMBER = 1\nfrom .beside import *\n",
    "pack/sub.py": "from . import third\nfrom .inner.deep import x\n",
    "pack/beside.py": "",
    "pack/third.py": "",
    "pack/unasked.py": "",
    "pack/inner/deep.py": "from ..above import x\n",
    "pack/above.py": "x = 1\n",
    "not_mine.py": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, code in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(code)
    return tmp_path


def test_what_is_found_is_what_python_runs_and_what_it_may_run_later(folder: Path) -> None:
    found = imported_files([folder / "mine.py"], folder, sys.path)
    program = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); import mine; mine.later(); "
        "print(*(m.__file__ for m in list(sys.modules.values()) if getattr(m, '__file__', None)), sep='\\n')"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    ran = {Path(line) for line in run.stdout.splitlines() if line.startswith(str(folder))}
    assert set(found) == ran - {folder / "mine.py"}
    assert folder / "pack" / "above.py" in found


def test_of_several_files_none_is_returned_that_was_given(folder: Path) -> None:
    given = [folder / "plain.py", folder / "plain_too.py"]
    assert imported_files(given, folder, sys.path) == []


def test_what_is_installed_is_not_followed(folder: Path) -> None:
    installed = folder / "site-packages"
    installed.mkdir()
    (installed / "a.py").write_text("import b")
    (installed / "b.py").write_text("")
    assert imported_files([installed / "a.py"], installed, sys.path) == []


@pytest.mark.parametrize("code", [b"import (", b"import lazy\n\0", b"\xff\xfe\xff"])
def test_a_file_that_is_no_python_asks_for_nothing(folder: Path, code: bytes) -> None:
    (folder / "mine.py").write_bytes(code)
    assert imported_files([folder / "mine.py"], folder, sys.path) == []


def test_a_relative_import_beyond_the_folder_finds_nothing(folder: Path) -> None:
    (folder / "mine.py").write_text("from ... import lazy\n")
    assert imported_files([folder / "mine.py"], folder, sys.path) == []


def test_what_python_finds_before_the_folder_is_not_of_the_folder(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = tmp_path_factory.mktemp("before")
    (before / "plain.py").write_text("")
    (folder / "os.py").write_text("")
    (folder / "lape_bench.py").write_text("")
    (folder / "mine.py").write_text("import os, plain, lape_bench.system, lazy\n")
    found = imported_files([folder / "mine.py"], folder, [str(before), str(folder)])
    assert found == [folder / "lazy.py"]
    found = imported_files([folder / "mine.py"], folder, [str(folder), str(before)])
    assert folder / "plain.py" in found
