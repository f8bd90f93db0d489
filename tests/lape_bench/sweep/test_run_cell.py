"""The state of a cell, found without running it."""

from pathlib import Path

from filelock import FileLock

from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import plan, resolve
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import record_failure, run_cell
from lape_bench.records.record import LOCK, Cell, cell_folder, find_records
from lape_bench.sweep.run_cell import state_of
from tests.lape_bench.sweep.conftest import options


def test_the_state_of_a_cell_follows_from_its_folder(
    synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    finished, failed, running, unstarted = (
        Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear", seed=seed)
        for seed in range(4)
    )
    own = options(tmp_path)

    def state(cell: Cell, options: RunOptions = own) -> tuple[str, str]:
        (planned,) = plan([cell], progress)
        return state_of(planned, options)

    run_cell(finished, own, progress)
    record_failure(resolve(failed, progress).planned, own, "the disk was full")
    folder = cell_folder(own.out, running, resolve(running, progress).planned.identity)
    folder.mkdir(parents=True)
    assert state(running) == ("to run", "")
    with FileLock(folder / LOCK):
        assert state(running) == ("running", "")
    assert state(finished) == ("finished", "")
    assert state(failed) == ("failed", "the disk was full")
    assert state(unstarted) == ("to run", "")
    assert state(unstarted.model_copy(update={"task": "esc10", "fold": 1}))[0] == "impossible"
    forced = own.model_copy(update={"force": True})
    assert state(finished, forced) == ("to run", "")
    assert [r.cell for _, r in find_records(own.out)[0]] == [
        finished,
        failed,
    ]  # reading the state changes nothing
