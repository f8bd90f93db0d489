"""A cell of a sweep costs little more than alone; `test_growth.py` measures how a sweep is planned."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from lape_bench.core.progress import Progress
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_cell
from lape_bench.records.record import Cell
from lape_bench.runtime.device import Compute
from lape_bench.sweep import make_engine
from lape_bench.sweep.engine import Engine, run_cells
from lape_bench.sweep.grid import SweepItem, plan_sweep
from lape_bench.sweep.local_engine import LocalEngine


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "home"))


@pytest.mark.parametrize("on", ["two processes", "ray"])
def test_a_cell_of_a_sweep_costs_little_more_than_alone(
    on: str, tmp_path: Path, benchmark: Any
) -> None:
    if on == "ray":
        pytest.importorskip("ray", reason="the extra [ray] is not installed")
    compute = Compute(device="cpu", precision="float32", threads=1)
    cells = [
        Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear", seed=seed)
        for seed in range(24)
    ]
    progress = Progress(quiet=True)
    items = plan_sweep([SweepItem(cell) for cell in cells], progress)
    run_cell(cells[0], RunOptions(out=tmp_path / "first", compute=compute), progress)
    engine: Engine = LocalEngine(2) if on == "two processes" else make_engine.engine("ray", {})
    slots = 2 if on == "two processes" else os.cpu_count() or 1

    def alone() -> float:
        own = RunOptions(out=tmp_path / "alone", compute=compute)
        began = time.perf_counter()
        for cell in cells:
            run_cell(cell, own, progress)
        return time.perf_counter() - began

    def swept() -> float:
        """From when every process has ended a cell: it starts once, whatever it runs."""
        own = RunOptions(out=tmp_path / "swept", compute=compute)
        outcomes = run_cells(items, own, engine, progress)
        for _ in range(slots):
            next(outcomes)
        began = time.perf_counter()
        done = len(list(outcomes))
        return (time.perf_counter() - began) * slots * len(cells) / done

    each = benchmark.pedantic(swept, rounds=1) / len(cells)
    own = alone() / len(cells)
    benchmark.extra_info["seconds of a trivial cell alone"] = round(own, 2)
    benchmark.extra_info[f"seconds more in a sweep, {on}"] = round(each - own, 2)
    assert each - own < 0.5
