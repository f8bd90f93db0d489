"""Systems over several tasks: average ranks, and how far apart they have to be.

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
from lape_bench.report.stats.significance import LEVEL

FEWEST_SYSTEMS, FEWEST_TASKS = 3, 2  # Friedman's test knows no fewer systems
CHI_SQUARED_FROM = 4, 5  # systems, tasks: of fewer its distribution is a poor approximation
ORDERS = 99_999
LEAST_P = 1 / (ORDERS + 1)  # of orders that were drawn


class AverageRanks(NamedTuple):
    """Systems ranked over tasks.

    Attributes:
        ranks: mean over tasks, 1 the best, ties shared; shape (systems,).
        statistic: Friedman's chi-squared.
        p: of the hypothesis that all systems are alike: from chi-squared, or of fewer systems or tasks than
            `CHI_SQUARED_FROM` from the orders that systems may have on each task, all of them or `ORDERS` drawn.
        critical_difference: what two average ranks must differ by at the level of 5 %.
        cliques: systems within less than that, by position, best first; the largest such sets of at least two.
    """

    ranks: NDArray[np.float64]
    statistic: float
    p: float
    critical_difference: float
    cliques: tuple[tuple[int, ...], ...]


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
    by_task = stats.rankdata(-scores, axis=0)
    ranks = by_task.mean(axis=1)
    # Where every task ranks all systems alike, the statistic is 0 / 0.
    differ = (scores != scores[0]).any()
    statistic, p = stats.friedmanchisquare(*scores) if differ else (0.0, 1.0)
    if differ and (systems < CHI_SQUARED_FROM[0] or tasks < CHI_SQUARED_FROM[1]):
        p = _permuted_p(by_task)
    difference = critical_difference(systems, tasks)
    return AverageRanks(ranks, float(statistic), float(p), difference, _cliques(ranks, difference))


def _permuted_p(ranks: NDArray[np.float64]) -> float:
    """Return how often systems that are alike have ranks as far apart as these, shape (systems, tasks)."""
    systems, tasks = ranks.shape
    exact = math.factorial(systems) ** (tasks - 1) <= ORDERS
    generator = np.random.default_rng(0)  # so that the same scores give the same p
    # What counts is how the orders on the other tasks lie to that on the first, which can stay.
    sums = ranks[None, :, 0]  # (orders, systems)
    for task in ranks.T[1:]:
        if exact:
            sums = (sums[:, None] + np.array([*permutations(task)])).reshape(-1, systems)
        else:
            sums = sums + generator.permuted(np.tile(task, (ORDERS, 1)), axis=1)
    # Friedman's statistic of the same ranks in another order grows with the sum of squares alone.
    apart = (sums**2).sum(axis=1) >= (ranks.sum(axis=1) ** 2).sum()
    return float(apart.mean() if exact else (apart.sum() + 1) / (ORDERS + 1))


def critical_difference(systems: int, tasks: int) -> float:
    """Nemenyi's critical difference of two average ranks, at the level of 5 %."""
    q = stats.studentized_range.ppf(1 - LEVEL, systems, math.inf) / math.sqrt(2)
    return float(q * math.sqrt(systems * (systems + 1) / (6 * tasks)))


def _cliques(ranks: NDArray[np.float64], difference: float) -> tuple[tuple[int, ...], ...]:
    order = np.argsort(ranks, kind="stable")
    # One clique begins at each system and ends before the first that is too far from it.
    ends = np.searchsorted(ranks[order], ranks[order] + difference, side="left")
    before = np.concatenate([[0], ends[:-1]])
    return tuple(
        tuple(int(each) for each in order[start:end])
        for start, end in enumerate(ends)
        if end - start > 1 and end > before[start]  # else it lies within the clique before
    )


class TaskRanking(NamedTuple):
    """Average ranks of the systems on boards that share a protocol and a label fraction.

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
        board: rows of `leaderboard`, one a task and system: of one protocol, label fraction and kind of data,
            and of one version of each system and preparation of each task.

    Raises:
        UserError: there are fewer than three systems, or fewer than two tasks that all have.
    """
    scores = _scores(board)
    whole = scores.notna().all(axis=0)
    kept = scores.loc[:, whole]
    systems, tasks = kept.shape
    if systems < FEWEST_SYSTEMS or tasks < FEWEST_TASKS:
        some = with_common_tasks(board)
        raise UserError(
            f"1 system has {count(tasks, 'task')}"
            if systems == 1
            else f"{systems} systems have {count(tasks, 'task')} in common",
            allowed=f"average ranks need {FEWEST_SYSTEMS} systems and {FEWEST_TASKS} tasks",
            next_step=f"choose by --system those with the same tasks, such as {join_list(some)}"
            if some
            else "run more systems on the same tasks",
        )
    average = average_ranks(kept.to_numpy())
    return TaskRanking(
        tuple(kept.index), tuple(kept.columns), tuple(scores.columns[~whole]), average
    )


def with_common_tasks(board: pd.DataFrame) -> tuple[str, ...]:
    """Choose the systems of a board that can be ranked over tasks.

    Args:
        board: as `rank_over_tasks` takes it.

    Returns:
        All where they have enough tasks in common; else those of the choice with the most figures, systems times
        tasks, and of equal choices the most tasks. None where no choice has enough of both.
    """
    has = _scores(board).notna()
    done = {
        str(name): frozenset(has.columns[row])
        for name, row in zip(has.index, has.to_numpy(), strict=True)
    }
    shared = frozenset.intersection(*done.values())
    if len(done) >= FEWEST_SYSTEMS and len(shared) >= FEWEST_TASKS:
        return tuple(done)
    choices: set[frozenset[str]] = set()  # tasks that some systems have in common
    for tasks in set(done.values()):
        choices |= {tasks} | {tasks & others for others in choices}
        # They could be as many as there are sets of systems; most of those share next to nothing.
        choices = {each for each in choices if len(each) >= FEWEST_TASKS}
    members = {tasks: [s for s, its in done.items() if tasks <= its] for tasks in choices}
    enough = {tasks: each for tasks, each in members.items() if len(each) >= FEWEST_SYSTEMS}

    def merit(tasks: frozenset[str]) -> tuple[int, int, list[str]]:
        return len(enough[tasks]) * len(tasks), len(tasks), sorted(tasks)

    return tuple(enough[max(enough, key=merit)]) if enough else ()


def _scores(board: pd.DataFrame) -> pd.DataFrame:
    """Lay scores out by system and task; NaN where a system lacks the task or folds of it."""
    board = board.assign(score=board["score"].where(board["complete"]))
    return board.pivot(index="system", columns="task", values="score")


def as_table(found: TaskRanking) -> Table:
    """Draw average ranks for the terminal, best first; systems that share a letter are in one clique."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("system", overflow="fold")
    table.add_column("average rank", justify="right", no_wrap=True)
    table.add_column("alike")
    average = found.average
    for number in np.argsort(average.ranks, kind="stable"):
        letters = [
            chr(ord("a") + n) for n, clique in enumerate(average.cliques) if number in clique
        ]
        table.add_row(found.systems[number], f"{average.ranks[number]:.2f}", "".join(letters))
    return table


def as_text(average: AverageRanks) -> str:
    """Say of average ranks what the tests say, in a line."""
    told = f"Friedman p: {p_value(average.p, LEAST_P)}"
    if average.p > LEVEL:
        told += f", above {LEVEL}, so no system is told apart, whatever the letters"
    return f"{told}; critical difference {average.critical_difference:.2f}"
