"""What it takes to find a difference, as tables for the terminal."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Group
from rich.table import Table

from lape_bench.core.errors import UserError
from lape_bench.report.compare import paired_scores
from lape_bench.report.display_names import group_noun
from lape_bench.report.formatting import count, percent, points
from lape_bench.report.stats.power import (
    Experiment,
    Spread,
    detectable,
    effective_groups,
    groups_needed,
    observed_spread,
    power,
    seeds_needed,
    tasks_needed,
)
from lape_bench.report.system_pair import SystemPair

POWERS = (0.8, 0.9)
FEW = 10  # seeds or groups, below which their spread is known roughly only


class Study(NamedTuple):
    """Two systems on a task, run or planned.

    Attributes:
        name: of the task, or of the plan.
        groups_are: such as "speakers".
        spread: of their difference.
        experiment: seeds and groups; groups of unequal size as the fewer equal ones that they are worth.
        measured: whether the spread was measured.
    """

    name: str
    groups_are: str
    spread: Spread
    experiment: Experiment
    measured: bool


def studies_of_records(pairs: Sequence[SystemPair]) -> tuple[list[Study], float | None]:
    """Take the spread of two systems from their records.

    Args:
        pairs: the same two systems on each task.

    Returns:
        A study for each task, and the standard deviation of the differences on these tasks; None for one task.

    Raises:
        UserError: one seed, or one group, does not show the spread.
    """
    studies, differences = [], []
    for pair in pairs:
        task = str(pair.cells[0]["task"].iloc[0])
        grouped = paired_scores(pair)
        mean = grouped.difference(0, 1)
        if not mean.testable:
            what = "group" if mean.seeds > 1 else "seed"
            raise UserError(
                f"{pair.names[0]} and {pair.names[1]} have one {what} on {task}, which does not show how {what}s differ",
                next_step="run more, or give --plan and what you expect",
            )
        noun = group_noun(task) if grouped.clips.names else "clips"
        experiment = Experiment(mean.seeds, effective_groups(mean))
        studies.append(Study(task, noun, observed_spread(mean), experiment, measured=True))
        differences.append(float(mean.value))
    return studies, statistics.stdev(differences) if len(differences) > 1 else None


def power_view(studies: Sequence[Study], difference: float, task_std: float | None = None) -> Group:
    """Say how many seeds, groups or tasks a difference needs, and what the studies can find.

    Args:
        studies: at least one.
        difference: to be found, in [0, 1].
        task_std: standard deviation of the differences on these tasks; None for one task.
    """
    parts: list[Table | str] = []
    for study in studies:
        parts += [*_study(study, difference), ""]
    if task_std:  # not 0, with which any difference is found
        tasks = [_number(tasks_needed(task_std, difference, wanted), "tasks") for wanted in POWERS]
        parts += [
            f"over tasks like these, whose differences have a standard deviation of {percent(task_std, 1)} points: "
            f"{points(difference)} points need {tasks[0]} for 80 % power, {tasks[1]} for 90 %",
            "",
        ]
    parts.append(
        "Two-sided tests at 5 %, one comparison. Several that are corrected together need more."
    )
    return Group(*parts)


def _study(study: Study, difference: float) -> list[Table | str]:
    seeds, groups = study.experiment
    noun = study.groups_are
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in (
        "power",
        f"seeds, with {groups:,} {noun}",
        f"{noun}, with {count(seeds, 'seed')}",
    ):
        table.add_column(heading, justify="right")
    table.add_column("this experiment finds", justify="right")
    for wanted in POWERS:
        table.add_row(
            f"{100 * wanted:.0f} %",
            _number(seeds_needed(study.spread, groups, difference, wanted)),
            _number(groups_needed(study.spread, seeds, difference, wanted)),
            f"{percent(detectable(study.spread, study.experiment, wanted), 1)} points",
        )
    chance = power(study.spread, study.experiment, difference)
    has = "has" if study.measured else "would have"
    lines: list[Table | str] = [
        f"{study.name}: what a difference of {points(difference)} points needs",
        table,
        f"{count(seeds, 'seed')} and {groups:,} {noun}: the test {has} {100 * chance:.0f} % power for {points(difference)} points",
        f"the difference varies by {percent(study.spread.seeds, 1)} points from seed to seed, by {percent(study.spread.groups, 1)} from "
        f"{noun[:-1]} to {noun[:-1]}, and by {percent(study.spread.rest, 1)} for one seed on one {noun[:-1]} besides (standard deviations)",
    ]
    if study.measured and min(study.experiment) < FEW:
        lines.append("that spread was measured on few seeds or groups, so these numbers are rough")
    return lines


def _number(number: int | None, noun: str = "") -> str:
    if number is None:
        return "not by these alone"
    return f"{number:,} {noun}".strip()
