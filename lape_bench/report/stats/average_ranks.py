"""Systems over several tasks: average ranks, and the critical difference between them.

After Demsar (2006), "Statistical Comparisons of Classifiers over Multiple Data Sets", Journal of Machine Learning
Research 7: Friedman's test says whether any system differs, Nemenyi's critical difference which ones.
"""

import math
from itertools import permutations
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table
from scipy import stats

from lape_bench.core.errors import UserError
from lape_bench.report.formatting import count, join_list, p_value
from lape_bench.report.stats.crossed import LEVEL, with_ties

FEWEST_SYSTEMS, FEWEST_TASKS = 3, 2  # Friedman's test needs 3 systems
CHI_SQUARED_FROM = 4, 5  # systems, tasks; for fewer the approximation is poor
ORDERS = 99_999


class AverageRanks(NamedTuple):
    """Systems ranked over tasks.

    Attributes:
        ranks: mean over tasks, 1 the best, ties shared; shape (systems,).
        statistic: Friedman's chi-squared.
        p: of the hypothesis that all systems are equal: from chi-squared, or, for fewer systems or tasks than
            `CHI_SQUARED_FROM`, from permuted ranks (all permutations, or `ORDERS` of them).
        critical_difference: least significant difference of two average ranks, at the level of 5 %.
        cliques: positions of systems within less than that, best first; the largest such sets of at least two.
        least_p: the p of systems that have the same order on every task: no result could be more significant.
    """

    ranks: NDArray[np.float64]
    statistic: float
    p: float
    critical_difference: float
    cliques: tuple[tuple[int, ...], ...]
    least_p: float


def average_ranks(scores: NDArray[np.float64]) -> AverageRanks:
    """Rank systems on each task and average.

    Args:
        scores: more is better, shape (systems, tasks).

    Raises:
        ValueError: there are fewer than three systems, which Friedman's test needs, or fewer than two tasks.
    """
    systems, tasks = scores.shape
    if systems < FEWEST_SYSTEMS or tasks < FEWEST_TASKS:
        raise ValueError(f"scores have shape {scores.shape}, need at least 3 systems on 2 tasks")
    scores = with_ties(scores)
    by_task = stats.rankdata(-scores, axis=0)
    ranks = by_task.mean(axis=1)
    # If all systems have the same scores, the statistic is 0 / 0.
    differ = (scores != scores[0]).any()
    statistic, p = stats.friedmanchisquare(*scores) if differ else (0.0, 1.0)
    if differ and (systems < CHI_SQUARED_FROM[0] or tasks < CHI_SQUARED_FROM[1]):
        p = _permuted_p(by_task)
    difference = critical_difference(systems, tasks)
    least_p = math.factorial(systems) ** (1 - tasks)
    return AverageRanks(
        ranks, float(statistic), float(p), difference, _cliques(ranks, difference), least_p
    )


def _permuted_p(ranks: NDArray[np.float64]) -> float:
    """Return how often equal systems have ranks, shape (systems, tasks), that differ as much as these."""
    systems, tasks = ranks.shape
    exact = math.factorial(systems) ** (tasks - 1) <= ORDERS
    generator = np.random.default_rng(0)  # so that the same scores give the same p
    # Only the orders relative to the first task matter, so that one stays.
    sums = ranks[None, :, 0]  # (orders, systems)
    for task in ranks.T[1:]:
        if exact:
            sums = (sums[:, None] + np.array([*permutations(task)])).reshape(-1, systems)
        else:
            sums = sums + generator.permuted(np.tile(task, (ORDERS, 1)), axis=1)
    # Friedman's statistic of the same ranks in another order grows with the sum of squares alone.
    extreme = (sums**2).sum(axis=1) >= (ranks.sum(axis=1) ** 2).sum()
    return float(extreme.mean() if exact else (extreme.sum() + 1) / (ORDERS + 1))


def critical_difference(systems: int, tasks: int) -> float:
    """Nemenyi's critical difference of two average ranks, at the level of 5 %."""
    q = stats.studentized_range.ppf(1 - LEVEL, systems, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(systems * (systems + 1) / (6 * tasks)))


def _cliques(ranks: NDArray[np.float64], difference: float) -> tuple[tuple[int, ...], ...]:
    order = np.argsort(ranks, kind="stable")
    # A clique begins at each system and ends before the first system that is too far away.
    ends = np.searchsorted(ranks[order], ranks[order] + difference, side="left")
    previous_ends = np.concatenate([[0], ends[:-1]])
    return tuple(
        tuple(order[start:end].tolist())
        for start, end in enumerate(ends)
        if end - start > 1 and end > previous_ends[start]  # else the previous clique contains it
    )


class TaskRanking(NamedTuple):
    """Average ranks of the systems on boards that share a protocol and a label budget.

    Attributes:
        systems: names, in the order of `average.ranks`.
        tasks: those that every system has, with every fold.
        left_out: those that some system lacks, or has not with every fold.
        average: the ranks.
    """

    systems: tuple[str, ...]
    tasks: tuple[str, ...]
    left_out: tuple[str, ...]
    average: AverageRanks


def rank_over_tasks(board: pd.DataFrame) -> TaskRanking:
    """Rank systems over the tasks of a leaderboard that every one of them has.

    Args:
        board: rows of `leaderboard`, one per task and system: of one protocol, label budget and kind of data,
            and of one version of each system and preparation of each task.

    Raises:
        UserError: there are fewer than three systems, or fewer than two tasks that all have.
    """
    scores = _scores(board)
    complete = scores.notna().all(axis=0)
    common = scores.loc[:, complete]
    systems, tasks = common.shape
    if systems < FEWEST_SYSTEMS or tasks < FEWEST_TASKS:
        rankable = with_common_tasks(board)
        raise UserError(
            f"1 system has {count(tasks, 'task')}"
            if systems == 1
            else f"{systems} systems have {count(tasks, 'task')} in common",
            allowed=f"average ranks need {FEWEST_SYSTEMS} systems and {FEWEST_TASKS} tasks",
            next_step=f"choose by --system those with the same tasks, such as {join_list(rankable)}"
            if rankable
            else "run more systems on the same tasks",
        )
    average = average_ranks(common.to_numpy())
    left_out = tuple(scores.columns[~complete])
    return TaskRanking(tuple(common.index), tuple(common.columns), left_out, average)


def with_common_tasks(board: pd.DataFrame) -> tuple[str, ...]:
    """Choose the systems of a board that can be ranked over tasks.

    Args:
        board: as `rank_over_tasks` takes it.

    Returns:
        All systems if they have enough tasks in common. Otherwise the choice with the most scores (systems times
        tasks), and of equal choices the one with the most tasks. Empty if no choice has enough of both.
    """
    has_score = _scores(board).notna()
    tasks_of = {
        str(name): frozenset(has_score.columns[row])
        for name, row in zip(has_score.index, has_score.to_numpy(), strict=True)
    }
    shared = frozenset.intersection(*tasks_of.values())
    if len(tasks_of) >= FEWEST_SYSTEMS and len(shared) >= FEWEST_TASKS:
        return tuple(tasks_of)
    choices: set[frozenset[str]] = set()  # tasks that some systems have in common
    for tasks in set(tasks_of.values()):
        choices |= {tasks} | {tasks & others for others in choices}
        # There could be as many choices as sets of systems; most sets share hardly any task.
        choices = {choice for choice in choices if len(choice) >= FEWEST_TASKS}
    systems_of = {
        tasks: [system for system, own in tasks_of.items() if tasks <= own] for tasks in choices
    }
    enough = {
        tasks: systems for tasks, systems in systems_of.items() if len(systems) >= FEWEST_SYSTEMS
    }

    def size(tasks: frozenset[str]) -> tuple[int, int, list[str]]:
        return len(enough[tasks]) * len(tasks), len(tasks), sorted(tasks)

    return tuple(enough[max(enough, key=size)]) if enough else ()


def _scores(board: pd.DataFrame) -> pd.DataFrame:
    """Lay scores out by system and task; NaN where a system lacks the task or folds of it."""
    board = board.assign(score=board["score"].where(board["complete"]))
    return board.pivot(index="system", columns="task", values="score")


def as_table(ranking: TaskRanking) -> Table:
    """Return average ranks as a table for the terminal, best first; systems of one clique share a letter."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("system", overflow="fold")
    table.add_column("average rank", justify="right", no_wrap=True)
    table.add_column("alike")
    average = ranking.average
    for number in np.argsort(average.ranks, kind="stable"):
        letters = [
            chr(ord("a") + n) for n, clique in enumerate(average.cliques) if number in clique
        ]
        if average.least_p > LEVEL:
            letters = []  # no test was made that could have told them apart
        table.add_row(ranking.systems[number], f"{average.ranks[number]:.2f}", "".join(letters))
    return table


def as_text(average: AverageRanks) -> str:
    """Summarize the tests in one line: both are over tasks, each with one score of a system."""
    if average.least_p > LEVEL:
        return (
            f"no ranks of {len(average.ranks)} systems on so few tasks could be significant (Friedman p is at least "
            f"{p_value(average.least_p)})"
        )
    summary = f"over tasks: Friedman p {p_value(average.p)}"
    if average.p > LEVEL:
        summary += (
            f", above {LEVEL}, so no difference is significant, whatever the critical difference"
        )
    return f"{summary}; critical difference {average.critical_difference:.2f}"
