"""What is known of a cell without running it."""

from pathlib import Path

from filelock import FileLock

from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import plan, resolve
from lape_bench.evaluation.runner import RunOptions, record_failure, run_cell
from lape_bench.records.record import LOCK, Cell, cell_folder, find_records
from lape_bench.sweep.run_cell import state_of
from tests.lape_bench.sweep.conftest import options


def test_every_cell_has_a_state_by_what_lies_in_the_folder(
    synthetic: Path, tmp_path: Path, progress: Progress
) -> None:
    done, died, busy, left = (
        Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear", seed=seed)
        for seed in range(4)
    )
    own = options(tmp_path)

    def state(cell: Cell, options: RunOptions = own) -> tuple[str, str]:
        (planned,) = plan([cell], progress)
        return state_of(planned, options)

    run_cell(done, own, progress)
    record_failure(resolve(died, progress).planned, own, "the disk was full")
    folder = cell_folder(own.out, busy, resolve(busy, progress).planned.identity)
    folder.mkdir(parents=True)
    assert state(busy) == ("to run", "")
    with FileLock(folder / LOCK):
        assert state(busy) == ("running", "")
    assert state(done) == ("finished", "")
    assert state(died) == ("failed", "the disk was full")
    assert state(left) == ("to run", "")
    assert state(left.model_copy(update={"task": "esc10", "fold": 1}))[0] == "impossible"
    forced = own.model_copy(update={"force": True})
    assert state(done, forced) == ("to run", "")
    assert [r.cell for _, r in find_records(own.out)[0]] == [done, died]  # looking changes nothing
