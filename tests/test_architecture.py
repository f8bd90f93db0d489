"""Nobody imports a plug-in, the top of the package holds what a stranger imports, and listings stay light."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lape_bench.records.record import Cell, RunRecord, write_record

ROOT = Path(__file__).parents[1]
CELLS = ROOT / "tests" / "lape_bench" / "report" / "earlier_cells.csv"
PLUG_INS = ("tasks", "baselines", "unfused")


def imported(folder: Path) -> set[str]:
    """Modules that the files below a folder import, by their installed names."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module and not n.level}
    return names | {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}


# import-linter holds the rooms (pyproject.toml). Here is what it cannot see: plug-ins by their installed names.
@pytest.mark.parametrize("room", ["lape_bench", *PLUG_INS])
def test_nobody_imports_a_plug_in_room_but_that_room_itself(room: str) -> None:
    others = [f"lape_bench.{other}" for other in PLUG_INS if other != room]
    assert not [name for name in imported(ROOT / room) if name.startswith(tuple(others))]


def test_the_top_holds_what_a_stranger_imports_and_rooms() -> None:
    top = {path.name for path in (ROOT / "lape_bench").glob("*.py")}
    assert top == {
        "__init__.py",
        "__main__.py",
        "metrics.py",
        "system.py",
        "task.py",
    }


COMMANDS = [
    "--help",
    "tasks",
    "tasks show esc10",
    "tasks new birds --from empty",
    "systems",
    "systems new mine",
    "report --out empty",
    "merge into empty",
    "report --paper unfused --suite open --out cells.csv",
    "ranks --out empty",
    "compare s t --task u --out empty",
    "report --out cells.csv --html page.html",
    "figure parameters --out cells.csv --file a.png",
    "figure confusion cell --file a.png",
    "show cell",
    "artifacts list",
    "artifacts prune",
]
# A fork for each command: Python has started by then, and no command sees what another has imported.
PROGRAM = """
import os, sys
from lape_bench.cli import app

for command in sys.stdin.read().splitlines():
    child = os.fork()
    if not child:
        sys.argv = ["bench", *command.split()]
        try:
            app.main()
        except SystemExit:
            os._exit(3 if "torch" in sys.modules else 0)
        finally:
            os._exit(1)
    if status := os.waitpid(child, 0)[1]:
        print(f"{command}: {os.waitstatus_to_exitcode(status)}", file=sys.stderr)
        sys.exit(1)
"""


def test_listings_and_reports_do_not_import_torch(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copy(CELLS, tmp_path / "cells.csv")
    cell = Cell(system="s", task="t", protocol="linear")
    record = RunRecord(cell=cell, identity="0", settings={}, system_version=1, status="failed")
    write_record(tmp_path / "cell", record)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="\n".join(COMMANDS),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
