"""`bench evaluate`: where an encoder stands among others, in one command."""

import logging
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from lape_bench.api.choose_tasks import choose_tasks
from lape_bench.api.run_items import label_items, plan_items
from lape_bench.cli.options import (
    Device,
    Label,
    LabelFractions,
    Out,
    PrecisionName,
    Preset,
    Quiet,
    Settings,
    Shots,
    Threads,
    Verbose,
    given_budgets,
    print_table,
    start_progress,
)
from lape_bench.cli.reports import reference_folders, write_page
from lape_bench.cli.runs import run_or_exit
from lape_bench.core.config import apply_pairs
from lape_bench.core.errors import UserError, unknown
from lape_bench.data.catalog import load_card, suite_tasks

logger = logging.getLogger(__name__)

app = typer.Typer()

BUDGETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "quick": (("linear",), ("1-shot", "5-shot", "10%")),
    "full": (("linear", "knn"), ("1-shot", "5-shot", "10-shot", "10%", "100%")),
}
"""Protocols and label budgets by which an encoder is placed among others; `full` is the grid of the reference results."""

BASELINE = "log-mel-statistics"  # on synthetic audio there are no reference results


@app.command(epilog="Example: bench evaluate my_encoder.py:MyEncoder --budget full")
def evaluate(
    system: Annotated[
        str, typer.Argument(help="Your encoder: file.py:Class, checkpoint:FILE, hf:NAME, ...")
    ],
    suite: Annotated[str, typer.Option(help="Suite of tasks.")] = "open",
    budget: Annotated[
        str,
        typer.Option(
            help="quick: linear with 1 and 5 labels per class and 10 %; full: linear and knn, 10 and all labels too."
        ),
    ] = "quick",
    shots: Shots = None,
    label_fraction: LabelFractions = None,
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="Number of seeds, from 0.")] = 3,
    data: Annotated[str, typer.Option(help="real, or synthetic: generated audio.")] = "real",
    preset: Preset = "",
    settings: Settings = None,
    label: Label = "",
    html: Annotated[
        Path | None, typer.Option(help="Also write a page of all results, with the references.")
    ] = None,
    out: Out = Path("results"),
    device: Device = "auto",
    precision: PrecisionName = "auto",
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Evaluate a frozen encoder on a suite and show where it stands among the reference results and your own.

    It runs every prepared task with several label budgets and three seeds, and shows the overview, the nearest systems
    with the differences to them, the curve over label budgets, and the cost. If no task of the suite is prepared, it
    runs the synthetic version of the suite. Finished cells are not run again.
    """
    from lape_bench.evaluation.plan import with_preset
    from lape_bench.evaluation.run_options import RunOptions
    from lape_bench.report.standing import standing
    from lape_bench.report.standing_view import standing_view
    from lape_bench.results.load import load_results
    from lape_bench.runtime.device import Compute
    from lape_bench.sweep.local_engine import LocalEngine

    if budget not in BUDGETS:
        raise unknown("budget", budget, BUDGETS)
    started = time.monotonic()
    data, tasks = _tasks(suite, data)
    protocols, labels = BUDGETS[budget]
    if shots is not None or label_fraction is not None:
        labels = tuple(given_budgets(label_fraction, shots, "budget"))
    progress = start_progress(quiet, verbose)
    grid = (tasks, protocols, labels, seeds, None, progress)
    given = with_preset(system, preset, apply_pairs(settings or []))
    items = label_items(plan_items([(system, given)], *grid), label, out)
    if data == "synthetic" and system != BASELINE:
        items += plan_items([(BASELINE, {})], *grid)
    compute = Compute(device=device, precision=precision, threads=threads)
    run = run_or_exit(items, RunOptions(out=out, compute=compute), LocalEngine(), progress)
    folders = {
        folder for folder, record in run.records if record.cell.system == items[0].cell.system
    }
    references = _references(data)
    results = load_results([out], references)
    own = [n for n, of_cell in results.predictions.items() if of_cell.folder in folders]
    if own:
        from lape_bench.report.display_names import system_display_names

        name = system_display_names(results.cells).loc[own[0]]
        print_table(standing_view(standing(results, name)))
        minutes = (time.monotonic() - started) / 60
        logger.info(f"records in {out}, after {minutes:.1f} min; 'bench overview' shows them all")
        if html is not None:
            write_page(results, [out, *references], html)
    if run.failures:
        raise typer.Exit(1)


def _tasks(suite: str, data: str) -> tuple[str, list[str]]:
    """Return the kind of data and the tasks to run; synthetic ones if no task of the suite is prepared."""
    names = suite_tasks(suite)
    try:
        chosen = choose_tasks([], suite, data)
    except UserError as error:
        if data != "real":
            raise
        print(
            f"{error} Prepare one with 'bench data fetch {names[0]}' and 'bench data prepare {names[0]}'. Now its synthetic "
            "version is run, which says nothing of real audio.",
            file=sys.stderr,
        )
        data, chosen = "synthetic", choose_tasks([], suite, "synthetic")
    for line in chosen.left_out:
        print(line, file=sys.stderr)
    if all(load_card(name).data == "synthetic" for name in chosen.names):
        data = "synthetic"
    return data, chosen.names


def _references(data: str) -> list[Path]:
    """Return the folder of the reference results, if there are some for this kind of data."""
    if data == "synthetic":
        return []
    try:
        return reference_folders(True)
    except UserError as error:
        print(f"left out: {error}", file=sys.stderr)
        return []
