"""`bench power`: how many seeds, groups or tasks are needed to find a difference."""

from pathlib import Path
from typing import Annotated

import typer

from lape_bench.cli.options import Records, SharedData, SharedLabels, SharedProtocol, print_table
from lape_bench.cli.reports import load_finished
from lape_bench.core.errors import UserError

app = typer.Typer()

OF_PLAN = ("seeds", "groups", "clips", "accuracy", "seed_std", "group_std")
OF_RECORDS = ("task", "protocol", "labels", "data", "out")


@app.command(
    epilog="Example: bench power unfused delores-s --task asc-keywords --difference 2; before anything is run: "
    "bench power --plan --seeds 5 --groups 30 --clips 20"
)
def power(
    context: typer.Context,
    systems: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[A B]", help="Two systems with records, as named on the leaderboard."
        ),
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="The task, or task@variant; may be repeated.")
    ] = None,
    difference: Annotated[
        float, typer.Option(min=0.01, max=100, help="The difference to find, in points.")
    ] = 2.0,
    protocol: SharedProtocol = None,
    labels: SharedLabels = None,
    data: SharedData = None,
    out: Records = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Plan without records, from the options below.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=2, help="With --plan: number of seeds.")] = 3,
    groups: Annotated[
        int,
        typer.Option(min=2, help="With --plan: number of groups of test clips, such as speakers."),
    ] = 30,
    clips: Annotated[
        int, typer.Option(min=1, help="With --plan: number of test clips per group.")
    ] = 20,
    accuracy: Annotated[
        float, typer.Option(min=0, max=100, help="With --plan: accuracy of both systems, in %.")
    ] = 80.0,
    seed_std: Annotated[
        float,
        typer.Option(
            min=0, help="With --plan: standard deviation of the difference over seeds, in points."
        ),
    ] = 4.0,
    group_std: Annotated[
        float,
        typer.Option(
            min=0, help="With --plan: standard deviation of the difference over groups, in points."
        ),
    ] = 5.0,
) -> None:
    """Compute how many seeds, groups or tasks are needed to find a difference, and which difference the records can
    find.

    With two systems, the spread over seeds and groups is estimated from their records. With --plan, you give the spread
    that you expect; fine-tuning with a tenth of the labels has varied by 4 points over seeds here. The power is that of
    the test in `bench compare`.
    """
    if plan == bool(systems):
        raise UserError(
            "the spread comes from two systems with records, or from --plan",
            next_step="name two systems and a task, or give --plan",
        )
    _refuse_unused(context, plan)
    share = difference / 100
    # scipy and pandas are slow to import.
    from lape_bench.report.power_view import Study, power_view
    from lape_bench.report.stats.power import Experiment, planned_spread

    if plan:
        spread = planned_spread(seed_std / 100, group_std / 100, accuracy / 100, clips)
        study = Study("plan", "groups", spread, Experiment(seeds, groups), measured=False)
        print_table(power_view([study], share))
        return
    if len(systems or []) != 2 or not task:
        raise UserError(
            "'bench power' takes two systems and a task", next_step="name two systems and a --task"
        )
    from lape_bench.report.power_view import studies_of_records
    from lape_bench.report.system_pair import find_pair

    a, b = systems or []
    results = load_finished(out or [Path("results")])
    pairs = [find_pair(results, a, b, name, protocol, labels, data) for name in task]
    studies, task_std = studies_of_records(pairs)
    print_table(power_view(studies, share, task_std))


def _refuse_unused(context: typer.Context, plan: bool) -> None:
    """Raise a `UserError` for an option that the other way to get the spread would need."""
    for name in OF_RECORDS if plan else OF_PLAN:
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE":
            continue
        option = f"--{name.replace('_', '-')}"
        if plan:
            raise UserError(
                f"{option} chooses records, but --plan reads none", next_step=f"leave out {option}"
            )
        raise UserError(
            f"{option} goes with --plan",
            next_step=f"give --plan without systems, or leave out {option}",
        )
