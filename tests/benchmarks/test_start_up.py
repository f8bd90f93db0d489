"""Listings answer at once, and training begins soon: their time in times of importing torch."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

# `bench`, up to the moment in which a first step would be made.
TO_FIRST_STEP = """
import os, sys
from lape_bench.cli.app import main
from lape_bench.learning.training.loop import TrainingLoop
TrainingLoop._update = lambda *arguments: os._exit(0)
main()
sys.exit("no step was made")
"""


def seconds(*program: str) -> float:
    """Shortest of five runs."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, *program], check=True, capture_output=True)
        took.append(time.perf_counter() - began)
    return min(took)


def test_importing_the_package_takes_less_than_a_tenth_of_importing_torch(benchmark: Any) -> None:
    took = benchmark.pedantic(seconds, ("-c", "import lape_bench"), rounds=1)
    share = took / seconds("-c", "import torch")
    benchmark.extra_info["seconds"] = round(took, 3)
    benchmark.extra_info["share of importing torch"] = round(share, 2)
    assert share < 0.1


@pytest.mark.parametrize("listing", ["tasks", "systems"])
def test_a_listing_takes_less_than_half_of_importing_torch(listing: str, benchmark: Any) -> None:
    took = benchmark.pedantic(seconds, ("-m", "lape_bench", listing), rounds=1)
    share = took / seconds("-c", "import torch")
    benchmark.extra_info["share of importing torch"] = round(share, 2)
    assert share < 0.5


@pytest.mark.parametrize("system", ["supervised", "unfused"])
def test_a_run_on_a_prepared_task_makes_its_first_step_soon(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark: Any
) -> None:
    monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "home"))
    run = ("-c", TO_FIRST_STEP, "run", "--system", system, "--out", str(tmp_path / "out"))
    took = benchmark.pedantic(seconds, run, rounds=1)  # the first of five prepares it
    share = took / seconds("-c", "import torch")
    benchmark.extra_info["seconds to the first step"] = round(took, 1)
    benchmark.extra_info["the same in times of importing torch"] = round(share, 1)
    assert share < 2
