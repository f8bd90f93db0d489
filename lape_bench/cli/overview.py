"""`bench overview`: systems by tasks."""

from typing import Annotated

import typer

from lape_bench.cli.options import Reference, Sources, Submissions, print_table
from lape_bench.cli.reports import load_finished, references
from lape_bench.core.errors import unknown

FORMATS = ("terminal", "markdown", "csv", "latex", "json")

app = typer.Typer()


@app.command(epilog="Example: bench overview --reference --protocol linear --labels 5-shot")
def overview(
    out: Sources = None,
    reference: Reference = False,
    submissions: Submissions = None,
    protocol: Annotated[
        str | None, typer.Option(help="finetune, linear, mlp or knn; default: all.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Label budget, such as 10% or 5-shot; default: all.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="real or synthetic; default: all.")] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="Only this task, or name@variant; may be repeated.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(help="accuracy, balanced_accuracy, macro_f1 or roc_auc; default: the task's."),
    ] = None,
    format: Annotated[
        str, typer.Option(help="terminal, markdown, csv, latex or json.")
    ] = "terminal",
) -> None:
    """Show systems by tasks: scores, their mean, the average rank with its interval, parameters and seconds of learning.

    There is one table for each protocol and label budget. A system that lacks a task has no mean and no rank.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    from dataclasses import replace

    from lape_bench.core.label_budget import LabelBudget
    from lape_bench.report import overview_view as views
    from lape_bench.report.latex import latex
    from lape_bench.report.overview import overviews
    from lape_bench.report.table import markdown
    from lape_bench.results.cells import by_metric
    from lape_bench.results.load import of_tasks

    results = load_finished(out, references(reference, submissions))
    if task:
        results = of_tasks(results, task)
    if metric:
        results = replace(results, cells=by_metric(results.cells, metric))
    budget = None if labels is None else str(LabelBudget.parse(labels))
    found = overviews(results, protocol=protocol, labels=budget, data=data)
    if format == "json":
        print(views.as_json(found), end="")
    elif format == "csv":
        print(views.as_csv(found), end="")
    elif format == "latex":
        print(latex([*map(views.as_table, found)]), end="")
    elif format == "markdown":
        print("\n".join(markdown(views.as_table(each)) for each in found), end="")
    else:
        for number, each in enumerate(found):
            if number:
                print()
            print_table(views.OverviewView(each))
