"""A sweep of thousands of cells is planned soon, and a cell costs little beside its own work."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lape_bench.core.progress import Progress
from lape_bench.evaluation.runner import RunOptions, run_cell
from lape_bench.records.record import Cell
from lape_bench.runtime.device import Compute
from lape_bench.sweep import make_engine
from lape_bench.sweep.engine import Engine, run_cells
from lape_bench.sweep.grid import SweepItem, plan_sweep
from lape_bench.sweep.local_engine import LocalEngine

MIB = 2**20
CELLS = 5_000
PLAN = """
import json, resource, sys, time
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import load_system
from lape_bench.sweep.grid import SweepConfig, plan_sweep
from lape_bench.sweep.schedule import Schedule

grid = {
    "systems": ["log-mel-statistics", "moco"],
    "tasks": ["synthetic-sounds"],
    "protocols": ["linear"],
    "label_fractions": [0.1, 0.2, 0.3, 0.4, 1.0],
    "seeds": int(sys.argv[1]) // 10,
}
for system in grid["systems"]:
    load_system(system)
began = time.perf_counter()
items = plan_sweep(SweepConfig.model_validate(grid).items(), Progress(quiet=True))
Schedule([item.planned.shared_artifacts for item in items])
took = time.perf_counter() - began
print(json.dumps([len(items), took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "home"))


def planned(count: int) -> tuple[int, float, int]:
    """Cells, seconds, and the most bytes of a process of its own."""
    program = [sys.executable, "-c", PLAN, str(count)]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    cells, took, memory = json.loads(done.stdout)
    return cells, took, memory


def test_ten_times_the_cells_are_planned_in_little_more_than_ten_times_the_time(
    benchmark: Any,
) -> None:
    planned(10)  # prepares the task
    _, few, _ = planned(CELLS // 10)
    cells, many, memory = benchmark.pedantic(planned, (CELLS,), rounds=1)
    assert cells == CELLS
    benchmark.extra_info["5,000 cells, half of them of an upstream: seconds"] = round(many, 1)
    benchmark.extra_info["5,000 cells: times the seconds of 500"] = round(many / few, 1)
    benchmark.extra_info["5,000 cells: MiB"] = memory // MIB
    assert many < 20 * few
    assert memory < 1024 * MIB


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
