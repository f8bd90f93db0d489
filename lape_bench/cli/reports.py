"""`bench show` and `bench report`, and the board that ends a run."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lape_bench.cli.options import print_table
from lape_bench.errors import UserError, unknown
from lape_bench.paths import write_text

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
    html: Annotated[
        Path | None,
        typer.Option(help="Write one page instead: boards, figures, records; opens offline."),
    ] = None,
) -> None:
    """Show the leaderboard: every score recomputed from the predictions on disk.

    Of cells that were kept as a table only (--format cells), the scores stand as they were written.
    """
    from lape_bench.report.frame import load_results

    if format not in (formats := ("terminal", "markdown", "csv", "cells")):
        raise unknown("format", format, formats)
    if html is not None and format != "terminal":
        raise UserError("--html writes a page and --format a table", next_step="give one of them")
    sources = out or [Path("results")]
    results = load_results(sources)
    frame = results.cells
    for problem in results.problems:
        print(f"left out: {problem}", file=sys.stderr)
    if frame.empty:
        raise UserError(
            f"{' and '.join(map(str, sources))} holds no finished record",
            next_step="run something: 'bench run'",
        )
    if html is not None:
        write_page(results, sources, html)
    elif format == "cells":
        print(frame.to_csv(index=False), end="")
    else:
        show_board(frame, format)


def write_page(results: Any, sources: list[Path], path: Path) -> None:
    """Write the page of all results, whole or not at all, and say where."""
    from lape_bench.report.leaderboard import leaderboard
    from lape_bench.report.page import page

    write_text(path, page(results, leaderboard(results.cells), sources))
    print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)", file=sys.stderr)


def show_board(frame: Any, format: str) -> None:
    """Print the leaderboard of a frame of cells: terminal, markdown or csv."""
    from lape_bench.report import leaderboard as boards

    board = boards.leaderboard(frame)
    if format == "csv":
        print(boards.as_csv(board), end="")
    elif format == "markdown":
        print(boards.as_markdown(*boards.columns(board)), end="")
    else:
        print_table(boards.as_table(*boards.columns(board)))


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
