"""Sweeps on this machine: planned, run in processes, stopped, resumed."""

import operator
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import PlannedCell
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.records.record import Cell, RunRecord, find_records
from lape_bench.sweep.engine import run_cells
from lape_bench.sweep.grid import SweepConfig, SystemEntry
from lape_bench.sweep.local_engine import LocalEngine, _Process
from tests.conftest import own_home
from tests.lape_bench.sweep.conftest import (
    UPSTREAM,
    hashes,
    here,
    local,
    options,
    planned,
)

SHARING = SweepConfig(
    systems=tuple(
        SystemEntry(name="delores-s", settings=UPSTREAM | {"projector": size}) for size in (8, 16)
    ),
    tasks=("synthetic-sounds",),
    protocols=("linear", "finetune"),
    label_fractions=(0.1, 0.4),
    seeds=1,
)


@pytest.fixture(scope="module")
def records_of_two(
    synthetic_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, RunRecord]:
    """The records of eight cells that two processes have run. Each four share an upstream."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAPE_BENCH_HOME", str(own_home(folder / "cache", synthetic_home)))
        return local(SHARING, folder, Progress(quiet=True), jobs=2)


@pytest.mark.slow
def test_two_processes_give_the_records_of_one(
    own_artifacts: Path,
    tmp_path: Path,
    progress: Progress,
    records_of_two: dict[str, RunRecord],
) -> None:
    assert len(records_of_two) == 8
    assert hashes(records_of_two) == hashes(local(SHARING, tmp_path, progress))


@pytest.mark.slow
def test_a_shared_upstream_is_computed_once_and_no_process_waits_for_it(
    records_of_two: dict[str, RunRecord],
) -> None:
    uses = [
        use
        for record in records_of_two.values()
        for use in record.artifacts
        if use.kind == "upstream"
    ]
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

    def __call__(self, planned: PlannedCell, options: RunOptions) -> tuple[str, list[str]]:
        seed = planned.cell.seed
        if seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(2)  # so that neighbors are running while it dies
        return f"seed {seed} ran", []


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


def _pause(planned: PlannedCell, options: RunOptions) -> None:
    """Replaces `_run_quietly`; its cell takes longer than the test."""
    options.out.mkdir(exist_ok=True)
    (options.out / str(planned.cell.seed)).write_text(str(os.getpid()))
    time.sleep(600)


def test_a_stopped_sweep_ends_its_processes_at_once(
    synthetic: Path, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lape_bench.sweep.local_engine._run_quietly", _pause)
    own, main = options(tmp_path), os.getpid()
    started = own.out / "0"

    def interrupt() -> None:
        while not started.exists():
            time.sleep(0.05)
        os.kill(main, signal.SIGINT)

    cell = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a worker of xdist ignores it
    try:
        with ThreadPoolExecutor(1) as background:
            background.submit(interrupt)
            with pytest.raises(KeyboardInterrupt):
                here([cell], own, 2, progress)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not Path("/proc", started.read_text()).exists()


def test_a_process_that_died_between_two_cells_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lape_bench.sweep.local_engine._run_quietly", operator.add)
    process = _Process()
    try:
        assert process.run(1, 2).result() == 3
        os.kill(next(iter(process._pool._processes)), signal.SIGKILL)
        while not process._pool._broken:
            time.sleep(0.01)
        assert process.run(3, 4).result() == 7
    finally:
        process.end()


def test_the_warnings_of_a_cell_are_shown_if_it_runs_in_a_process_of_its_own(
    own_artifacts: Path,
    tmp_path: Path,
    progress: Progress,
    caplog: pytest.LogCaptureFixture,
    write_clip: Callable[..., Path],
) -> None:
    write_clip(tmp_path / "corpus" / "good.wav", 1)
    (tmp_path / "corpus" / "bad.wav").write_text("no audio")
    settings = UPSTREAM | {"corpus": [str(tmp_path / "corpus")]}
    cell = Cell(system="delores-s", settings=settings, task="synthetic-sounds", protocol="linear")
    here([cell], options(tmp_path), 2, progress)
    assert [r.getMessage() for r in caplog.records if "left out of the corpus" in r.getMessage()]
