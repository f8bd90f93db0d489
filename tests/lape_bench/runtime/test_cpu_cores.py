"""Runs see how many threads others compute with, and how many cores there are for them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch

from lape_bench.runtime import cpu_cores
from lape_bench.runtime.device import Compute

Bench = Callable[..., tuple[int, str, str]]
TAKE = "from lape_bench.runtime import cpu_cores\nwith cpu_cores.taken(3): print('taken', flush=True); input()"


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes of this test alone, and of the processes that it starts."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(cpu_cores, "_runs", lambda: tmp_path / f"lape_bench-runs-{os.getuid()}")


@contextmanager
def another_run() -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", TAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "taken\n"
        yield process
        process.kill()


def test_a_run_sees_the_threads_of_those_before_it() -> None:
    with another_run(), another_run(), cpu_cores.taken(2) as others:
        assert others == 6


def test_a_run_that_ended_or_was_killed_takes_nothing(tmp_path: Path) -> None:
    with cpu_cores.taken(2):
        pass
    with another_run() as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with cpu_cores.taken(1) as others:
            assert others == 0
    assert [*tmp_path.rglob("*-3")] == []


def test_a_run_goes_on_where_no_note_can_be_left(tmp_path: Path) -> None:
    (tmp_path / f"lape_bench-runs-{os.getuid()}").write_text("a file where the folder should be")
    with cpu_cores.taken(2) as others:
        assert others == 0


def test_a_process_kept_to_one_core_is_given_one() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from lape_bench.runtime.cpu_cores import given; print(given())"
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system cannot keep a process to some cores")
    told = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert told.stdout == "1\n"


def test_torch_starts_no_more_threads_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.setattr(cpu_cores, "given", lambda: 1)
    Compute(device="cpu").resolve()
    assert torch.get_num_threads() == 1
    Compute(device="cpu", threads=2).resolve()
    assert torch.get_num_threads() == 2  # as asked for


@pytest.mark.parametrize(("here", "processes", "each"), [(8, 2, 4), (8, 3, 2), (2, 4, 1)])
def test_processes_share_the_cores(
    here: int, processes: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_cores, "given", lambda: here)
    assert Compute().shared(processes).threads == each
    assert Compute(threads=5).shared(processes).threads == 5


@pytest.mark.parametrize(("theirs", "told"), [(0, False), (1, False), (2, True)])
def test_a_run_is_told_of_others_that_leave_it_too_few_cores(
    theirs: int, told: bool, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_cores, "given", lambda: 2)
    monkeypatch.setattr(cpu_cores, "taken", lambda threads: nullcontext(theirs))
    run = ("run", "--system", "log-mel-statistics", "--device", "cpu", "--threads", "1")
    code, _, err = bench(*run, "--out", str(tmp_path / "out"))
    assert code == 0
    assert ("other runs use 2 threads beside the 1 of this one, on 2 cores" in err) == told
