"""Sweeps on this machine: planned, run in processes, stopped, resumed."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import PlannedCell
from lape_bench.evaluation.runner import RunOptions
from lape_bench.records.record import Cell, RunRecord, find_records
from lape_bench.sweep.engine import run_cells
from lape_bench.sweep.grid import SweepConfig, SystemEntry
from lape_bench.sweep.local_engine import LocalEngine
from tests.lape_bench.sweep.conftest import here, options, planned


@pytest.mark.slow
def test_two_processes_give_the_records_of_one(
    grid: SweepConfig, synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    cells = grid.model_copy(update={"seeds": 1}).cells()
    hashes = []
    for jobs in (1, 2):
        own = options(tmp_path / str(jobs))
        outcomes = {str(cell): outcome for cell, outcome in here(cells, own, jobs, progress)}
        assert len(outcomes) == 6
        assert all(isinstance(o, RunRecord) and o.status == "finished" for o in outcomes.values())
        hashes.append({name: o.predictions_sha256 for name, o in outcomes.items()})
    assert hashes[0] == hashes[1]


@pytest.mark.slow
def test_a_shared_upstream_is_computed_once_and_no_process_waits_for_it(
    synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    smoke_settings = {"epochs": 1, "min_steps": 1, "window_seconds": 0.2}
    upstreams = [
        {"width": 8, "corpus": ["synthetic-sounds"], "projector": size, "pretrain": smoke_settings}
        for size in (8, 16)
    ]
    grid = SweepConfig(
        systems=tuple(SystemEntry(name="delores-s", settings=upstream) for upstream in upstreams),
        tasks=("synthetic-sounds",),
        protocols=("linear", "knn"),
        label_fractions=(0.1, 0.4),
        seeds=1,
    )
    outcomes = [outcome for _, outcome in here(grid.cells(), options(tmp_path), 2, progress)]
    records = [outcome for outcome in outcomes if isinstance(outcome, RunRecord)]
    assert [record.status for record in records] == ["finished"] * 8
    uses = [use for record in records for use in record.artifacts if use.kind == "upstream"]
    assert sorted(Counter(use.hash for use in uses).values()) == [4, 4]
    assert sum(not use.found for use in uses) == 2
    # The other cells of an upstream start only when its producer has ended.
    assert all(use.waited < 0.5 for use in uses)


def test_a_cell_that_cannot_run_is_reported_and_the_others_run(
    synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    good = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    bad = good.model_copy(update={"task": "esc10", "fold": 1})
    outcomes = here([bad, good], options(tmp_path), 1, progress)
    assert "'esc10' is not prepared" in str(outcomes[0][1])
    assert isinstance(outcomes[1][1], RunRecord)


def test_a_stopped_sweep_is_resumed(
    grid: SweepConfig, synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    grid = grid.model_copy(update={"seeds": 1})
    running = run_cells(planned(grid.items()), options(tmp_path), LocalEngine(), progress)
    for _ in range(3):
        next(running)
    running.close()
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    assert len(files) == 3
    assert len(here(grid.cells(), options(tmp_path), 1, progress)) == 6
    assert all(path.stat().st_mtime_ns == before for path, before in files.items())


class DyingCell:
    """Replaces `_run_quietly`; the cell with seed 1 kills its process."""

    def __call__(self, planned: PlannedCell, options: RunOptions) -> str:
        seed = planned.cell.seed
        if seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(2)  # so that neighbors are running while it dies
        return f"seed {seed} ran"


@pytest.mark.slow
def test_only_the_cell_of_a_dying_process_fails(
    synthetic: Path, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lape_bench.sweep.local_engine._run_quietly", DyingCell())
    cells = [
        Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear", seed=seed)
        for seed in range(4)
    ]
    outcomes = {cell.seed: outcome for cell, outcome in here(cells, options(tmp_path), 2, progress)}
    failed = outcomes[1]
    assert isinstance(failed, RunRecord)
    assert failed.error == "its process died (killed, or out of memory), 2 times"
    assert [r for _, r in find_records(tmp_path)[0]] == [failed]
    assert sum(outcome.endswith("ran") for outcome in map(str, outcomes.values())) == 3
