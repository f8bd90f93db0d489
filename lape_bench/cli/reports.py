"""`bench show` and `bench report`, and the leaderboard at the end of a run."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lape_bench.cli.options import Reference, Sources, Submissions, print_table
from lape_bench.core.config import validate
from lape_bench.core.errors import UserError, unknown
from lape_bench.core.paths import write_text
from lape_bench.core.printable import printable
from lape_bench.report.formatting import percent

RESULTS = Path("results")
FORMATS = ("terminal", "markdown", "csv", "latex", "json")
FOR_PROGRAMS = ("csv", "latex", "json")  # standard output holds only the table

app = typer.Typer()


@app.command(epilog="Example: bench show results/asc-keywords/unfused/finetune-0.1-seed0-1a2b3c4d")
def show(
    record: Annotated[Path, typer.Argument(help="A cell's folder, or its record.json.")],
) -> None:
    """Show a record: score, stages and their cost, learning curves, clusters, artifacts."""
    from lape_bench.report.record_view import find_record, record_view

    print_table(record_view(find_record(record)))


@app.command(epilog="Example: bench report --paper unfused --format latex > tables.tex")
def report(
    out: Sources = None,
    reference: Reference = False,
    submissions: Submissions = None,
    format: Annotated[
        str,
        typer.Option(help="terminal, markdown, csv, latex, json, or cells: a CSV of every cell."),
    ] = "terminal",
    validation: Annotated[
        bool,
        typer.Option("--validation", help="Show scores on validation, for choosing settings."),
    ] = False,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Rank by accuracy, balanced_accuracy, macro_f1 or roc_auc instead of each task's own metric."
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Only this task, or name@variant; may be repeated.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="Write one HTML page with boards, figures and records, which works offline."
        ),
    ] = None,
    paper: Annotated[
        str | None,
        typer.Option(help="Show the tables of a paper: its name, such as unfused, or a YAML file."),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="With --paper: lape, open, lape-synthetic, own.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="With --paper: finetune, linear, mlp or knn.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="With --paper: label budget, such as 10% or 5-shot.")
    ] = None,
    published: Annotated[
        list[Path] | None,
        typer.Option(
            help="With --paper: more published figures, a CSV or a folder; may be repeated."
        ),
    ] = None,
    no_published: Annotated[
        bool, typer.Option("--no-published", help="With --paper: leave out published figures.")
    ] = False,
) -> None:
    """Show the leaderboard, or the tables of a paper. Every score is recomputed from the predictions on disk.

    A CSV of cells (--format cells) has no predictions, so its scores are used as they are.
    """
    of_paper = {"suite": suite, "protocol": protocol, "labels": labels}
    chosen = {key: value for key, value in of_paper.items() if value is not None}
    paper_options = [
        *chosen,
        *(["published"] * bool(published)),
        *(["no_published"] * no_published),
    ]
    _check_options(format, validation, metric, html, paper, paper_options)
    # These import pandas, which is slow.
    from lape_bench.results.cells import write_cells
    from lape_bench.results.load import of_tasks

    others = references(reference, submissions)
    results = load_finished(out, others)
    if task:
        results = of_tasks(results, task)
    if html is not None:
        write_page(results, [*(out or [RESULTS]), *others], html)
    elif paper:
        show_paper(results.cells, format, paper, chosen, None if no_published else published or [])
    elif format == "cells":
        print(write_cells(results.cells), end="")
    elif validation:
        show_validation(results, format)
    else:
        show_board(results, format, metric)


def _check_options(
    format: str,
    validation: bool,
    metric: str | None,
    html: Path | None,
    paper: str | None,
    paper_options: list[str],
) -> None:
    """Raise a `UserError` for an unknown format, and for options that exclude each other.

    Args:
        format: one of `FORMATS`, or "cells".
        validation: whether --validation was given.
        metric: to rank by.
        html: the page to write.
        paper: name or file of a paper.
        paper_options: names of the given options that need --paper.
    """
    formats = FORMATS if paper else (*FORMATS, "cells")
    if format not in formats:
        raise unknown("format", format, formats)
    if paper_options and not paper:
        option = f"--{paper_options[0].replace('_', '-')}"
        raise UserError(f"{option} goes with --paper", next_step=f"give --paper, or leave {option}")
    other_than_board = paper or html is not None or format == "cells"
    if validation and other_than_board:
        raise UserError(
            "--validation is for the leaderboard",
            next_step="leave out --paper, --html and --format cells; 'cells' has the validation score as a column",
        )
    if metric is not None and (validation or other_than_board):
        raise UserError(
            "--metric is for the leaderboard of test scores",
            next_step="leave out --validation, --paper, --html and --format cells",
        )
    if {"published", "no_published"} <= {*paper_options}:
        raise UserError("--published and --no-published exclude each other", next_step="give one")
    if html is not None and (paper or format != "terminal"):
        raise UserError(
            "--html writes a page, --format and --paper tables", next_step="give one of them"
        )


def load_finished(sources: list[Path] | None, references: Sequence[Path] = ()) -> Any:
    """Load results and print the problems. Raise a `UserError` if there is no finished record.

    Args:
        sources: folders or files; None for the folder `results`, which need not exist if there are reference results.
        references: folders of results that others ran, as `references` returns them.
    """
    from lape_bench.results.load import load_results

    if sources is None:
        sources = [RESULTS] if RESULTS.exists() or not references else []
    results = load_results(sources, references)
    for problem in results.problems:
        print(f"left out: {printable(problem)}", file=sys.stderr)
    if results.cells.empty:
        raise UserError(
            f"{' and '.join(map(str, [*references, *sources]))} has no finished record",
            next_step="run something: 'bench run'",
        )
    return results


def only_complete(board: Any) -> Any:
    """Drop the rows of a leaderboard that lack folds, and print which ones."""
    for row in board[~board["complete"]].itertuples():
        folds = f"{row.folds} of {row.folds_of_task} folds"
        print(f"left out: {row.system} on {row.task}, {row.protocol}: {folds}", file=sys.stderr)
    board = board[board["complete"]]
    if board.empty:
        raise UserError(
            "no system has been run in every fold", next_step="'bench run' runs the missing folds"
        )
    return board


def references(reference: bool, submissions: Path | None) -> list[Path]:
    """Return the folders of submissions, then that of the reference results, which count before submissions.

    A folder of submissions without a card is left out, and named.
    """
    from lape_bench.results.submissions import submission_folders
    from lape_bench.results.system_card import CARD

    folders = []
    for folder in [] if submissions is None else submission_folders(submissions):
        if (folder / CARD).exists():
            folders.append(folder)
        else:
            print(printable(f"left out: {folder} has no {CARD}"), file=sys.stderr)
    return [*folders, *reference_folders(reference)]


def reference_folders(reference: bool) -> list[Path]:
    """Return the folder of the reference results, if they are wanted."""
    from lape_bench.results.reference import reference_folder

    return [reference_folder()] if reference else []


def write_page(results: Any, sources: list[Path], path: Path) -> None:
    """Write the HTML page of all results, whole or not at all, and print its path."""
    from lape_bench.report.leaderboard import leaderboard
    from lape_bench.report.page.html_page import page

    write_text(path, page(results, leaderboard(results.cells, results.predictions), sources))
    print(f"wrote {path} ({path.stat().st_size / 2**20:.1f} MiB)", file=sys.stderr)


def show_board(results: Any, format: str, metric: str | None = None) -> None:
    """Print the leaderboard of results in one of the formats.

    Args:
        results: as returned by `load_results`.
        format: one of FORMATS.
        metric: metric to rank by instead of each task's own; tasks without it are named.
    """
    from lape_bench.report.leaderboard import footnotes, leaderboard
    from lape_bench.results.cells import by_metric

    cells = results.cells if metric is None else by_metric(results.cells, metric)
    for task in sorted({*results.cells["task"]} - {*cells["task"]}):
        print(f"left out: {task} has no {metric}", file=sys.stderr)
    board = leaderboard(cells, results.predictions)
    print_board(board, format, footnotes(board))


def show_validation(results: Any, format: str) -> None:
    """Print the leaderboard of validation scores, without ranks."""
    from lape_bench.report.leaderboard import footnotes, leaderboard
    from lape_bench.results.cells import on_validation

    board = leaderboard(on_validation(results.cells))
    print_board(board, format, [*footnotes(board), "scores are on the validation split"])


def print_board(board: Any, format: str, footnotes: list[str]) -> None:
    """Print a leaderboard in one of the formats, and its footnotes."""
    from lape_bench.report import leaderboard as boards
    from lape_bench.report.latex import latex
    from lape_bench.report.table import as_json
    from lape_bench.report.terminal import TerminalTable

    if format == "csv":
        print(boards.as_csv(board), end="")
    elif format == "json":
        print(as_json({"rows": boards.as_data(board)}), end="")
    elif format == "markdown":
        print(boards.as_markdown(*boards.format_rows(board)), end="")
    elif format == "latex":
        table = boards.as_table(*boards.format_rows(board))
        print(latex([replace(table, remarks=tuple(footnotes))]), end="")
    else:
        print_table(TerminalTable(boards.as_table(*boards.format_rows(board))))
    if footnotes and format != "latex":
        for_programs = format in FOR_PROGRAMS
        print("", *footnotes, sep="\n", file=sys.stderr if for_programs else sys.stdout)


def show_paper(
    cells: Any, format: str, name: str, chosen: dict[str, Any], published: list[Path] | None
) -> None:
    """Print a paper's tables.

    Args:
        cells: as in `Results.cells`.
        format: one of FORMATS.
        name: name of the paper, or its file.
        chosen: fields of the paper that the command line overrides.
        published: further files of published figures; None: show no published figures.
    """
    from lape_bench.report.latex import latex
    from lape_bench.report.papers.paper_tables import paper_tables
    from lape_bench.report.papers.published import load_published
    from lape_bench.report.papers.specification import PaperSpecification, load_paper
    from lape_bench.report.table import as_csv, as_data, as_json, markdown
    from lape_bench.report.terminal import TerminalTable

    installed = load_paper(name)
    specification = validate(
        {**installed.model_dump(), **chosen}, PaperSpecification, where=f"paper {name}"
    )
    figures = [] if published is None else load_published(published)
    tables = paper_tables(specification, cells, figures)
    if format == "csv":
        print(as_csv(tables), end="")
    elif format == "json":
        head = {"paper": specification.title, "source": specification.source}
        print(as_json({**head, "tables": list(map(as_data, tables))}), end="")
    elif format == "markdown":
        print("\n".join(map(markdown, tables)), end="")
    elif format == "latex":
        print(latex(tables), end="")
    else:
        for number, table in enumerate(tables):
            if number:
                print()
            print_table(TerminalTable(table))


def show_audit(records: list[Any]) -> None:
    """Print the scores that published shortcuts would have reported, if any record was audited."""
    audited = [record for record in records if record.audit is not None]
    if not audited:
        return
    print("\nscores that published shortcuts would have reported on the same cells:")
    for shortcut in ("best_epoch_on_test", "one_random_crop", "random_split"):
        pairs = [
            (record.metrics[record.task.metric], record.audit[shortcut][record.task.metric])
            for record in audited
            if shortcut in record.audit
        ]
        if pairs:
            honest, shortcut_score = (
                sum(scores) / len(pairs) for scores in zip(*pairs, strict=True)
            )
            name = shortcut.replace("_", " ")
            more = percent(shortcut_score - honest, signed=True)
            print(
                f"  {name:<20}{percent(shortcut_score):>6} % instead of {percent(honest):>6} % ({more})"
            )
