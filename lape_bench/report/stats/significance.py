"""Tests of whether two systems differ, from the clips that each classified correctly.

The unit is the clip, since both systems were tested on the same clips. With several seeds a difference has to survive
another draw of seeds too, so clips and seeds are both resampled, independently: the pigeonhole bootstrap of Owen (2007),
"The pigeonhole bootstrap", Annals of Applied Statistics 1(2). The tests compare accuracy, whatever the task's metric.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Not scipy.stats, which every report would wait for.
from scipy.special import bdtr, chdtrc, stdtrit

LEVEL = 0.05
RESAMPLES = 10_000
LEAST_P = 2 / (RESAMPLES + 1)  # if no resample contradicts the difference
STEP = 1_000  # resamples at a time: with 8,000 clips 32 MB
EXACT_BELOW = 25  # discordant clips, below which McNemar's chi-squared is a poor approximation
ROUNDING = 1e-9  # smaller differences are rounding errors of sums in another order

Correct = NDArray[np.bool_]
Resamples = list[NDArray[np.uint8]]


def interval_half_width(std: float, seeds: int) -> float:
    """Half of the 95 % interval of a mean over seeds, by Student's t; NaN for one seed."""
    if seeds < 2:
        return math.nan
    return float(stdtrit(seeds - 1, 1 - LEVEL / 2)) * std / math.sqrt(seeds)


class Difference(NamedTuple):
    """A difference of two accuracies, in [-1, 1], with its 95 % interval and two-sided p-value."""

    value: float
    low: float
    high: float
    p: float


def paired_bootstrap(
    a: Correct,
    b: Correct,
    folds: NDArray[np.int64],
    generator: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Difference:
    """Compare two systems that were scored on the same clips with the same seeds.

    An accuracy is the mean over seeds of the mean over folds. Clips are drawn again within their fold. Of n > 1
    seeds n - 1 are drawn, which makes the variance of their mean the unbiased one; n of them would make it too
    small by (n - 1) / n, a third for three seeds. The interval is on the wide side where other clips flip in
    each seed (Owen 2007). Even so a few seeds say little of how seeds spread: `bench compare` shows
    Student's t over the seeds' own differences beside it.

    Args:
        a: whether each clip was classified correctly, shape (seeds, clips).
        b: the same of the other system, same seeds and clips.
        folds: fold of each clip, shape (clips,).
        generator: draws clips and seeds.
        resamples: how many draws.

    Returns:
        a minus b; the percentile interval; p by its inversion, at least 2 / (resamples + 1), which is `LEAST_P`
        of as many resamples as there are by default.

    Raises:
        ValueError: the shapes do not fit, or there is no clip.
    """
    if a.shape != b.shape or a.shape[1:] != folds.shape or not a.size:
        raise ValueError(f"clips have shapes {a.shape} and {b.shape}, folds {folds.shape}")
    by_seed = a.astype(np.float32) - b
    seeds = _seed_weights(len(a), generator, resamples)
    draws = clip_draws(folds, generator, resamples)
    clips = np.concatenate(list(_resampled_means(by_seed, folds, draws)))
    differences = (clips * seeds).sum(axis=1)
    low, high = np.quantile(differences, [LEVEL / 2, 1 - LEVEL / 2])
    p = _p_value(
        np.array((differences <= ROUNDING).sum()),
        np.array((differences >= -ROUNDING).sum()),
        resamples,
    )
    return Difference(float(_means(by_seed, folds).mean()), float(low), float(high), float(p))


def clip_draws(
    folds: NDArray[np.int64], generator: np.random.Generator, resamples: int
) -> Iterator[Resamples]:
    """Draw clips with replacement, as many as there are, each fold on its own.

    Yields:
        How often each clip is taken, for each fold shape (at most STEP, clips of the fold).
    """
    sizes = np.unique(folds, return_counts=True)[1]
    for start in range(0, resamples, STEP):
        count = min(STEP, resamples - start)
        yield [_draw_counts(int(size), count, generator) for size in sizes]


class PairwiseComparison(NamedTuple):
    """The comparison of every pair of systems.

    Attributes:
        differences: row minus column, accuracies over their common seeds, shape (systems, systems).
        p: two-sided, not corrected, same shape; NaN if two systems have no seed in common.
    """

    differences: NDArray[np.float64]
    p: NDArray[np.float64]


def pairwise_bootstrap(
    correct: Correct,
    was_run: NDArray[np.bool_],
    folds: NDArray[np.int64],
    draws: Sequence[Resamples],
    generator: np.random.Generator,
) -> PairwiseComparison:
    """Compare every pair of systems as `paired_bootstrap` does, over the same draws of clips.

    Args:
        correct: whether each clip was classified correctly, shape (systems, seeds, clips); ignored where a seed was not run.
        was_run: whether a system ran a seed, shape (systems, seeds). A pair is compared over its common seeds.
        folds: fold of each clip, shape (clips,).
        draws: of clips, as `clip_draws` gives them; what is tested on the same clips may share them.
        generator: draws seeds.
    """
    systems, seeds, clips = correct.shape
    resamples = sum(len(fold[0]) for fold in draws)
    common = was_run[:, None] & was_run[None, :]  # (systems, systems, seeds)
    seed_sets = [shared for shared in np.unique(common.reshape(-1, seeds), axis=0) if shared.any()]
    # A seed that is not shared has no weight.
    seed_weights = np.zeros((len(seed_sets), resamples, seeds))
    for weights, shared in zip(seed_weights, seed_sets, strict=True):
        weights[:, shared] = _seed_weights(shared.sum(), generator, resamples)
    at_most = np.zeros((systems, systems), dtype=np.int64)
    flat = correct.reshape(-1, clips)
    start = 0
    for means in _resampled_means(flat, folds, draws):
        by_seed = means.reshape(-1, systems, seeds)
        here = slice(start, start + len(means))
        for weights, shared in zip(seed_weights, seed_sets, strict=True):
            members = np.flatnonzero(was_run[:, shared].all(axis=1))
            pairs = np.ix_(members, members)
            scores = np.einsum("rms,rs->rm", by_seed, weights[here])[:, members]
            not_better = scores[:, :, None] <= (scores + ROUNDING)[:, None, :]
            # Sums of at most STEP ones fit 16 bits; summing booleans would take four times as long.
            counts = not_better.view(np.uint8).sum(axis=0, dtype=np.uint16)
            at_most[pairs] += (common[pairs] == shared).all(axis=2) * counts
        start = here.stop
    n_common = common.sum(axis=2)
    observed = _means(flat, folds).reshape(systems, seeds)
    sums = (observed[:, None] - observed[None, :]) * common  # (systems, systems, seeds)
    differences = sums.sum(axis=2) / np.maximum(n_common, 1)
    return PairwiseComparison(
        differences, np.where(n_common > 0, _p_value(at_most, at_most.T, resamples), np.nan)
    )


def holm(p: NDArray[np.float64]) -> NDArray[np.float64]:
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


def rank_intervals(pairwise: PairwiseComparison) -> NDArray[np.int64]:
    """Return the ranks that each system may have, by the pairs that differ after Holm's correction.

    Returns:
        Shape (systems, 2), from 1: one more than the number of better systems, and the number of all systems less the
        worse ones. Two systems that do not differ significantly need not have the same ranks.
    """
    systems = len(pairwise.p)
    pairs = np.triu(np.isfinite(pairwise.p), k=1)
    adjusted = np.ones_like(pairwise.p)
    adjusted[pairs] = holm(pairwise.p[pairs])
    apart = np.minimum(adjusted, adjusted.T) <= LEVEL
    better = apart & (pairwise.differences > 0)  # row than column
    return np.stack([1 + better.sum(axis=0), systems - better.sum(axis=1)], axis=1)


class McNemarResult(NamedTuple):
    """The clips that only one of two systems classified correctly: both counts, and the two-sided p."""

    only_a: int
    only_b: int
    p: float


def mcnemar(a: Correct, b: Correct) -> McNemarResult:
    """Test whether two systems are equally accurate, by the clips on which they differ: McNemar (1947).

    The test is for one seed. Seeds are not pooled: they score the same clips, and a clip that differs in three seeds
    is not three independent clips, so a pooled p would be far too small.

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


def _means(values: NDArray[np.generic], folds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over folds of the mean over clips: (rows, clips) to (rows,)."""
    parts = [values[:, folds == fold] for fold in np.unique(folds)]
    means = np.stack([part.mean(axis=1, dtype=np.float64) for part in parts])
    return np.asarray(means.mean(axis=0))


def _resampled_means(
    values: NDArray[np.generic], folds: NDArray[np.int64], draws: Iterable[Resamples]
) -> Iterator[NDArray[np.float64]]:
    """Yield the means of `_means` over resampled clips, shape (at most STEP, rows)."""
    # Integers below 2**24 are exact in float32, and its matrix product takes half the time.
    parts = [values[:, folds == fold].T.astype(np.float32) for fold in np.unique(folds)]
    for resample in draws:
        means = np.zeros((len(resample[0]), len(values)))
        for times, part in zip(resample, parts, strict=True):
            sums = times.astype(np.float32) @ part
            means += sums.astype(np.float64) / (len(part) * len(parts))
        yield means


def _draw_counts(
    population: int, count: int, generator: np.random.Generator, sample: int | None = None
) -> NDArray[np.uint8]:
    """Draw samples with replacement, by default as large as the population; count draws, shape (count, population)."""
    drawn = generator.integers(0, population, (count, sample or population))
    drawn += population * np.arange(count)[:, None]
    times = np.bincount(drawn.ravel(), minlength=count * population)
    # The probability of 256 draws of one member is below 1e-500.
    return times.reshape(count, population).astype(np.uint8)


def _seed_weights(
    seeds: int, generator: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """Weights of the seeds in each resample, shape (resamples, seeds), each row of sum 1."""
    if seeds == 1:
        return np.ones((resamples, 1))
    return _draw_counts(seeds, resamples, generator, sample=seeds - 1) / (seeds - 1)


def _p_value(
    at_most: NDArray[np.int64], at_least: NDArray[np.int64], resamples: int
) -> NDArray[np.float64]:
    """Two-sided p from how many resamples are at most and at least zero."""
    return np.minimum(1.0, 2 * (np.minimum(at_most, at_least) + 1) / (resamples + 1))
