"""Sweeps: planned, run in processes, stopped, taken up."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from filelock import FileLock

from lape_bench.config import read_yaml
from lape_bench.device import Compute
from lape_bench.errors import UserError
from lape_bench.progress import Progress
from lape_bench.records import LOCK, Cell, RunRecord, cell_folder, find_records
from lape_bench.runner import RunOptions, record_failure, resolve, run_cell
from lape_bench.sweep import SweepConfig, SystemEntry, run_cells, state_of

GRID = """
systems:
  - log-mel-statistics
  - {name: supervised, settings: {width: 16, finetune: {epochs: 1, least_steps: 1}}}
tasks: [synthetic-sounds]
protocols: [linear, finetune]
label_fractions: [0.2, 1.0]
seeds: 2
"""


@pytest.fixture
def grid(tmp_path: Path) -> SweepConfig:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    return read_yaml(path, SweepConfig)


def options(tmp_path: Path) -> RunOptions:
    compute = Compute(device="cpu", precision="float32", threads=1)
    return RunOptions(out=tmp_path / "results", compute=compute)


def test_a_grid_expands_to_its_cells(grid: SweepConfig) -> None:
    assert len(grid.cells()) == (1 + 2) * 2 * 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("seeds: 0", "'seeds'"),
        ("label_fractions: [0.1, 2.0]", "'label_fractions.1'"),
        ("label_fractions: [.nan]", "'label_fractions.0'"),
        ("protocols: [fine-tune]", "did you mean 'finetune'"),
        ("task: [esc10]", "'task' is not a known key: did you mean 'tasks'"),
        ("systems: []", "'systems'"),
    ],
)
def test_a_wrong_grid_is_refused_by_path(line: str, said: str, tmp_path: Path) -> None:
    key = line.split(":")[0]
    kept = [row for row in GRID.splitlines() if not row.startswith(f"{key}:")]
    if key == "systems":
        kept = [row for row in kept if not row.startswith("  ")]
    path = tmp_path / "grid.yaml"
    path.write_text("\n".join([*kept, line]))
    with pytest.raises(UserError, match=said):
        read_yaml(path, SweepConfig).cells()


@pytest.mark.slow
def test_two_processes_give_the_records_of_one(
    grid: SweepConfig, synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    hashes = []
    for jobs in (1, 2):
        own = options(tmp_path / str(jobs))
        outcomes = {
            str(cell): outcome for cell, outcome in run_cells(grid.cells(), own, jobs, progress)
        }
        assert len(outcomes) == 12
        assert all(isinstance(o, RunRecord) and o.status == "finished" for o in outcomes.values())
        hashes.append({name: o.predictions_sha256 for name, o in outcomes.items()})
    assert hashes[0] == hashes[1]


@pytest.mark.slow
def test_an_upstream_that_cells_share_is_made_once_and_no_process_waits_for_it(
    synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    brief = {"epochs": 1, "least_steps": 1, "window_seconds": 0.2}
    upstreams = [
        {"width": 8, "corpus": ["synthetic-sounds"], "projector": size, "pretrain": brief}
        for size in (8, 16)
    ]
    grid = SweepConfig(
        systems=tuple(SystemEntry(name="delores-s", settings=each) for each in upstreams),
        tasks=("synthetic-sounds",),
        protocols=("linear", "knn"),
        label_fractions=(0.2, 1.0),
        seeds=1,
    )
    outcomes = [told for _, told in run_cells(grid.cells(), options(tmp_path), 2, progress)]
    records = [told for told in outcomes if isinstance(told, RunRecord)]
    assert [record.status for record in records] == ["finished"] * 8
    uses = [use for record in records for use in record.artifacts if use.kind == "upstream"]
    assert sorted(Counter(use.hash for use in uses).values()) == [4, 4]
    assert sum(not use.found for use in uses) == 2
    # Two of the four cells of an upstream may begin when its maker ends, and no sooner.
    assert all(use.waited < 0.5 for use in uses)


def test_a_cell_that_cannot_run_is_told_and_the_others_go_on(
    synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    good = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    bad = good.model_copy(update={"task": "esc10", "fold": 1})
    outcomes = list(run_cells([bad, good], options(tmp_path), 1, progress))
    assert "'esc10' is not prepared" in str(outcomes[0][1])
    assert isinstance(outcomes[1][1], RunRecord)


def test_a_stopped_sweep_goes_on_where_it_was(
    grid: SweepConfig, synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    running = run_cells(grid.cells(), options(tmp_path), 1, progress)
    for _ in range(3):
        next(running)
    running.close()
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("record.json")}
    assert len(files) == 3
    assert len(list(run_cells(grid.cells(), options(tmp_path), 1, progress))) == 12
    assert all(path.stat().st_mtime_ns == before for path, before in files.items())


class Suicidal:
    """Stands for `_attempt_quietly` of a cell that takes its process with it."""

    def __call__(self, cell: Cell, options: RunOptions) -> str:
        if cell.seed == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(2)  # so that neighbours are running while it dies
        return f"seed {cell.seed} ran"


@pytest.mark.slow
def test_a_dying_process_costs_its_own_cell_only(
    synthetic: Path, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lape_bench.sweep._attempt_quietly", Suicidal())
    cells = [
        Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear", seed=seed)
        for seed in range(4)
    ]
    outcomes = {cell.seed: told for cell, told in run_cells(cells, options(tmp_path), 2, progress)}
    died = outcomes[1]
    assert isinstance(died, RunRecord)
    assert died.error == "its process died 2 times (killed, or out of memory)"
    assert [r for _, r in find_records(tmp_path)[0]] == [died]
    assert sum(told.endswith("ran") for told in map(str, outcomes.values())) == 3


def test_a_part_of_a_grid_is_the_cells_of_its_tasks(grid: SweepConfig) -> None:
    both = grid.model_copy(update={"tasks": ("synthetic-sounds", "esc10")})
    part = both.only(["esc10"]).cells()
    assert part == [cell for cell in both.cells() if cell.task == "esc10"]
    assert len(part) == 5 * len(grid.cells())  # five folds each


def test_a_sweep_may_hold_further_grids_with_settings_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "grids.yaml"
    path.write_text(
        GRID
        + "also:\n"
        + "  - systems: [{name: supervised, settings: {width: 32}}]\n"
        + "    tasks: [esc10]\n"
        + "    seeds: 1\n"
    )
    grids = read_yaml(path, SweepConfig)
    assert len(grids.cells()) == (1 + 2) * 2 * 2 + 5
    assert {cell.settings["width"] for cell in grids.only(["esc10"]).cells()} == {32}
    assert {cell.task for cell in grids.only(["synthetic-sounds"]).cells()} == {"synthetic-sounds"}


def test_a_task_that_a_grid_lacks_is_refused_with_those_it_has(grid: SweepConfig) -> None:
    with pytest.raises(
        UserError, match="there is no task of this grid 'esc10'; known: synthetic-sounds"
    ):
        grid.only(["esc10"])


def test_every_cell_has_a_state_by_what_lies_in_the_folder(
    synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    done, died, busy, left = (
        Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear", seed=seed)
        for seed in range(4)
    )
    own = options(tmp_path)

    def state(cell: Cell) -> tuple[str, str]:
        return state_of(cell, own, progress)

    run_cell(done, own, progress)
    record_failure(died, own, "the disk was full")
    folder = cell_folder(own.out, busy, resolve(busy, progress).identity)
    folder.mkdir(parents=True)
    assert state(busy) == ("to run", "")
    with FileLock(folder / LOCK):
        assert state(busy) == ("running", "")
    assert state(done) == ("finished", "")
    assert state(died) == ("failed", "the disk was full")
    assert state(left) == ("to run", "")
    assert state(left.model_copy(update={"task": "esc10", "fold": 1}))[0] == "impossible"
    forced = own.model_copy(update={"force": True})
    assert state_of(done, forced, progress) == ("to run", "")
    assert [r.cell for _, r in find_records(own.out)[0]] == [done, died]  # looking changes nothing
