"""Corrections for several tests, the ranks that they allow, and tests of one source of variance alone."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Not scipy.stats, which every report would wait for.
from scipy.special import bdtr, chdtrc, stdtrit

from lape_bench.report.stats.crossed import LEVEL, Array

EXACT_BELOW = 25  # discordant clips, below which McNemar's chi-squared is a poor approximation

Correct = NDArray[np.bool_]


def interval_half_width(std: float, seeds: int) -> float:
    """Half of the 95 % interval of a mean over seeds alone, by Student's t; NaN for one seed."""
    if seeds < 2:
        return math.nan
    return float(stdtrit(seeds - 1, 1 - LEVEL / 2)) * std / math.sqrt(seeds)


def holm(p: Array) -> Array:
    """Correct p-values for their number: Holm (1979), "A simple sequentially rejective multiple test procedure".

    Args:
        p: shape (tests,).

    Returns:
        Adjusted p-values, same shape: those at most 0.05 hold together with a chance of 5 % that any is false.
    """
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def rank_intervals(differences: Array, p: Array) -> NDArray[np.int64]:
    """Return the ranks that each system may have, by the pairs that differ after Holm's correction.

    Args:
        differences: row minus column, shape (systems, systems).
        p: two-sided, not corrected, same shape; NaN if a pair was not tested.

    Returns:
        Shape (systems, 2), from 1: one more than the number of better systems, and the number of all systems less the
        worse ones. Two systems that do not differ significantly need not have the same ranks.
    """
    systems = len(p)
    pairs = np.triu(np.isfinite(p), k=1)
    adjusted = np.ones_like(p)
    adjusted[pairs] = holm(p[pairs])
    apart = np.minimum(adjusted, adjusted.T) <= LEVEL
    better = apart & (differences > 0)  # row than column
    return np.stack([1 + better.sum(axis=0), systems - better.sum(axis=1)], axis=1)


class McNemarResult(NamedTuple):
    """The clips that only one of two systems classified correctly: both counts, and the two-sided p."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a: Correct, b: Correct) -> McNemarResult:
    """Test whether two systems are equally accurate, by the clips on which they differ: McNemar (1947).

    It is of these two models and of clips that are independent of each other; it says nothing of new seeds, nor of new
    groups. Seeds are not pooled: they score the same clips, and a clip that differs in three seeds is not three
    independent clips, so a pooled p would be far too small.

    Args:
        a: whether each clip was classified correctly, shape (clips,).
        b: the same of the other system.

    Returns:
        Both counts and the two-sided p: exact (binomial) below 25 such clips, else chi-squared with
        continuity correction.
    """
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    discordant = only_a + only_b
    if discordant < EXACT_BELOW:
        p = min(1.0, 2 * float(bdtr(min(only_a, only_b), discordant, 0.5))) if discordant else 1.0
    else:
        p = float(chdtrc(1, (abs(only_a - only_b) - 1) ** 2 / discordant))
    return McNemarResult(only_a, only_b, p)
