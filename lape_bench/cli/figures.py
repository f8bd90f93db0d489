"""`bench figure`: draw boards and records as PNG, SVG or PDF."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lape_bench.cli.options import ChosenSystems, Sources
from lape_bench.cli.reports import load_finished, only_complete
from lape_bench.core.errors import UserError, unknown
from lape_bench.core.label_budget import LabelBudget

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

app = typer.Typer()

OF_BOARDS = ("parameters", "seconds", "labels", "critical-difference")
OF_RECORDS = ("confusion", "curves", "embeddings")


@app.command(epilog="Example: bench figure parameters --task asc-keywords --file parameters.svg")
def figure(
    kind: Annotated[
        str,
        typer.Argument(
            help=f"For boards: {', '.join(OF_BOARDS)}. For a record: {', '.join(OF_RECORDS)}."
        ),
    ],
    file: Annotated[Path, typer.Option(help="File to write: .png, .svg or .pdf.")],
    record: Annotated[
        Path | None, typer.Argument(help="A cell's folder, for a figure of a record.")
    ] = None,
    out: Sources = None,
    system: ChosenSystems = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be repeated.")] = None,
    protocol: Annotated[
        list[str] | None, typer.Option(help="Only this protocol; may be repeated.")
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(help="Only this label budget, such as 10% or 5-shot; may be repeated."),
    ] = None,
    tsne: Annotated[
        bool, typer.Option("--tsne", help="Show embeddings by t-SNE instead of PCA.")
    ] = False,
) -> None:
    """Draw a figure of boards (scores against cost or labels, or ranks), or of one record (confusions, curves or
    embeddings).
    """
    # slow to import, and only this command draws
    from lape_bench.report.figures.style import check_suffix, write_figure

    if kind not in OF_BOARDS + OF_RECORDS:
        raise unknown("kind of figure", kind, OF_BOARDS + OF_RECORDS)
    check_suffix(file)
    if tsne and kind != "embeddings":
        raise UserError("--tsne goes with 'bench figure embeddings RECORD' alone")
    chosen = {
        "task": task,
        "protocol": protocol,
        "labels": labels and [str(LabelBudget.parse(text)) for text in labels],
    }
    if kind in OF_BOARDS:
        if record is not None:
            raise UserError(
                f"'bench figure {kind}' shows boards, and takes no record",
                next_step=f"give the folder of records by --out {record}",
            )
        sources, systems = out or [Path("results")], system or []
        write_figure(lambda: _board_figure(kind, sources, systems, chosen), file)
        return
    next_step = f"name a cell's folder: bench figure {kind} FOLDER --file {file}"
    if out or system or any(chosen.values()):
        raise UserError(
            f"'bench figure {kind}' shows one record; --out, --system, --task, --protocol and "
            "--labels choose from boards",
            next_step=next_step,
        )
    if record is None:
        raise UserError(f"'bench figure {kind}' needs a record", next_step=next_step)
    folder = record
    write_figure(lambda: _record_figure(kind, folder, tsne), file)


def _board_figure(
    kind: str,
    sources: list[Path],
    systems: list[str],
    chosen: dict[str, list[str] | None],
) -> "Figure":
    from lape_bench.report.display_names import (
        select_systems,
        system_display_names,
        task_display_names,
    )
    from lape_bench.report.figures import cost, label_curves
    from lape_bench.report.figures.style import marks
    from lape_bench.report.leaderboard import leaderboard

    results = load_finished(sources)
    board = leaderboard(results.cells, results.predictions)
    board = board.assign(display_name=system_display_names(board))
    # Markers are assigned over all systems, so that a system looks the same whatever is selected.
    system_marks = marks(board["display_name"])
    for column, values in chosen.items():
        board = _select_rows(board, column, values)
    board = select_systems(board, systems)
    board = board.assign(system=board["display_name"])
    board = only_complete(board)
    if kind == "labels":
        return label_curves.label_curves(board, system_marks)
    if kind == "critical-difference":
        return _critical_difference(board.assign(task=task_display_names(board)))
    cost_of = cost.parameters if kind == "parameters" else cost.seconds
    return cost.accuracy_against(board, cost_of(board), system_marks)


def _critical_difference(board: "pd.DataFrame") -> "Figure":
    from lape_bench.report.figures.critical_difference import critical_difference_diagram
    from lape_bench.report.figures.style import marks
    from lape_bench.report.stats.average_ranks import rank_over_tasks

    kinds = board[["data", "protocol", "labels"]].drop_duplicates()
    if len(kinds) > 1:
        known = [" ".join(kind) for kind in kinds.to_numpy()]
        raise UserError(
            f"these boards are of several kinds ({', '.join(known)}), but ranks are within one kind",
            next_step="choose by --protocol, --labels and --out",
        )
    ranking = rank_over_tasks(board)
    if ranking.left_out:
        print(f"left out: not every system has {', '.join(ranking.left_out)}", file=sys.stderr)
    ((_, protocol, budget),) = kinds.to_numpy()
    title = f"{protocol}, {LabelBudget.parse(budget).description}: {', '.join(ranking.tasks)}"
    return critical_difference_diagram(
        ranking.systems, ranking.average, marks(ranking.systems), title
    )


def _select_rows(
    board: "pd.DataFrame", column: str, values: list[str] | list[float] | None
) -> "pd.DataFrame":
    """Keep the rows with one of the values, and raise a `UserError` if a value does not occur."""
    if not values:
        return board
    known = set(board[column])
    for value in values:
        if value not in known:
            noun = column.replace("_", " ")
            raise unknown(f"{noun} among these cells", str(value), map(str, known))
    return board[board[column].isin(values)]


def _record_figure(kind: str, folder: Path, tsne: bool) -> "Figure":
    from lape_bench import metrics
    from lape_bench.records.predictions import read_predicted_classes
    from lape_bench.records.record import read_record
    from lape_bench.report.figures.confusion import confusion_figure
    from lape_bench.report.figures.embedding_map import embedding_map
    from lape_bench.report.figures.learning_curves import learning_curves
    from lape_bench.report.record_view import find_folder

    folder = find_folder(folder)
    record = read_record(folder)
    title = record.cell.title
    if record.status == "failed":
        raise UserError(f"{title} failed ({record.error}), so there is nothing to draw")
    if kind == "curves":
        metric = record.task.metric if record.task else "score"
        return learning_curves(record.curves, title, f"the record of {title}", metric)
    if kind == "embeddings":
        # imports torch, which no other figure needs
        from lape_bench.evaluation.embedded_clips import embedded_clips

        clips = embedded_clips(record)
        return embedding_map(
            clips.embeddings,
            clips.labels,
            clips.classes,
            f"{title}: {clips.about}",
            "tsne" if tsne else "pca",
        )
    predictions = read_predicted_classes(folder, record)
    classes = predictions.classes
    confusion = metrics.confusion_matrix(predictions.labels, predictions.predicted, len(classes))
    return confusion_figure(confusion, classes, title)
