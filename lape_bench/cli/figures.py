"""`bench figure`: boards and records as PNG, SVG or PDF."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lape_bench.cli.options import ChosenSystems, Sources
from lape_bench.cli.reports import finished, only_complete
from lape_bench.core.errors import UserError, unknown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

app = typer.Typer()

OF_BOARDS = ("parameters", "seconds", "label-fractions", "critical-difference")
OF_RECORDS = ("confusion", "curves", "embeddings")


@app.command(epilog="Example: bench figure parameters --task asc-keywords --file parameters.svg")
def figure(
    kind: Annotated[
        str,
        typer.Argument(
            help=f"Of boards: {', '.join(OF_BOARDS)}. Of a record: {', '.join(OF_RECORDS)}."
        ),
    ],
    file: Annotated[Path, typer.Option(help="What to write: .png, .svg or .pdf.")],
    record: Annotated[
        Path | None, typer.Argument(help="A cell's folder, for a figure of a record.")
    ] = None,
    out: Sources = None,
    system: ChosenSystems = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be repeated.")] = None,
    protocol: Annotated[
        list[str] | None, typer.Option(help="Only this protocol; may be repeated.")
    ] = None,
    label_fraction: Annotated[
        list[float] | None, typer.Option(help="Only this share of labels; may be repeated.")
    ] = None,
    tsne: Annotated[
        bool, typer.Option("--tsne", help="Embeddings by t-SNE in place of PCA.")
    ] = False,
) -> None:
    """Draw accuracy against cost or labels, one board a panel, or ranks; or a record's confusions, curves, embeddings."""
    # Slow to import, as pandas is, and no other command draws.
    from lape_bench.report.figures import style

    if kind not in OF_BOARDS + OF_RECORDS:
        raise unknown("kind of figure", kind, OF_BOARDS + OF_RECORDS)
    style.check_suffix(file)
    if tsne and kind != "embeddings":
        raise UserError("--tsne goes with 'bench figure embeddings RECORD' alone")
    wanted = {
        "task": task,
        "protocol": protocol,
        "label_fraction": label_fraction,
    }
    if kind in OF_BOARDS:
        if record is not None:
            raise UserError(
                f"'bench figure {kind}' is of boards, and takes no record",
                next_step=f"give the folder of records by --out {record}",
            )
        style.write_figure(
            lambda: _of_boards(kind, out or [Path("results")], system or [], wanted), file
        )
        return
    if out or system or any(wanted.values()):
        raise UserError(
            f"'bench figure {kind}' is of one record; --out, --system, --task, --protocol and "
            "--label-fraction choose from boards",
            next_step=f"name a cell's folder: bench figure {kind} FOLDER --file {file}",
        )
    if record is None:
        raise UserError(
            f"'bench figure {kind}' needs a record",
            next_step=f"name a cell's folder: bench figure {kind} FOLDER --file {file}",
        )
    folder = record
    style.write_figure(lambda: _of_record(kind, folder, tsne), file)


def _of_boards(
    kind: str,
    sources: list[Path],
    systems: list[str],
    wanted: dict[str, list[str] | list[float] | None],
) -> "Figure":
    from lape_bench.report.display_names import (
        select_systems,
        system_display_names,
        task_display_names,
    )
    from lape_bench.report.figures import cost, label_fractions
    from lape_bench.report.figures.style import marks
    from lape_bench.report.leaderboard import leaderboard

    board = leaderboard(finished(sources).cells)
    board = board.assign(display_name=system_display_names(board))
    looks = marks(board["display_name"])  # of all, so that a system looks the same in every choice
    for column, values in wanted.items():
        board = _chosen(board, column, values)
    board = select_systems(board, systems)
    board = board.assign(system=board["display_name"])
    board = only_complete(board)
    if kind == "label-fractions":
        return label_fractions.label_fraction_curves(board, looks)
    if kind == "critical-difference":
        return _critical_difference(board.assign(task=task_display_names(board)))
    held_against = cost.parameters if kind == "parameters" else cost.seconds
    return cost.accuracy_against(board, held_against(board), looks)


def _critical_difference(board: "pd.DataFrame") -> "Figure":
    from lape_bench.report.figures.critical_difference import critical_difference_diagram
    from lape_bench.report.figures.style import marks
    from lape_bench.report.stats.average_ranks import rank_over_tasks

    kinds = board[["data", "protocol", "label_fraction"]].drop_duplicates()
    if len(kinds) > 1:
        known = [f"{data} {protocol} {part:.3g}" for data, protocol, part in kinds.to_numpy()]
        raise UserError(
            f"these boards are of several kinds ({', '.join(known)}), and ranks are within one",
            next_step="choose by --protocol, --label-fraction and --out",
        )
    found = rank_over_tasks(board)
    if found.left_out:
        print(f"left out: not every system has {', '.join(found.left_out)}", file=sys.stderr)
    ((_, protocol, fraction),) = kinds.to_numpy()
    title = f"{protocol}, {100 * fraction:.3g} % of labels: {', '.join(found.tasks)}"
    looks = marks(found.systems)
    return critical_difference_diagram(found.systems, found.average, looks, title)


def _chosen(
    cells: "pd.DataFrame", column: str, values: list[str] | list[float] | None
) -> "pd.DataFrame":
    """Keep the cells that have one of the values; each value must occur."""
    if not values:
        return cells
    there = set(cells[column])
    for value in values:
        if value not in there:
            what = column.replace("_", " ")
            raise unknown(f"{what} among these cells", str(value), map(str, there))
    return cells[cells[column].isin(values)]


def _of_record(kind: str, folder: Path, tsne: bool) -> "Figure":
    from lape_bench import metrics
    from lape_bench.records.predictions import read_predicted_classes
    from lape_bench.records.record import read_record
    from lape_bench.report.figures.confusion import confusion_figure
    from lape_bench.report.figures.embedding_map import embedding_map
    from lape_bench.report.figures.learning_curves import learning_curves
    from lape_bench.report.record_view import find_folder

    place = find_folder(folder)
    record = read_record(place)
    title = record.cell.title
    if record.status == "failed":
        raise UserError(f"{title} failed ({record.error}), so there is nothing to draw")
    if kind == "curves":
        metric = record.task.metric if record.task else "score"
        return learning_curves(record.curves, title, f"the record of {title}", metric)
    if kind == "embeddings":
        # Imports torch, which no other figure needs.
        from lape_bench.evaluation.embedded_clips import embedded_clips

        clips = embedded_clips(record)
        return embedding_map(
            clips.embeddings,
            clips.labels,
            clips.classes,
            f"{title}: {clips.about}",
            "tsne" if tsne else "pca",
        )
    answers = read_predicted_classes(place, record)
    classes = answers.classes
    confusion = metrics.confusion_matrix(answers.labels, answers.predicted, len(classes))
    return confusion_figure(confusion, classes, title)
