"""`bench compare` and `bench ranks`: what the figures of a board allow to say of its systems."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lape_bench.cli.options import ChosenSystems, Sources, print_table
from lape_bench.cli.reports import load_finished, only_complete
from lape_bench.core.errors import UserError, unknown

app = typer.Typer()


@app.command(
    epilog="Example: bench compare unfused delores-s --task asc-keywords --label-fraction 0.1"
)
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A system, as the leaderboard names it.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The system to compare it with.")],
    task: Annotated[str, typer.Option(help="The task, or task@variant.")],
    protocol: Annotated[
        str | None,
        typer.Option(help="finetune, linear, mlp or knn; default: the one both were run by."),
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
    from lape_bench.report.comparison_view import comparison_view
    from lape_bench.report.system_pair import find_pair

    results = load_finished(out or [Path("results")])
    pair = find_pair(results, a, b, task, protocol, label_fraction, data)
    comparison = comparing.compare(pair, clips)
    if format == "json":
        print(comparison.model_dump_json(indent=2))
    else:
        print_table(comparison_view(comparison))


@app.command(epilog="Example: bench ranks --system unfused --system delores-s --system supervised")
def ranks(
    system: ChosenSystems = None,
    out: Sources = None,
) -> None:
    """Rank systems over tasks, and sum up their label fractions.

    Average ranks count tasks that every system has; where there are too few, the systems with the most in common
    are ranked. Those whose difference is below Nemenyi's critical one share a letter. Friedman's p is by
    permutation for fewer than 4 systems or 5 tasks. The area under the curve of scores over the logarithm of the
    label fraction is a mean score.
    """
    # scipy.stats and pandas are slow to import.
    from lape_bench.report import leaderboard as boards
    from lape_bench.report.display_names import (
        select_systems,
        system_display_names,
        task_display_names,
    )
    from lape_bench.report.formatting import join_list
    from lape_bench.report.stats import average_ranks, label_curve

    board = boards.leaderboard(load_finished(out or [Path("results")]).cells)
    board = select_systems(board.assign(display_name=system_display_names(board)), system or [])
    board = board.assign(task=task_display_names(board), system=board["display_name"])
    board = only_complete(board)
    for (_, protocol, fraction), part in board.groupby(["data", "protocol", "label_fraction"]):
        where = f"{protocol}, {fraction:.3g} of the labels"
        some = average_ranks.with_common_tasks(part)
        if some and (others := sorted({*part["system"]} - {*some})):
            why = "too few tasks in common with the others"
            print(f"left out: {where}, for {why}: {join_list(others)}", file=sys.stderr)
            part = part[part["system"].isin(some)]
        try:
            ranking = average_ranks.rank_over_tasks(part)
        except UserError as error:
            print(f"left out: {where}: {error}", file=sys.stderr)
            continue
        print(f"{where}: {', '.join(ranking.tasks)}")
        print_table(average_ranks.as_table(ranking))
        print(f"{average_ranks.as_text(ranking.average)}\n")
        if ranking.left_out:
            tasks = ", ".join(ranking.left_out)
            print(f"left out: {where}: not every system has {tasks}", file=sys.stderr)
    areas = label_curve.curve_areas(board)
    if not areas.table.empty:
        print_table(label_curve.as_table(areas))
    for lacking in areas.left_out:
        print(f"left out: {lacking}", file=sys.stderr)
