"""Small grids, and helpers that run their cells on this machine and on clusters."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lape_bench.core.config import read_yaml
from lape_bench.core.progress import Progress
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.records.record import Cell, RunRecord, find_records
from lape_bench.runtime.device import Compute
from lape_bench.sweep.engine import run_cells
from lape_bench.sweep.grid import PlannedItem, SweepConfig, SweepItem, plan_sweep
from lape_bench.sweep.local_engine import LocalEngine
from lape_bench.sweep.run_cell import CellOutcome

GRID = """
systems:
  - log-mel-statistics
  - {name: supervised, settings: {width: 16, finetune: {epochs: 1, min_steps: 1}}}
tasks: [synthetic-sounds]
protocols: [linear, finetune]
label_fractions: [0.1, 0.4]
seeds: 2
"""

BRIEF = {"epochs": 1, "min_steps": 1}
UPSTREAM = {
    "width": 8,
    "corpus": ["synthetic-sounds"],
    "projector": 8,
    "pretrain": BRIEF | {"window_seconds": 0.2},
    "finetune": BRIEF,
}
WAITS_SECONDS = 600.0  # a busy machine needs minutes

SBATCH = """#!/bin/sh
count=$(ls {folder} | grep -c '^submitted')
cp "$1" {folder}/submitted-$((count + 1))
echo "Submitted batch job $((count + 1))"
"""
SQUEUE = """#!/bin/sh
cat {folder}/queue 2>/dev/null || true
"""


def grid_of(seeds: int) -> SweepConfig:
    """Return a grid of 12 cells per seed. Six share an upstream, and two pairs of these share embeddings."""
    common = {"tasks": ["synthetic-sounds"], "label_fractions": [0.1, 0.4]}
    supervised = {"width": 16, "finetune": BRIEF | {"epochs": 2}}
    return SweepConfig.model_validate(
        {
            "systems": [{"name": "delores-s", "settings": UPSTREAM}],
            "protocols": ["linear", "knn", "finetune"],
            "seeds": seeds,
            **common,
            "grids": [
                {"systems": ["log-mel-statistics"], "seeds": 2 * seeds, **common},
                {
                    "systems": [{"name": "supervised", "settings": supervised}],
                    "seeds": seeds,
                    **common,
                },
            ],
        }
    )


@pytest.fixture
def grid(tmp_path: Path) -> SweepConfig:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return read_yaml(path, SweepConfig)


def options(tmp_path: Path) -> RunOptions:
    compute = Compute(device="cpu", precision="float32", threads=1)
    return RunOptions(out=tmp_path / "results", compute=compute)


def planned(cells: Iterable[Cell | SweepItem]) -> list[PlannedItem]:
    """Plan cells that can all be run."""
    items = [SweepItem(cell) if isinstance(cell, Cell) else cell for cell in cells]
    plan = plan_sweep(items, Progress(quiet=True))
    assert all(isinstance(item, PlannedItem) for item in plan)
    return plan


def here(
    cells: Iterable[Cell], options: RunOptions, jobs: int, progress: Progress
) -> list[tuple[Cell, CellOutcome]]:
    """Run cells on this machine."""
    plan = plan_sweep([SweepItem(cell) for cell in cells], progress)
    return list(run_cells(plan, options, LocalEngine(jobs), progress))


def swept(folder: Path) -> Path:
    """Where a sweep that is started in a folder writes its records."""
    return folder / "swept"


def sweep_arguments(folder: Path, grid: SweepConfig, on: str, *more: str) -> list[str]:
    """Write a grid into a folder, and return the arguments of `bench` that sweep it on an engine."""
    path = folder / "grid.json"
    path.write_text(grid.model_dump_json())  # JSON is YAML
    options = ["--device", "cpu", "--precision", "float32", "--out", str(swept(folder))]
    return ["sweep", str(path), "--on", on, *options, *more]


def finished_records(out: Path) -> dict[str, RunRecord]:
    """Return the finished records so far, by cell."""
    records = [record for _, record in find_records(out)[0]]
    assert len({record.identity for record in records}) == len(records)
    return {str(record.cell): record for record in records if record.status == "finished"}


class Driver:
    """`bench sweep` on an engine, in a process of its own."""

    def __init__(
        self, folder: Path, grid: SweepConfig, on: str, *more: str, **variables: str
    ) -> None:
        self.out = swept(folder)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lape_bench", *sweep_arguments(folder, grid, on, *more)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", **variables},
        )

    def records(self) -> dict[str, RunRecord]:
        """Return the finished records so far, by cell."""
        return finished_records(self.out)

    def until(self, condition: Callable[[], object]) -> None:
        ends = time.monotonic() + WAITS_SECONDS
        while not condition():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < ends, "it takes too long"
            time.sleep(0.05)

    def finish(self) -> str:
        output, _ = self.process.communicate(timeout=WAITS_SECONDS)
        return output


def hashes(records: dict[str, RunRecord]) -> dict[str, str | None]:
    return {name: record.predictions_sha256 for name, record in records.items()}


def local(
    grid: SweepConfig, folder: Path, progress: Progress, jobs: int = 1
) -> dict[str, RunRecord]:
    """Run the cells of a grid on this machine, and return their records by cell."""
    outcomes = here(grid.cells(), options(folder), jobs, progress)
    records = {str(cell): record for cell, record in outcomes if isinstance(record, RunRecord)}
    assert {record.status for record in records.values()} == {"finished"}
    assert len(records) == len(grid.cells())
    return records


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that keeps each script given to `sbatch`; nothing runs."""
    folder = tmp_path / "recorder"
    folder.mkdir()
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "srun": SBATCH}.items():
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder
