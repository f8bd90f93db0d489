"""Run one cell in forked processes, and kill some of them: a program for `test_runner.py`.

usage: killed_runs.py SYSTEM OUT TRIALS KILLS_A_TRIAL SEED

Runs the system's cell once undisturbed into OUT/reference, then TRIALS times into OUT/trial-N, each killed with
SIGKILL at KILLS_A_TRIAL random moments before it is left to end. Each of these keeps artifacts of its own. A fork has
torch imported already, so a kill lands in the run and not in its imports. Forking is safe here because torch has not
computed anything yet, so none of its threads runs. Prints, for each trial, how often the record says it was resumed.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from lape_bench.core.paths import home
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import load_system
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_cell
from lape_bench.records.record import Cell
from lape_bench.runtime import environment
from lape_bench.runtime.device import Compute

BRIEF = {"min_steps": 1, "batch_size": 48, "window_seconds": 0.2}
SETTINGS: dict[str, dict[str, Any]] = {
    "supervised": {"width": 16, "finetune": {"epochs": 5, "min_steps": 1, "evaluations": 3}},
    "unfused": {
        "teacher_settings": {
            "width": 8, "projector": 8, "queue": 16, "pretrain": BRIEF | {"epochs": 2},
        },
        "student_width": 8,
        "clusters": 4,
        "distill": BRIEF | {"epochs": 2},
        "finetune": {"epochs": 2, "min_steps": 1, "evaluations": 1},
    },
}  # fmt: skip
LEFT = 0.55  # of the undisturbed run's time: the latest moment of a kill, since a run goes on from the one before


def cell_of(system: str) -> Cell:
    """Return a small cell of the synthetic task."""
    return Cell(
        system=system,
        settings=SETTINGS[system],
        task="synthetic-sounds",
        protocol="finetune",
        labels="10%",
    )


def start(cell: Cell, out: Path, prepared: Path) -> int:
    """Fork a process that runs the cell and return its id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ["LAPE_BENCH_HOME"] = str(out / "home")
        for room in ("data", "manifests", "store"):
            (out / "home").mkdir(parents=True, exist_ok=True)
            if not (out / "home" / room).exists():
                (out / "home" / room).symlink_to(prepared / room)
        compute = Compute(device="cpu", precision="float32", threads=1)
        options = RunOptions(out=out, compute=compute, checkpoint_seconds=0.0)
        record = run_cell(cell, options, Progress(quiet=True))
        status = 0 if record.status == "finished" else 1
        print(out.name, record.resumed, record.error or "", flush=True)
    finally:
        os._exit(status)


def finish(child: int) -> None:
    """Wait for a process and insist that it ended well."""
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the run ended with status {status}"


def main() -> None:
    """See the module."""
    cell, out = cell_of(sys.argv[1]), Path(sys.argv[2])
    trials, kills = int(sys.argv[3]), int(sys.argv[4])
    moments = random.Random(int(sys.argv[5]))
    torch.set_num_threads(1)
    load_system(cell.system)
    environment.describe()  # now, so that files edited meanwhile make no run look like one of other code
    prepared = home()
    began = time.monotonic()
    finish(start(cell, out / "reference", prepared))
    seconds = time.monotonic() - began
    for trial in range(trials):
        folder = out / f"trial-{trial}"
        for _ in range(kills):
            child = start(cell, folder, prepared)
            time.sleep(moments.uniform(0.05, LEFT) * seconds)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        finish(start(cell, folder, prepared))


if __name__ == "__main__":
    main()
