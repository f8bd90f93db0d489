"""A mean over seeds and groups, with intervals and tests from its two sources of variance.

A score is a mean over seeds (runs) and over groups of clips (speakers, recordings, locations; single clips if a task has no
groups). Seeds and groups are crossed: every seed is tested on every group. New data brings new groups, and a new run a new
seed, so intervals and tests take in both. The method was chosen by simulation: `docs/concepts/statistics.md`.

- Variance over groups: the jackknife that leaves out a group at a time (CR3), with the degrees of freedom of Bell and McCaffrey
  (2002), "Bias reduction in standard errors for linear regression with multi-stage samples", Survey Methodology 28. It holds for
  few groups of unequal size: MacKinnon, Nielsen and Webb (2023), "Cluster-robust inference: A guide to empirical practice",
  Journal of Econometrics 232.
- Variance over both: Cameron, Gelbach and Miller (2011), "Robust inference with multiway clustering", Journal of Business &
  Economic Statistics 29, with Satterthwaite's degrees of freedom.
- With few seeds the estimate of their variance is rough, and may be zero by chance. So a difference also has to hold by
  Student's t over the seeds alone: the interval is the wider of both, p the larger of both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Not scipy.stats, which every report would wait for.
from scipy.special import nctdtrinc, stdtr, stdtrit

from lape_bench.report.formatting import LEVEL as LEVEL

Array = NDArray[np.float64]

POWER = 0.8
NOTHING_DIGITS = 12
NOTHING = 10**-NOTHING_DIGITS  # scores in [0, 1] that differ by less differ by rounding


def with_ties(scores: Array | float) -> Array:
    """Make scores in [0, 1] equal that differ by rounding alone, such as means of the same numbers in another order."""
    return np.asarray(np.round(scores, NOTHING_DIGITS))


class GroupSizes(NamedTuple):
    """How much each group weighs in a score.

    Attributes:
        weights: share of each group in the score, shape (groups,); their sum is 1.
        squares: sum of the squared weights of each group's clips, same shape: what its sum would vary by if clips were
            independent.
    """

    weights: Array
    squares: Array

    @property
    def degrees_of_freedom(self) -> float:
        """Bell and McCaffrey's (of CR2), for clips that are independent: groups less one if all weigh the same; NaN for one."""
        w, v = self.weights, self.squares
        if len(w) < 2:
            return math.nan
        # Residuals are r_i = y_i - w_i sum(y), each divided by the root of 1 - w_i; the y_i have variances v_i. With K the
        # covariance matrix of these, the degrees of freedom are trace(K)^2 / trace(K K), here written out as sums.
        d = 1 / (1 - w)
        total = v.sum()
        trace = (d * (v - 2 * w * v + total * w**2)).sum()
        a, b, c = (d * w**2).sum(), (d * w * v).sum(), (d * v**2).sum()
        squares = (d**2 * (v**2 + 2 * v * (total * w**2 - 2 * w * v))).sum()
        squares += total**2 * a**2 + 2 * a * c - 4 * total * a * b + 2 * b**2
        return float(trace**2 / squares)

    def deviations(self, residuals: Array) -> Array:
        """Turn the residual sums of groups, shape (..., groups), into deviations whose squares add up to the jackknife's variance.

        Without a group the score changes by its residual sum, divided by the weight of the other groups.
        """
        groups = len(self.weights)
        return np.asarray(residuals / (1 - self.weights) * math.sqrt((groups - 1) / groups))


@dataclass(frozen=True)
class CrossedMean:
    """One or many means over the same seeds and groups, with their variances.

    Attributes:
        value: the means, any shape.
        seed_variance: of the mean, from the spread of seeds; same shape. Undefined for one seed.
        group_variance: of the mean, from the spread of groups; same shape.
        joint_variance: what both of these contain, from how seeds and groups interact; same shape. Undefined for one seed.
        seeds: number of seeds.
        group_df: degrees of freedom of `group_variance`; NaN if there is one group.
    """

    value: Array
    seed_variance: Array
    group_variance: Array
    joint_variance: Array
    seeds: int
    group_df: float

    @property
    def testable(self) -> bool:
        """Whether something can be said of systems: one seed, or one group, shows no spread."""
        return self.seeds > 1 and not math.isnan(self.group_df)

    def median(self, chosen: NDArray[np.bool_]) -> "CrossedMean":
        """Return one mean with the medians of the value and of each variance over some of many."""
        return CrossedMean(
            np.asarray(np.median(self.value[chosen])),
            np.asarray(np.median(self.seed_variance[chosen])),
            np.asarray(np.median(self.group_variance[chosen])),
            np.asarray(np.median(self.joint_variance[chosen])),
            self.seeds,
            self.group_df,
        )

    def _errors(self) -> list[tuple[Array, Array]]:
        """Return the standard errors that all have to be met, with their degrees of freedom."""
        groups = np.full(np.shape(self.value), self.group_df)
        if self.seeds < 2:
            return [(np.sqrt(self.group_variance), groups)]
        seed_df = self.seeds - 1
        seed_part = np.maximum(self.seed_variance - self.joint_variance, 0)
        both = seed_part + self.group_variance
        spread = seed_part**2 / seed_df + self.group_variance**2 / groups
        with np.errstate(invalid="ignore", divide="ignore"):
            both_df = np.where(spread > 0, both**2 / spread, groups)
        seeds = np.full_like(groups, seed_df)
        return [(np.sqrt(self.seed_variance), seeds), (np.sqrt(both), both_df)]

    def half_width(self, level: float = LEVEL) -> Array:
        """Return half of the interval of 1 - `level`; NaN if there is one group, or nothing varies.

        With one seed it is over groups alone, so it holds for that run and not for the system.
        """
        half = np.max([error * stdtrit(df, 1 - level / 2) for error, df in self._errors()], axis=0)
        return np.where(half > NOTHING, half, np.nan)

    def detectable(self, power: float = POWER, level: float = LEVEL) -> Array:
        """Return the difference that an experiment of this size finds with a probability of `power`.

        It rests on the variances seen here, so with few seeds or groups it is rough. NaN as for `half_width`.
        """
        needed = [
            error * nctdtrinc(df, 1 - power, stdtrit(df, 1 - level / 2))
            for error, df in self._errors()
        ]
        largest = np.max(needed, axis=0)
        return np.where(largest > NOTHING, self._where_testable(largest), np.nan)

    def p_above(self, bound: float) -> Array:
        """Return the one-sided p of the hypothesis that the mean is at most `bound`; NaN as for `p`."""
        return self._p(self.value - bound)

    def p_below(self, bound: float) -> Array:
        """Return the one-sided p of the hypothesis that the mean is at least `bound`; NaN as for `p`."""
        return self._p(bound - self.value)

    def p(self) -> Array:
        """Return the two-sided p of the hypothesis that the mean is zero.

        NaN if there is one seed or one group, or if nothing varies while the mean is not zero.
        """
        twice = 2 * self._p(np.abs(self.value))
        return np.where(np.abs(self.value) <= NOTHING, self._where_testable(1.0), twice)

    def _p(self, distance: Array) -> Array:
        """Return the one-sided p of a mean that lies by `distance` on the side of the alternative."""
        tails = []
        with np.errstate(divide="ignore", invalid="ignore"):
            for error, df in self._errors():
                tails.append(stdtr(df, -distance / np.where(error > NOTHING, error, 0)))
        varies = np.max([error for error, _ in self._errors()], axis=0) > NOTHING
        return np.where(varies, self._where_testable(np.max(tails, axis=0)), np.nan)

    def _where_testable(self, values: Array | float) -> Array:
        return np.asarray(values, np.float64) if self.testable else np.full_like(self.value, np.nan)


def crossed_mean(scores: Array, deviations: Array, group_df: float) -> CrossedMean:
    """Estimate the mean over seeds with its variances.

    Args:
        scores: of each seed, shape (..., seeds).
        deviations: of each group with each seed, as `GroupSizes.deviations` gives them, shape (..., seeds, groups).
        group_df: as `GroupSizes.degrees_of_freedom`.
    """
    by_group = deviations.mean(axis=-2)
    total = (deviations**2).sum(axis=(-2, -1))
    group_variance = (by_group**2).sum(axis=-1)
    return from_sums(scores, group_variance, total, group_df)


def from_sums(scores: Array, group_variance: Array, total: Array, group_df: float) -> CrossedMean:
    """Make a `CrossedMean` of sums of squares.

    Args:
        scores: of each seed, shape (..., seeds).
        group_variance: sum over groups of the squares of deviations that are averaged over seeds, shape (...).
        total: sum over seeds and groups of squared deviations, shape (...).
        group_df: as `GroupSizes.degrees_of_freedom`.
    """
    seeds = scores.shape[-1]
    value = scores.mean(axis=-1)
    if seeds < 2:
        undefined = np.full_like(value, np.nan)
        return CrossedMean(value, undefined, group_variance, undefined, seeds, group_df)
    joint = np.maximum(total - seeds * group_variance, 0) / (seeds * (seeds - 1))
    seed_variance = scores.var(axis=-1, ddof=1) / seeds
    return CrossedMean(value, seed_variance, group_variance, joint, seeds, group_df)


def mean_over_tasks(
    tasks: Sequence[CrossedMean], scores: Array, data_sets: Sequence[str]
) -> CrossedMean:
    """Average over tasks for the same seeds.

    Groups of different data sets are independent of each other. Tasks of one data set may have the same groups, so their
    errors are taken as fully dependent: their standard errors add up. A seed is the same on all tasks.

    Args:
        tasks: the mean on each task, single numbers, all over the same seeds.
        scores: of each seed on each task, shape (tasks, seeds).
        data_sets: the data set of each task.
    """
    variances = np.array([(t.group_variance, t.joint_variance) for t in tasks], np.float64)
    errors, dfs = np.sqrt(variances) / len(tasks), np.array([task.group_df for task in tasks])
    members = [np.array(data_sets) == name for name in dict.fromkeys(data_sets)]
    group_variances, joint_variances = np.stack([errors[m].sum(axis=0) ** 2 for m in members]).T
    dfs = np.array([dfs[m].min() for m in members])
    group_variance, joint = group_variances.sum(), joint_variances.sum()
    # Satterthwaite's, over the data sets.
    df = group_variance**2 / (group_variances**2 / dfs).sum() if group_variance else dfs.sum()
    seeds = scores.shape[1]
    of_seeds = scores.mean(axis=0)
    seed_variance = of_seeds.var(ddof=1) / seeds if seeds > 1 else np.nan
    return CrossedMean(
        np.asarray(of_seeds.mean()),
        np.asarray(seed_variance),
        np.asarray(group_variance),
        np.asarray(joint),
        seeds,
        float(df),
    )
