"""A small part of `python -m tests.kills`; its long form is in `docs/concepts/robustness.md`."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import kills


@pytest.mark.slow
def test_a_merge_that_is_killed_ends_with_the_same_bytes_when_it_is_run_again() -> None:
    done = subprocess.run(
        [sys.executable, "-m", kills.__name__, "1", "merge"],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| merge | 1 |" in done.stdout


def test_what_a_killed_command_left_is_found(tmp_path: Path) -> None:
    for name in (
        ".part-0-1-2-x",
        "work",
        ".work-abc",
        ".record.json.1a2b3c4d-12-345-x",
        "kept",
        ".lock",
    ):
        (tmp_path / name).touch()
    assert sorted(kills.leftovers(tmp_path)) == [
        ".part-0-1-2-x", ".record.json.1a2b3c4d-12-345-x", ".work-abc", "work",
    ]  # fmt: skip
