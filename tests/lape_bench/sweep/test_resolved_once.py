"""A cell is resolved once when it is planned, and once more by the process that runs it."""

from pathlib import Path

import pytest

from lape_bench.core.progress import Progress
from lape_bench.evaluation import plan
from lape_bench.evaluation.plan import load_system
from lape_bench.records.record import Cell, RunRecord, find_records
from lape_bench.sweep.engine import dispatch, run_cells
from lape_bench.sweep.grid import PlannedItem
from lape_bench.sweep.local_engine import LocalEngine
from lape_bench.sweep.run_cell import CellOutcome, lost_outcome, state_of, try_run
from tests.lape_bench.conftest import Bench
from tests.lape_bench.sweep.conftest import options, planned

CELLS = [
    Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear", seed=seed)
    for seed in range(3)
]


@pytest.fixture
def resolutions(synthetic: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The task of each resolution in this process, in order."""
    tasks: list[str] = []
    real = plan.ensure_prepared

    def counting(card: plan.TaskCard, progress: Progress) -> plan.Manifest:
        tasks.append(card.reference)
        return real(card, progress)

    monkeypatch.setattr(plan, "ensure_prepared", counting)
    return tasks


def test_bench_run_resolves_a_cell_when_planning_and_when_running_it(
    resolutions: list[str], bench: Bench, tmp_path: Path
) -> None:
    command = ["run", "--system", "log-mel-statistics", "--seeds", "3", "--out", str(tmp_path)]
    assert bench(*command, "--device", "cpu")[0] == 0
    assert len(resolutions) == 2 * 3
    assert bench(*command, "--device", "cpu")[0] == 0
    assert len(resolutions) == 2 * 3 + 3  # finished cells are planned and not run


def test_a_local_sweep_resolves_a_cell_when_planning_and_when_running_it(
    resolutions: list[str], tmp_path: Path, progress: Progress
) -> None:
    items, own = planned(CELLS), options(tmp_path)
    assert len(resolutions) == 3
    outcomes = [outcome for _, outcome in run_cells(items, own, LocalEngine(), progress)]
    assert all(isinstance(outcome, RunRecord) for outcome in outcomes)
    assert len(resolutions) == 2 * 3
    assert [state_of(item.planned, own)[0] for item in items] == ["finished"] * 3
    assert len(resolutions) == 2 * 3


class OtherProcesses:
    """Workers that imitate other processes and answer at once."""

    waits_inside = True

    def __init__(self) -> None:
        self._running: list[int] = []

    def has_room(self) -> bool:
        return not self._running

    def start(self, number: int, item: PlannedItem) -> None:
        self._running.append(number)

    def ended(self) -> list[tuple[int, CellOutcome]]:
        return [(self._running.pop(), "it ran")]


def test_an_engine_with_other_processes_resolves_a_cell_when_planning_only(
    resolutions: list[str], tmp_path: Path
) -> None:
    assert len(list(dispatch(planned(CELLS), options(tmp_path), OtherProcesses(), 1))) == 3
    assert len(resolutions) == 3


def test_slurm_resolves_a_cell_when_planning_and_on_the_node(
    resolutions: list[str], recorder: Path, tmp_path: Path, progress: Progress
) -> None:
    slurm = pytest.importorskip("lape_bench.sweep.slurm_engine", exc_type=ModuleNotFoundError)
    from lape_bench.sweep.slurm_jobs import CellsJob  # needs the extra [slurm] too

    items, own = planned(CELLS), options(tmp_path)
    jobs = slurm.SlurmEngine(slurm.SlurmSettings()).submit(items, own, progress)
    assert len(jobs) == len(resolutions) == 3
    on_the_node = CellsJob([item.planned for item in items], own)()
    assert all(isinstance(outcome, RunRecord) for outcome in on_the_node.values())
    assert len(resolutions) == 2 * 3
    outcomes = [
        slurm._outcome(item.planned, jobs[number], False, own) for number, item in enumerate(items)
    ]
    assert outcomes == list(on_the_node.values())
    assert len(resolutions) == 2 * 3


def test_a_cell_is_not_resolved_again_when_its_worker_is_lost(
    resolutions: list[str], tmp_path: Path
) -> None:
    (item,) = planned(CELLS[:1])
    record = lost_outcome(item.planned, options(tmp_path), "its machine was lost")
    assert [r for _, r in find_records(tmp_path)[0]] == [record]
    assert len(resolutions) == 1


def test_a_cell_whose_system_changed_since_it_was_planned_is_not_run(
    synthetic: Path, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    (item,) = planned(CELLS[:1])
    monkeypatch.setattr(load_system("log-mel-statistics"), "version", 70)
    reason = try_run(item.planned, options(tmp_path), progress)
    assert "is another cell here than when it was planned" in str(reason)
    assert "'log-mel-statistics' has version 70, not" in str(reason)
    assert not list(tmp_path.rglob("record.json"))
