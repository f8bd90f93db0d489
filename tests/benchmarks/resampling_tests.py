"""Tests of a difference that resample clips or groups: what other harnesses do, for comparison.

All take the mean over seeds as it is, so how seeds vary is left out of them. Each experiment is resampled in the same ways,
which saves time and changes no error rate.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lape_bench.report.stats.crossed import LEVEL
from tests.lape_bench.report.stats.simulation import Simulated

Array = NDArray[np.float64]
Found = NDArray[np.bool_]
Test = Callable[[Simulated, float], Found]  # of a difference that is moved by so much

RESAMPLES = 999
ALL_SIGNS = 10  # groups, up to which every combination of signs is tried
WEBB = np.sqrt(
    [0.5, 1, 1.5]
)  # six values with their signs: Webb (2023), "Reworking wild bootstrap-based inference"


def clip_bootstrap(simulated: Simulated, moved: float) -> Found:
    """Resample clips; the difference is found if the percentile interval does not hold zero."""
    clips = simulated.by_clip.shape[1]
    counts = _resampled(clips)
    return _outside(simulated.by_clip @ counts.T.astype(np.float32) / clips, moved)


def cluster_bootstrap(simulated: Simulated, moved: float) -> Found:
    """Resample groups; the interval is the percentile interval."""
    shares = simulated.shares
    counts = _resampled(len(shares))
    return _outside(simulated.by_group @ counts.T / (counts @ shares), moved)


def _resampled(units: int) -> Array:
    """Draw how often each unit occurs in each resample, shape (resamples, units)."""
    random = np.random.default_rng(0)
    return random.multinomial(units, np.full(units, 1 / units), RESAMPLES).astype(np.float64)


def _outside(means: NDArray[np.floating], moved: float) -> Found:
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2], axis=1) + moved
    return np.asarray((low > 0) | (high < 0))


def sign_flip(simulated: Simulated, moved: float) -> Found:
    """Flip the signs of groups at random: Canay, Romano and Shaikh (2017), Econometrica 85."""
    sums = simulated.by_group + moved * simulated.shares
    return sign_flip_p(sums) <= LEVEL


def sign_flip_p(sums: Array) -> Array:
    """Return the two-sided p of the share of each group in a difference, shape (experiments, groups)."""
    groups = sums.shape[1]
    if groups <= ALL_SIGNS:
        signs = 1.0 - 2 * ((np.arange(2**groups)[:, None] >> np.arange(groups)) & 1)
    else:
        signs = _with_own(np.random.default_rng(0).choice([-1.0, 1.0], (RESAMPLES, groups)))
    # Not >=, since the order of adding changes the last bits.
    extreme = np.abs(sums @ signs.T) > np.abs(sums.sum(axis=1, keepdims=True)) - 1e-12
    return np.asarray(extreme.mean(axis=1))


def wild_cluster_bootstrap(simulated: Simulated, moved: float) -> Found:
    """Multiply groups by Webb's weights, with the null imposed: Cameron, Gelbach and Miller (2008).

    With the signs alone (Rademacher's weights) and groups of equal size this would be `sign_flip`.
    """
    shares = simulated.shares
    sums = simulated.by_group + moved * shares
    drawn = np.random.default_rng(0).choice([*-WEBB, *WEBB], (RESAMPLES, len(shares)))
    weights = _with_own(drawn)
    means = sums @ weights.T
    # The residual of a group is its sum less its share of the mean.
    squares = sums**2 @ (weights**2).T - 2 * means * ((sums * shares) @ weights.T)
    variances = squares + means**2 * (shares**2).sum()
    statistics = np.abs(means) / np.sqrt(np.maximum(variances, 1e-18))
    return np.asarray((statistics >= statistics[:, :1]).mean(axis=1) <= LEVEL)


def _with_own(weights: Array) -> Array:
    """Put the data themselves before their resamples."""
    return np.concatenate([np.ones((1, weights.shape[1])), weights])


RESAMPLING_TESTS: dict[str, Test] = {
    "bootstrap of clips": clip_bootstrap,
    "bootstrap of groups": cluster_bootstrap,
    "sign flips of groups": sign_flip,
    "wild cluster bootstrap": wild_cluster_bootstrap,
    "chosen": lambda simulated, moved: (
        np.abs(simulated.difference.value + moved) > simulated.difference.half_width()
    ),
}
