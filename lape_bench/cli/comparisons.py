"""`bench compare` and `bench ranks`: compare systems with intervals and tests."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lape_bench.cli.options import (
    ChosenSystems,
    Records,
    Reference,
    SharedData,
    SharedLabels,
    SharedProtocol,
    Sources,
    Submissions,
    print_table,
)
from lape_bench.cli.reports import load_finished, only_complete, references
from lape_bench.core.errors import UserError, unknown
from lape_bench.core.label_budget import LabelBudget

if TYPE_CHECKING:  # pandas is slow to import
    from lape_bench.report.compare import Comparison, ComparisonOverTasks

app = typer.Typer()


@app.command(epilog="Example: bench compare unfused delores-s --task asc-keywords --labels 10%")
def compare(
    systems: Annotated[
        list[str],
        typer.Argument(
            metavar="A B ...",
            help="Systems, as named on the leaderboard: A is compared with each of the others.",
        ),
    ],
    task: Annotated[
        list[str],
        typer.Option(help="The task, or task@variant; may be repeated, for the mean over tasks."),
    ],
    protocol: SharedProtocol = None,
    other_protocol: Annotated[
        str | None,
        typer.Option(
            help="The protocol of the other systems, if it is not that of A: such as linear, to compare a fine-tuned A with probes."
        ),
    ] = None,
    labels: SharedLabels = None,
    data: SharedData = None,
    margin: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            help="Also test whether A is worse by less than this many points, and whether the systems differ by less.",
        ),
    ] = None,
    out: Records = None,
    reference: Reference = False,
    submissions: Submissions = None,
    clips: Annotated[
        int,
        typer.Option(
            min=0, help="Number of clips to list that only one system classifies correctly."
        ),
    ] = 10,
    format: Annotated[str, typer.Option(help="terminal or json.")] = "terminal",
) -> None:
    """Compare systems: difference, interval, p value, and the groups, classes and clips on which they differ.

    The score is the task's metric, on the seeds, folds and test clips that both systems have. Intervals and tests are
    over groups of clips (speakers, recordings) and over seeds. With one seed there is no test. The settings in a name
    may be left out if only one variant of the system was run. Several comparisons are corrected by Holm's method.
    """
    if format not in (formats := ("terminal", "json")):
        raise unknown("format", format, formats)
    if len(systems) < 2:
        raise UserError("one system is nothing to compare", next_step="name another one")
    # pandas is slow to import, so the options are checked first.
    from lape_bench.report import compare as comparing
    from lape_bench.report.system_pair import find_pair

    results = load_finished(out, references(reference, submissions))
    first, *others = systems
    share = None if margin is None else margin / 100
    pairs = [
        [
            find_pair(results, first, other, name, protocol, labels, data, other_protocol)
            for name in task
        ]
        for other in others
    ]
    comparisons = [comparing.compare(pair, clips, share) for of_two in pairs for pair in of_two]
    over_tasks = []
    if len(task) > 1:
        over_tasks = [comparing.compare_over_tasks(of_two, share) for of_two in pairs]
    if len(comparisons) > 1:
        comparisons = comparing.corrected(comparisons)
        over_tasks = comparing.corrected(over_tasks)
    if format == "json":
        _print_as_json(comparisons, over_tasks)
    else:
        _print_in_words(comparisons, over_tasks)
        _name_references(results.cells, [side.system for c in comparisons for side in (c.a, c.b)])


def _print_in_words(
    comparisons: Sequence["Comparison"], over_tasks: Sequence["ComparisonOverTasks"]
) -> None:
    """Print one comparison with all its tables, or several in a line each."""
    from lape_bench.report.comparison_view import comparison_view, comparisons_view

    if len(comparisons) == 1:
        print_table(comparison_view(comparisons[0]))
    else:
        print_table(comparisons_view(comparisons, over_tasks))


def _print_as_json(
    comparisons: Sequence["Comparison"], over_tasks: Sequence["ComparisonOverTasks"]
) -> None:
    """Print one comparison as an object, or several with the means over tasks."""
    from lape_bench.report.table import as_json

    if len(comparisons) == 1:
        print(comparisons[0].model_dump_json(indent=2))
        return
    parts = {
        "comparisons": [each.model_dump() for each in comparisons],
        "over_tasks": [each.model_dump() for each in over_tasks],
    }
    print(as_json(parts), end="")


@app.command(epilog="Example: bench ranks --system unfused --system delores-s --system supervised")
def ranks(
    system: ChosenSystems = None,
    out: Sources = None,
    reference: Reference = False,
    submissions: Submissions = None,
) -> None:
    """Rank systems over tasks, and average their scores over label budgets.

    Ranks are averaged over the tasks that every system has. If these are too few, the systems with the most tasks in
    common are ranked. Tests are over tasks, with one score per system and task. Systems that are closer than Nemenyi's
    critical difference share a letter. With fewer than 4 systems or 5 tasks, Friedman's p value is computed by
    permutation. The area under the curve of scores over the logarithm of the label budget is shown as a mean score.
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

    board = boards.leaderboard(load_finished(out, references(reference, submissions)).cells)
    board = select_systems(board.assign(display_name=system_display_names(board)), system or [])
    board = board.assign(task=task_display_names(board), system=board["display_name"])
    board = only_complete(board)
    for (_, protocol, labels), part in board.groupby(["data", "protocol", "labels"]):
        where = f"{protocol}, {LabelBudget.parse(labels).description}"
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
    _name_references(board, [*board["system"].unique()])
    areas = label_curve.curve_areas(board)
    if not areas.table.empty:
        print_table(label_curve.as_table(areas))
    for lacking in areas.left_out:
        print(f"left out: {lacking}", file=sys.stderr)


def _name_references(rows: Any, systems: list[str]) -> None:
    """Print which of some systems have results that others ran."""
    from lape_bench.report.formatting import join_list

    of_others, submitted = rows["reference"] == 1, rows["contamination"] != ""
    for kind, known in (
        (
            "reference results, which came with lape_bench",
            {*rows["system"][of_others & ~submitted]},
        ),
        ("submissions, which others ran", {*rows["system"][of_others & submitted]}),
    ):
        if names := [name for name in dict.fromkeys(systems) if name in known]:
            print(f"{kind}: {join_list(names)}")
