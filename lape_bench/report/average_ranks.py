"""Systems over several tasks: average ranks, and how far apart they have to be.

After Demsar (2006), "Statistical Comparisons of Classifiers over Multiple Data Sets", Journal of Machine Learning
Research 7: Friedman's test says whether any system differs, Nemenyi's critical difference which ones.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table
from scipy import stats

from lape_bench.errors import UserError
from lape_bench.report.significance import LEVEL

FEWEST_SYSTEMS, FEWEST_TASKS = 3, 2  # Friedman's test knows no fewer systems


class AverageRanks(NamedTuple):
    """Systems ranked over tasks.

    Attributes:
        ranks: mean over tasks, 1 the best, ties shared; shape (systems,).
        statistic: Friedman's chi-squared.
        p: of the hypothesis that all systems are alike.
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
    ranks = stats.rankdata(-scores, axis=0).mean(axis=1)
    # Where every task ranks all systems alike, the statistic is 0 / 0.
    friedman = stats.friedmanchisquare(*scores) if (scores != scores[0]).any() else (0.0, 1.0)
    difference = critical_difference(systems, tasks)
    return AverageRanks(
        ranks, float(friedman[0]), float(friedman[1]), difference, _cliques(ranks, difference)
    )


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


class OverTasks(NamedTuple):
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


def over_tasks(board: pd.DataFrame) -> OverTasks:
    """Rank systems over the tasks of a leaderboard that every one of them has.

    Args:
        board: rows of `leaderboard`, one a task and system: of one protocol, label fraction and kind of data,
            and of one version of each system and preparation of each task.

    Raises:
        UserError: there are fewer than three systems, or fewer than two tasks that all have.
    """
    board = board.assign(score=board["score"].where(board["complete"]))
    scores = board.pivot(index="system", columns="task", values="score")
    whole = scores.notna().all(axis=0)
    kept = scores.loc[:, whole]
    systems, tasks = kept.shape
    if systems < FEWEST_SYSTEMS or tasks < FEWEST_TASKS:
        raise UserError(
            f"{systems} systems have {tasks} tasks in common",
            allowed=f"average ranks need {FEWEST_SYSTEMS} systems and {FEWEST_TASKS} tasks",
            next_step="choose by --system those that were run on the same tasks; fewest has "
            + fewest_tasks(scores),
        )
    average = average_ranks(kept.to_numpy())
    return OverTasks(tuple(kept.index), tuple(kept.columns), tuple(scores.columns[~whole]), average)


def fewest_tasks(scores: pd.DataFrame) -> str:
    """Name the system with the fewest tasks, and how many; scores of (systems, tasks), NaN where there is none."""
    counts = scores.notna().sum(axis=1)
    return f"{counts.idxmin()} ({counts.min()})"


def as_table(found: OverTasks) -> Table:
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
