"""`bench run`, `bench sweep` and `bench pretrain`."""

import logging
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.table import Table
from typer.core import TyperGroup

from lape_bench.api.choose_tasks import choose_tasks
from lape_bench.api.run_items import CompletedRun, label_items, plan_items, run_items
from lape_bench.cli.options import (
    Audit,
    Device,
    Force,
    Label,
    LabelFractions,
    Out,
    PrecisionName,
    Preset,
    Quiet,
    Settings,
    Shots,
    TensorBoard,
    Threads,
    ValidationLabelsOption,
    Verbose,
    given_budgets,
    print_table,
    start_progress,
)
from lape_bench.cli.reports import show_audit, show_board
from lape_bench.core.config import apply_pairs, as_pairs, merge, read_yaml
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.report.formatting import percent

logger = logging.getLogger(__name__)

app = typer.Typer()


@app.command(
    epilog="Example: bench run --system supervised --task asc-keywords --seeds 3 --shots 1,5,10"
)
def run(
    system: Annotated[
        list[str] | None,
        typer.Option(help="A system to evaluate; may be repeated; default: supervised."),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="A task, or task@variant; may be repeated.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(help="Every task of a suite: open, lape, own (your tasks), lape-synthetic."),
    ] = None,
    data: Annotated[
        str, typer.Option(help="real, or synthetic: generated versions of the tasks.")
    ] = "real",
    protocol: Annotated[
        str | None, typer.Option(help="finetune, linear, mlp or knn; default: the system's own.")
    ] = None,
    label_fraction: LabelFractions = None,
    shots: Shots = None,
    validation_labels: ValidationLabelsOption = "budget",
    seeds: Annotated[
        int, typer.Option(min=1, max=10_000, help="Number of seeds, counted from 0.")
    ] = 1,
    fold: Annotated[int | None, typer.Option(help="Only this fold; default: all.")] = None,
    preset: Preset = "",
    settings: Settings = None,
    label: Label = "",
    out: Out = Path("results"),
    device: Device = "auto",
    precision: PrecisionName = "auto",
    threads: Threads = None,
    force: Force = False,
    audit: Audit = False,
    keep_model: Annotated[
        bool, typer.Option("--keep-model", help="Keep the trained model beside the record.")
    ] = False,
    tensorboard: TensorBoard = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run systems on tasks, with every seed and fold. Finished cells are not run again.

    Without --task and --suite it runs a generated task, which needs no download. If a task of a suite is not
    prepared, it is named and left out.
    """
    from lape_bench.evaluation.plan import with_preset
    from lape_bench.evaluation.run_options import RunOptions
    from lape_bench.runtime.device import Compute
    from lape_bench.sweep.local_engine import LocalEngine

    chosen = choose_tasks(task or ([] if suite else ["synthetic-sounds"]), suite, data)
    for line in chosen.left_out:
        print(line, file=sys.stderr)
    progress = start_progress(quiet, verbose)
    changed = apply_pairs(settings or [])
    items = plan_items(
        [
            (name, with_preset(name, preset, changed))
            for name in dict.fromkeys(system or ["supervised"])
        ],
        chosen.names,
        [protocol] if protocol else [],
        given_budgets(label_fraction, shots, validation_labels),
        seeds,
        fold,
        progress,
    )
    items = label_items(items, label, out)
    compute = Compute(device=device, precision=precision, threads=threads)
    options = RunOptions(out=out, compute=compute, force=force, audit=audit, keep_model=keep_model)
    run_all(items, options, LocalEngine(), progress, tensorboard=tensorboard)


class RunByDefault(TyperGroup):
    """A group in which the name of the command `run` may be left out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert `run` if the first argument is not the name of a command or a call for help."""
        if args and args[0] not in (*self.commands, "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


sweeps = typer.Typer(
    cls=RunByDefault,
    help="Run a grid of cells (bench sweep grid.yaml), or show its progress (bench sweep status grid.yaml).",
    epilog="Example: bench sweep grid.yaml --jobs 2",
    no_args_is_help=True,
)
app.add_typer(sweeps, name="sweep")
Grid = Annotated[Path, typer.Argument(help="A YAML file: systems, tasks, protocols, ...")]
OfGrid = Annotated[
    list[str] | None,
    typer.Option("--task", help="Only this task of the grid; may be repeated."),
]


@sweeps.command(
    "run",
    epilog="Example: bench sweep run grid.yaml --jobs 2 ('run' may be left out)",
)
def sweep(
    file: Grid,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells, and run nothing.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Show what each machine lacks, and run nothing."),
    ] = False,
    task: OfGrid = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Number of cells to run at a time on this machine.")
    ] = None,
    on: Annotated[
        str | None, typer.Option(help="An engine: ray (here), ray:ADDRESS (a cluster) or slurm.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the engine, such as gpus=0.25."),
    ] = None,
    out: Out = Path("results"),
    device: Device = "auto",
    precision: PrecisionName = "auto",
    threads: Threads = None,
    force: Force = False,
    audit: Audit = False,
    tensorboard: TensorBoard = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run a grid of cells. An interrupted sweep is resumed by the same command.

    It runs on this machine, in --jobs processes, or on a cluster, with --on.
    """
    from lape_bench.evaluation.run_options import RunOptions
    from lape_bench.runtime.device import Compute
    from lape_bench.sweep.grid import plan_sweep

    engine = _engine(on, settings or [], jobs)
    items = _items_of(file, task)
    compute = Compute(device=device, precision=precision, threads=threads)
    options = RunOptions(out=out, compute=compute, force=force, audit=audit)
    progress = start_progress(quiet, verbose)
    if not dry_run:
        engine.require_available(options)
    if dry_run:
        _show_plan(plan_sweep(items, progress), options)
    elif check:
        _show_machines(engine.check(items, options, progress))
    else:
        plan = plan_sweep(items, progress)
        run_all(plan, options, engine, progress, tensorboard=tensorboard)


@sweeps.command(epilog="Example: bench sweep status grid.yaml")
def status(file: Grid, task: OfGrid = None, out: Out = Path("results")) -> None:
    """Count the finished, running, failed and remaining cells of a grid, by system and task."""
    from lape_bench.evaluation.run_options import RunOptions
    from lape_bench.sweep.grid import plan_sweep
    from lape_bench.sweep.run_cell import CellState

    plan = plan_sweep(_items_of(file, task), Progress(quiet=True))
    cells = list(_states(plan, RunOptions(out=out)))
    present = {state for _, state, _ in cells}
    states = [state for state in get_args(CellState) if state in present]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("system", "task"):
        table.add_column(heading, no_wrap=True)
    for heading in states:
        table.add_column(heading, justify="right", no_wrap=True)
    rows: dict[tuple[str, str], Counter[str]] = {}
    for cell, state, _ in cells:
        rows.setdefault((cell.system, cell.task), Counter())[state] += 1
    for names, counts in rows.items():
        table.add_row(*names, *(str(counts[state] or "") for state in states))
    print_table(table)
    for cell, state, reason in cells:
        if state == "failed":
            print(f"{cell.title} failed: {reason}")
    reasons = Counter(reason for _, state, reason in cells if state == "impossible")
    for reason, count in reasons.items():
        print(f"{count} impossible: {reason}")
    print(", ".join(f"{sum(counts[s] for counts in rows.values())} {s}" for s in states))


def _states(plan: list[Any], options: Any) -> Iterator[tuple[Any, str, str]]:
    """Yield each planned or impossible cell of a sweep with its state, and with a reason if there is one."""
    from lape_bench.evaluation.plan import ImpossibleCell
    from lape_bench.sweep.run_cell import state_of

    for item in plan:
        yield (
            item.cell,
            *state_of(item if isinstance(item, ImpossibleCell) else item.planned, options),
        )


def _items_of(file: Path, tasks: list[str] | None) -> list[Any]:
    from lape_bench.sweep.grid import SweepConfig

    grid = read_yaml(file, SweepConfig)
    return grid.only(tasks).items() if tasks else grid.items()


def _engine(on: str | None, settings: list[str], jobs: int | None) -> Any:
    """Return the engine that runs a sweep, on this machine or on a cluster."""
    if on is None:
        from lape_bench.sweep.local_engine import LocalEngine

        if settings:
            raise UserError(
                f"--set {settings[0]} is a setting of an engine, but no engine is named",
                next_step="add --on ray or --on slurm; settings of systems belong in the grid",
            )
        return LocalEngine(jobs or 1)
    if jobs is not None:
        raise UserError(
            "--jobs is for this machine only",
            next_step=f"leave it out: {on} runs as many cells as fit",
        )
    from lape_bench.sweep.make_engine import engine

    return engine(on, apply_pairs(settings))


def _show_machines(reports: list[Any]) -> None:
    """Show what each machine has and lacks."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("machine", no_wrap=True)
    for heading in ("cores", "GPUs", "GiB", "GiB free"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("sees", no_wrap=True)
    table.add_column("problems", justify="right", no_wrap=True)
    for report in reports:
        sees = ["records"] * report.sees_records + ["cache"] * report.sees_cache
        sizes = (f"{report.memory_gib:.1f}", f"{report.free_gib:.1f}")
        counts = (str(report.cores), str(report.gpus), *sizes)
        table.add_row(report.name, *counts, ", ".join(sees), str(len(report.problems) or ""))
    print_table(table)
    for report in reports:
        for problem in report.problems:
            print(f"{report.name}: {problem}")
    if lacking := sum(bool(report.problems) for report in reports):
        print(f"{lacking} of {len(reports)} machines cannot run this sweep yet")
        raise typer.Exit(1)
    print("these machines have what the sweep needs")


@app.command(
    epilog="Example: bench pretrain --system delores-m --corpus asc-keywords,fsdd-digits --epochs 20"
)
def pretrain(
    corpus: Annotated[
        str,
        typer.Option(help="Tasks, folders of audio, or shards (.tar, .parquet), comma-separated."),
    ],
    system: Annotated[str, typer.Option(help="An upstream system.")] = "delores-m",
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of passes through the corpus; default: the system's own."),
    ] = None,
    settings: Settings = None,
    device: Device = "auto",
    precision: PrecisionName = "auto",
    threads: Threads = None,
    tensorboard: TensorBoard = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Pre-train an encoder without labels, and cache it for cells with the same settings and corpus.

    If a task has an official split, its train split is used. If it has folds, all clips are used. A cell whose task is
    in the corpus and has folds pre-trains its own upstream, without the clips that it is tested on.

    On several GPUs: torchrun --nproc-per-node 4 --no-python bench pretrain ... Each batch is divided among them.
    """
    from lape_bench.evaluation.pretraining import learn_upstream
    from lape_bench.learning.training.pretrain import STAGE
    from lape_bench.records.system_names import short_name
    from lape_bench.runtime import distributed
    from lape_bench.runtime.device import Compute
    from lape_bench.runtime.tensorboard_curves import require_tensorboard, write_curves

    if tensorboard is not None:
        require_tensorboard()
    given = merge(apply_pairs(settings or []), {"corpus": corpus})
    if epochs is not None:
        given = merge(given, {"pretrain": {"epochs": epochs, "min_steps": 1}})
    compute = Compute(device=device, precision=precision, threads=threads)
    progress = start_progress(quiet or not distributed.is_main_process(), verbose)
    try:
        upstream = learn_upstream(system, given, compute, progress)
    except KeyboardInterrupt:
        if distributed.is_main_process():
            print("stopped; the same command resumes it", file=sys.stderr)
        raise typer.Exit(130) from None
    if not distributed.is_main_process():
        return
    _report_upstream(upstream)
    if tensorboard is not None:
        run = f"upstream/{short_name(system)}-{upstream.artifact.hash[:8]}"
        write_curves(tensorboard, run, {STAGE: upstream.curve})
    pairs = " ".join(f"--set {shlex.quote(pair)}" for pair in as_pairs(given))
    logger.info(f"next: bench run --system {system} {pairs} --task TASK")


def _report_upstream(upstream: Any) -> None:
    """Print where an upstream is, and how its curve has changed."""
    artifact, curve = upstream.artifact, upstream.curve
    how = "pre-trained" if artifact.computed else "found in the cache"
    print(
        f"upstream {artifact.hash[:12]} {how} in {artifact.metadata.seconds:.0f} s: {artifact.folder}"
    )
    ends = [
        f"{name.replace('_', ' ')} {curve[0][name]:.4g} -> {curve[-1][name]:.4g}"
        for name in curve[0]
    ]
    print(f"{len(curve)} epochs, {', '.join(ends[1:])}")


def run_all(
    items: list[Any],
    options: Any,
    engine: Any,
    progress: Progress,
    short_names: bool = False,
    tensorboard: Path | None = None,
) -> None:
    """Run cells, report failures, and show the leaderboard of the finished cells.

    Args:
        items: planned or impossible cells.
        options: device, precision and other options.
        engine: runs them.
        progress: shows how far they are.
        short_names: whether the leaderboard omits settings that all variants of a system share.
        tensorboard: folder for the learning curves of finished cells.

    Raises:
        typer.Exit: a cell failed, or Ctrl-C stopped the run.
    """
    run = run_or_exit(items, options, engine, progress, tensorboard)
    results = run.results()
    if not results.cells.empty:
        if short_names:
            from lape_bench.report.display_names import distinguishing_names

            results = replace(
                results, cells=results.cells.assign(system=distinguishing_names(results.cells))
            )
        show_board(results, "terminal")
        show_audit([record for _, record in run.records])
        logger.info(f"records in {options.out}; 'bench report' shows them all")
    if run.failures:
        raise typer.Exit(1)


def run_or_exit(
    items: list[Any],
    options: Any,
    engine: Any,
    progress: Progress,
    tensorboard: Path | None = None,
) -> CompletedRun:
    """Run cells, and report failures; see `run_all`.

    Raises:
        typer.Exit: Ctrl-C stopped the run.
    """
    from lape_bench.evaluation.plan import ImpossibleCell
    from lape_bench.runtime.tensorboard_curves import require_tensorboard, write_record_curves

    if tensorboard is not None:
        require_tensorboard()  # before anything runs

    def on_record(record: Any) -> None:
        _log_score(record)
        if tensorboard is not None:
            write_record_curves(tensorboard, record)

    try:
        run = run_items(items, options, engine, progress, on_record, _print_failure)
    except KeyboardInterrupt:
        again = "; with --force it also runs the finished cells again" if options.force else ""
        print(engine.stopped + again, file=sys.stderr)
        raise typer.Exit(130) from None
    impossible = sum(isinstance(item, ImpossibleCell) for item in items)
    if failed := len(run.failures) - impossible:
        print(
            f"{failed} of {len(items)} cells failed; run again to retry them; tracebacks are in error.txt beside the records",
            file=sys.stderr,
        )
    if impossible:
        print(f"{impossible} of {len(items)} cells cannot be run as they are", file=sys.stderr)
    return run


def _log_score(record: Any) -> None:
    score = record.metrics[record.task.metric] if record.task else 0.0
    logger.info(f"{record.cell.title}: {percent(score)} %")


def _print_failure(line: str) -> None:
    print(line, file=sys.stderr)


def _show_plan(plan: list[Any], options: Any) -> None:
    counts = dict.fromkeys(("finished", "to run", "impossible"), 0)
    for cell, state, reason in _states(plan, options):
        # A failed cell runs again, and a running one is waited for.
        shown = state if state in counts else "to run"
        counts[shown] += 1
        print(f"{shown:<11}{cell.title}{f': {reason}' if reason and shown == state else ''}")
    print(", ".join(f"{count} {state}" for state, count in counts.items()))
