"""`bench show`, `bench report` and `bench compare`, and the board that ends a run."""

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
