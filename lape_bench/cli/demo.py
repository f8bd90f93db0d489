"""`bench demo`: UnFuSeD beside its baselines on a generated task, in minutes."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from lape_bench.cli.options import Device, Out, Quiet, Threads, Verbose, start_progress
from lape_bench.cli.runs import run_all
from lape_bench.core.config import read_yaml
from lape_bench.plugins.registry import PAPERS

logger = logging.getLogger(__name__)

app = typer.Typer()

PAPER = "unfused"  # the grid of the demo is beside the description of this paper's tables
WHAT = "This compares UnFuSeD, its teacher fine-tuned directly and two baselines on a generated task with a tenth of the labels."
NEXT = (
    "The encoders are narrow and training is short: the scores show that everything works, not which method is better. "
    "Next: 'bench demo --show-grid > grid.yaml', edit it, 'bench sweep grid.yaml'; or 'bench data fetch esc10' for real audio."
)


def demo_grid() -> Path:
    """Return the file of the demo's grid."""
    return PAPERS.yaml_file(PAPER, "description").with_name("demo.yaml")


@app.command(epilog="Example: bench demo --threads 2")
def demo(
    show_grid: Annotated[
        bool, typer.Option("--show-grid", help="Print the demo's grid as YAML, and run nothing.")
    ] = False,
    out: Out = Path("results"),
    device: Device = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run UnFuSeD, its teacher and two baselines on a generated task, in less than 3 minutes on two CPU cores.

    No download is needed. The cells run as in `bench sweep`, and write records as usual.
    """
    grid = demo_grid()
    if show_grid:
        print(grid.read_text(encoding="utf-8"), end="")
        return
    from lape_bench.evaluation.run_options import RunOptions
    from lape_bench.runtime.device import Compute
    from lape_bench.sweep.grid import SweepConfig, plan_sweep
    from lape_bench.sweep.local_engine import LocalEngine

    progress = start_progress(quiet, verbose)
    logger.info(WHAT)
    options = RunOptions(out=out, compute=Compute(device=device, threads=threads))
    items = plan_sweep(read_yaml(grid, SweepConfig).items(), progress)
    run_all(items, options, LocalEngine(), progress, short_names=True)
    logger.info(NEXT)
