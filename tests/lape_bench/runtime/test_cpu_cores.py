"""How many threads a run starts on the cores that it may use."""

import os
import subprocess
import sys

import pytest
import torch

from lape_bench.runtime import cpu_cores
from lape_bench.runtime.device import Compute


def test_a_process_kept_to_one_core_is_given_one() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from lape_bench.runtime.cpu_cores import available; print(available())"
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system cannot keep a process to some cores")
    told = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert told.stdout == "1\n"


def test_torch_starts_no_more_threads_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    monkeypatch.setattr(cpu_cores, "available", lambda: 1)
    Compute(device="cpu").resolve()
    assert torch.get_num_threads() == 1
    Compute(device="cpu", threads=2).resolve()
    assert torch.get_num_threads() == 2  # as asked for


@pytest.mark.parametrize(("here", "processes", "each"), [(8, 2, 4), (8, 3, 2), (2, 4, 1)])
def test_processes_share_the_cores(
    here: int, processes: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_cores, "available", lambda: here)
    assert Compute().shared(processes).threads == each
    assert Compute(threads=5).shared(processes).threads == 5
