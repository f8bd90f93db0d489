"""How many seeds, groups or tasks it takes to find a difference, by the test that `bench compare` makes.

Power is the share of simulated experiments in which the test finds the difference. The test depends on its data by four
numbers only (the mean, and three mean squares), so these are drawn from their distributions, for normal effects of seeds,
groups and both. The draws have a constant seed: the same question has the same answer.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import nctdtr, stdtrit

from lape_bench.report.stats.crossed import LEVEL, Array, CrossedMean

EXPERIMENTS = 10_000  # the error of a power is at most half a point
MOST_SEEDS, MOST_GROUPS, MOST_TASKS = 1_000, 100_000, 1_000


class Spread(NamedTuple):
    """Standard deviations of a difference of two systems, in [0, 1].

    Attributes:
        seeds: of the difference from run to run, on all groups alike.
        groups: of the difference from group to group, with all seeds alike.
        rest: of the difference of one seed on one group, about what seed and group give.
    """

    seeds: float
    groups: float
    rest: float


class Experiment(NamedTuple):
    """How many seeds are run, and how many groups are tested on."""

    seeds: int
    groups: int


def observed_spread(mean: CrossedMean) -> Spread:
    """Take the spread from a difference that was measured; groups of unequal size count as the fewer equal ones they are worth.

    Raises:
        ValueError: there is one seed or one group, which shows no spread.
    """
    if not mean.testable:
        raise ValueError("one seed or one group shows no spread")
    groups = effective_groups(mean)
    a, b, joint = (
        float(variance)
        for variance in (mean.seed_variance, mean.group_variance, mean.joint_variance)
    )
    return Spread(
        math.sqrt(max(a - joint, 0) * mean.seeds),
        math.sqrt(max(b - joint, 0) * groups),
        math.sqrt(joint * mean.seeds * groups),
    )


def effective_groups(mean: CrossedMean) -> int:
    """Return how many equal groups the groups are worth."""
    return max(2, round(mean.group_df + 1))


def planned_spread(seeds: float, groups: float, accuracy: float, clips: int) -> Spread:
    """Take the spread from what is expected, before anything is run.

    Args:
        seeds: standard deviation of the difference from run to run, in [0, 1].
        groups: the same from group to group.
        accuracy: of both systems, about, in [0, 1]. They are taken to err independently, which is the worst case.
        clips: of a group.
    """
    return Spread(seeds, groups, math.sqrt(2 * accuracy * (1 - accuracy) / clips))


def power(spread: Spread, experiment: Experiment, difference: float) -> float:
    """Return the probability of finding a difference, in [0, 1], at a level of 5 %."""
    seeds, groups = experiment
    random = np.random.default_rng(0)
    joint = spread.rest**2 / (seeds * groups)
    of_seeds = spread.seeds**2 / seeds + joint
    of_groups = spread.groups**2 / groups + joint

    def drawn(variance: float, df: int) -> Array:
        return variance * random.chisquare(df, EXPERIMENTS) / df

    errors = random.standard_normal(EXPERIMENTS) * math.sqrt(of_seeds + of_groups - joint)
    mean = CrossedMean(
        difference + errors,
        drawn(of_seeds, seeds - 1),
        drawn(of_groups, groups - 1),
        drawn(joint, (seeds - 1) * (groups - 1)),
        seeds,
        groups - 1,
    )
    return float((mean.p() <= LEVEL).mean())


def power_over_tasks(task_std: float, tasks: int, difference: float) -> float:
    """Return the probability that a t-test over tasks finds a difference.

    Args:
        task_std: standard deviation of the tasks' differences, measured with as many seeds and groups as the new ones will be.
        tasks: how many.
        difference: in [0, 1].
    """
    noncentrality = difference * math.sqrt(tasks) / task_std
    edge = stdtrit(tasks - 1, 1 - LEVEL / 2)
    below = nctdtr(tasks - 1, noncentrality, edge)
    return float(1 - below + nctdtr(tasks - 1, noncentrality, -edge))


def seeds_needed(spread: Spread, groups: int, difference: float, wanted: float) -> int | None:
    """Return the fewest seeds that find a difference with the wanted power; None if `MOST_SEEDS` do not."""
    return _fewest(
        lambda seeds: power(spread, Experiment(seeds, groups), difference), wanted, MOST_SEEDS
    )


def groups_needed(spread: Spread, seeds: int, difference: float, wanted: float) -> int | None:
    """Return the fewest groups that find a difference with the wanted power; None if `MOST_GROUPS` do not."""
    return _fewest(
        lambda groups: power(spread, Experiment(seeds, groups), difference), wanted, MOST_GROUPS
    )


def tasks_needed(task_std: float, difference: float, wanted: float) -> int | None:
    """Return the fewest tasks that find a difference with the wanted power; None if `MOST_TASKS` do not."""
    return _fewest(lambda tasks: power_over_tasks(task_std, tasks, difference), wanted, MOST_TASKS)


def detectable(spread: Spread, experiment: Experiment, wanted: float) -> float:
    """Return the smallest difference that is found with the wanted power, to a hundredth of a point; 1 if none is."""
    low, high = 0, 10_000  # hundredths of a point
    while high - low > 1:
        middle = (low + high) // 2
        enough = power(spread, experiment, middle / 10_000) >= wanted
        low, high = (low, middle) if enough else (middle, high)
    return high / 10_000


def _fewest(power_of: Callable[[int], float], wanted: float, most: int) -> int | None:
    """Return the smallest number from 2 with the wanted power, which grows with it."""
    if power_of(most) < wanted:
        return None
    low, high = 1, 2
    while high < most and power_of(high) < wanted:
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= wanted else (middle, high)
    return high
