"""The state of a cell, found without running it."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from filelock import FileLock

from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import plan, resolve
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import record_failure, run_cell
from lape_bench.records.record import LOCK, Cell, cell_folder, find_records
from lape_bench.sweep.local_engine import LocalEngine
from lape_bench.sweep.run_cell import state_of
from tests.lape_bench.conftest import Bench
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


def test_a_cell_that_another_process_runs_is_waited_for_with_a_word(
    synthetic: Path, tmp_path: Path, progress: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cell = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    own = options(tmp_path)
    folder = cell_folder(own.out, cell, resolve(cell, progress).planned.identity)
    folder.mkdir(parents=True)
    held = Event()

    def hold_until_waited_for() -> None:
        ends = time.monotonic() + 60
        with FileLock(folder / LOCK):
            held.set()
            while "waiting for another" not in caplog.text and time.monotonic() < ends:
                time.sleep(0.05)

    with ThreadPoolExecutor(1) as background:
        background.submit(hold_until_waited_for)
        held.wait()
        assert run_cell(cell, own, progress).status == "finished"
    assert f"waiting for another process that runs {cell.title}" in caplog.text


@pytest.mark.parametrize("arguments", [(), ("--force",)])
def test_a_stopped_command_says_how_it_is_resumed(
    arguments: tuple[str, ...],
    synthetic: Path,
    tmp_path: Path,
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalEngine, "run", stop)
    command = ["run", "--system", "log-mel-statistics", "--out", str(tmp_path), *arguments]
    code, _, message = bench(*command)
    assert code == 130
    assert message.startswith("stopped; the same command resumes it")
    assert ("the finished cells again" in message) == bool(arguments)


def test_a_cell_that_cannot_be_run_is_not_called_one_that_failed(
    synthetic: Path, tmp_path: Path, bench: Bench
) -> None:
    (tmp_path / "grid.yaml").write_text("{systems: [log-mel-statistics], tasks: [esc10]}")
    code, _, message = bench(
        "sweep", str(tmp_path / "grid.yaml"), "--device", "cpu", "--out", str(tmp_path / "out")
    )
    assert code == 1
    assert "5 of 5 cells cannot be run as they are" in message
    assert "error.txt" not in message
