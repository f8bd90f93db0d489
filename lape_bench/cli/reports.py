"""`bench show`, `bench report`, `bench compare` and `bench ranks`, and the board that ends a run."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lape_bench.cli.options import print_table
from lape_bench.errors import UserError, unknown

app = typer.Typer()


@app.command(epilog="Example: bench show results/asc-keywords/unfused/finetune-0.1-seed0-1a2b3c4d")
def show(
    record: Annotated[Path, typer.Argument(help="A cell's folder, or its record.json.")],
) -> None:
    """Show a record: score, stages and their cost, learning curves, clusters, artefacts."""
    from lape_bench.report import show as telling

    print_table(telling.show(telling.find_record(record)))


@app.command(epilog="Example: bench report --format markdown > board.md")
def report(
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of records, or a CSV of cells; may be repeated."),
    ] = None,
    format: Annotated[
        str, typer.Option(help="terminal, markdown, csv, or cells: a CSV of every cell.")
    ] = "terminal",
) -> None:
    """Show the leaderboard: every score recomputed from the predictions on disk.

    Of cells that were kept as a table only (--format cells), the scores stand as they were written.
    """
    if format not in (formats := ("terminal", "markdown", "csv", "cells")):
        raise unknown("format", format, formats)
    results = _finished(out)
    if format == "cells":
        print(results.cells.to_csv(index=False), end="")
    else:
        show_board(results, format)


@app.command(
    epilog="Example: bench compare unfused delores-s --task asc-keywords --label-fraction 0.1"
)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A system, as the leaderboard names it.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The system to compare it with.")],
    task: Annotated[str, typer.Option(help="The task, or task@variant.")],
    protocol: Annotated[
        str | None, typer.Option(help="finetune, linear or knn; default: the one both were run by.")
    ] = None,
    label_fraction: Annotated[
        float | None, typer.Option(help="Share of the train labels; default: the one both have.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="real or synthetic; default: the one both have.")
    ] = None,
    out: Annotated[
        list[Path] | None, typer.Option(help="Folder of records; may be repeated.")
    ] = None,
    clips: Annotated[
        int, typer.Option(min=0, help="How many of the clips that flip most often to name.")
    ] = 10,
    format: Annotated[str, typer.Option(help="terminal or json.")] = "terminal",
) -> None:
    """Tell two systems apart on a task: difference, interval, p, and the clips that only one has right.

    What is compared is accuracy, over the seeds, folds and test clips that both have. A name without settings is
    enough where one variant of the system was run.
    """
    if format not in (formats := ("terminal", "json")):
        raise unknown("format", format, formats)
    # pandas waits until the options are known to be right.
    from lape_bench.report import compare as comparing

    results = _finished(out)
    pair = comparing.find_pair(results, a, b, task, protocol, label_fraction, data)
    comparison = comparing.compare(pair, clips)
    if format == "json":
        print(comparison.model_dump_json(indent=2))
    else:
        print_table(comparing.as_text(comparison))


@app.command(epilog="Example: bench ranks --system unfused --system delores-s --system supervised")
def ranks(
    system: Annotated[
        list[str] | None,
        typer.Option(help="Only this one, as the leaderboard names it; may be repeated."),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of records, or a CSV of cells; may be repeated."),
    ] = None,
) -> None:
    """Rank systems over tasks, and sum up their label fractions.

    Average ranks count tasks that every system has; those whose difference is below Nemenyi's critical one share a
    letter. The area under the curve of scores over the logarithm of the label fraction is a mean score.
    """
    # scipy.stats and pandas are slow to import.
    from lape_bench.report import average_ranks, label_curve
    from lape_bench.report import leaderboard as boards

    board = boards.leaderboard(_finished(out).cells)
    board = board.assign(task=boards.shown_tasks(board), system=boards.shown_systems(board))
    for name in system or []:
        if name not in set(board["system"]):
            raise unknown("system with results", name, board["system"].unique())
    board = board[board["system"].isin(system)] if system else board
    for row in board[~board["complete"]].itertuples():
        folds = f"{row.folds} of {row.folds_of_task} folds"
        print(f"left out: {row.system} on {row.task}, {row.protocol}: {folds}", file=sys.stderr)
    board = board[board["complete"]]
    for (_, protocol, fraction), part in board.groupby(["data", "protocol", "label_fraction"]):
        where = f"{protocol}, {fraction:.3g} of the labels"
        try:
            found = average_ranks.over_tasks(part)
        except UserError as error:
            print(f"left out: {where}: {error}", file=sys.stderr)
            continue
        average = found.average
        print(f"{where}: {', '.join(found.tasks)}")
        print_table(average_ranks.as_table(found))
        print(
            f"Friedman p = {average.p:.2g}, critical difference {average.critical_difference:.2f}\n"
        )
        if found.left_out:
            tasks = ", ".join(found.left_out)
            print(f"left out: {where}: not every system has {tasks}", file=sys.stderr)
    areas = label_curve.areas(board)
    if not areas.table.empty:
        print_table(label_curve.as_table(areas))
    for lacking in areas.left_out:
        print(f"left out: {lacking}", file=sys.stderr)


def _finished(out: list[Path] | None) -> Any:
    """Load the results in these sources, say what is left out, and insist that something is there."""
    from lape_bench.report.frame import load_results

    sources = out or [Path("results")]
    results = load_results(sources)
    for problem in results.problems:
        print(f"left out: {problem}", file=sys.stderr)
    if results.cells.empty:
        raise UserError(
            f"{' and '.join(map(str, sources))} holds no finished record",
            next_step="run something: 'bench run'",
        )
    return results


def show_board(results: Any, format: str) -> None:
    """Print the leaderboard of results: terminal, markdown or csv."""
    from lape_bench.report import leaderboard as boards

    board = boards.leaderboard(results.cells, results.outcomes)
    if format == "csv":
        print(boards.as_csv(board), end="")
    elif format == "markdown":
        print(boards.as_markdown(*boards.columns(board)), end="")
    else:
        print_table(boards.as_table(*boards.columns(board)))
    if told := boards.notes(board):
        # A table that programs read holds nothing else.
        print("", *told, sep="\n", file=sys.stderr if format == "csv" else sys.stdout)


def show_audit(records: list[Any]) -> None:
    """Print what published shortcuts would have reported, if any record was audited."""
    audited = [record for record in records if record.audit is not None]
    if not audited:
        return
    print("\nwhat published shortcuts would have reported, beside this protocol on the same cells:")
    for shortcut in ("best_epoch_on_test", "one_random_crop", "random_split"):
        pairs = [
            (record.metrics[record.task.metric], record.audit[shortcut][record.task.metric])
            for record in audited
            if shortcut in record.audit
        ]
        if pairs:
            honest, told = (100 * sum(values) / len(pairs) for values in zip(*pairs, strict=True))
            name = shortcut.replace("_", " ")
            print(f"  {name:<20}{told:6.2f} % instead of {honest:6.2f} % ({told - honest:+.2f})")
