"""The resources that a cell gets, and cells whose worker is lost."""

from collections import Counter
from pathlib import Path

import pytest

from lape_bench.evaluation.run_options import RunOptions
from lape_bench.records.record import Cell, RunRecord, find_records
from lape_bench.runtime.device import Compute
from lape_bench.sweep.engine import EngineSettings, WorkerLost, dispatch, with_resources
from lape_bench.sweep.grid import PlannedItem, Resources
from lape_bench.sweep.run_cell import CellOutcome
from tests.lape_bench.sweep.conftest import options, planned


def test_settings_of_an_engine_override_the_resources_of_the_grid() -> None:
    resources = Resources(cores=2, memory_gib=4)
    assert EngineSettings().resources_of(resources) == resources
    assert EngineSettings(cores=8, gpus=0).resources_of(resources) == Resources(
        cores=8, memory_gib=4, gpus=0
    )


@pytest.mark.parametrize(
    ("device", "threads", "gpus", "expected"),
    [
        ("auto", None, 0, ("cpu", 3)),
        ("auto", 1, 0.5, ("auto", 1)),
        ("auto", None, None, ("auto", 3)),
        ("cuda", None, 0, ("cuda", 3)),
    ],
)
def test_a_cell_has_one_thread_per_core_and_without_a_gpu_the_cpu_unless_the_user_chooses(
    device: str, threads: int | None, gpus: float | None, expected: tuple[str, int]
) -> None:
    before = RunOptions(compute=Compute(device=device, threads=threads))
    after = with_resources(before, Resources(cores=3), gpus).compute
    assert (after.device, after.threads) == expected


class Losing:
    """Workers that lose a cell as often as `losses` says, by the number of the cell."""

    waits_inside = False

    def __init__(self, losses: dict[int, int]) -> None:
        self.losses, self.started = losses, Counter[int]()
        self._running: list[int] = []

    def has_room(self) -> bool:
        return len(self._running) < 2

    def start(self, number: int, item: PlannedItem) -> None:
        self.started[number] += 1
        self._running.append(number)

    def ended(self) -> list[tuple[int, CellOutcome | WorkerLost]]:
        number = self._running.pop(0)
        lost = self.started[number] <= self.losses.get(number, 0)
        return [(number, WorkerLost("its machine was lost") if lost else "it ran")]


def test_a_lost_cell_runs_again_and_fails_after_three_losses(
    synthetic: Path, tmp_path: Path
) -> None:
    cells = [
        Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear", seed=seed)
        for seed in range(4)
    ]
    workers = Losing({1: 2, 2: 9})
    outcomes = {c.seed: o for c, o in dispatch(planned(cells), options(tmp_path), workers, 3)}
    assert workers.started == {0: 1, 1: 3, 2: 3, 3: 1}
    failed = outcomes.pop(2)
    assert outcomes == {0: "it ran", 1: "it ran", 3: "it ran"}
    assert isinstance(failed, RunRecord)
    assert failed.error == "its machine was lost, 3 times"
    assert [record for _, record in find_records(tmp_path)[0]] == [failed]
