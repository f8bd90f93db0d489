"""Run one cell in forked processes, and kill some of them: a program for `test_runner.py`.

usage: killed_runs.py OUT TRIALS KILLS_A_TRIAL SEED

Runs the cell once undisturbed into OUT/reference, then TRIALS times into OUT/trial-N, each killed with SIGKILL at
KILLS_A_TRIAL random moments before it is left to end. A fork has torch imported already, so a kill lands in
the run and not in its imports. Prints, for each trial, how often the record says it was taken up.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from lape_bench.device import Compute
from lape_bench.progress import Progress
from lape_bench.records import Cell
from lape_bench.runner import RunOptions, load_system, run_cell

CELL = Cell(
    system="supervised",
    settings={"width": 16, "finetune": {"epochs": 8, "least_steps": 1, "selections": 4}},
    task="synthetic-sounds",
    protocol="finetune",
    label_fraction=0.2,
)


def start(out: Path) -> int:
    """Fork a process that runs the cell and return its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        compute = Compute(device="cpu", precision="float32", threads=1)
        record = run_cell(
            CELL, RunOptions(out=out, compute=compute, checkpoint_seconds=0.0), Progress(quiet=True)
        )
        status = 0 if record.status == "finished" else 1
        print(out.name, record.resumed, flush=True)
    finally:
        os._exit(status)


def finish(child: int) -> None:
    """Wait for a process and insist that it ended well."""
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the run ended with status {status}"


def main() -> None:
    """See the module."""
    out, trials, kills = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    moments = random.Random(int(sys.argv[4]))
    torch.set_num_threads(1)
    load_system(CELL.system)
    began = time.monotonic()
    finish(start(out / "reference"))
    seconds = time.monotonic() - began
    for trial in range(trials):
        folder = out / f"trial-{trial}"
        for _ in range(kills):
            child = start(folder)
            time.sleep(moments.uniform(0.05, 0.6) * seconds)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        finish(start(folder))


if __name__ == "__main__":
    main()
