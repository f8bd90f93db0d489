"""The types of the public names: mypy as a test, so that it takes its turn among the others on all cores."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_mypy_finds_no_mistake() -> None:
    pytest.importorskip("mypy", reason="the extra [types] is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mypy"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
