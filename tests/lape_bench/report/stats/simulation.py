"""Simulated experiments of two systems without a difference, to see how often a test is wrong and an interval too narrow."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lape_bench.report.stats.crossed import CrossedMean, GroupSizes, from_sums

Array = NDArray[np.float64]

CLIPS = 600
ACCURACY = 0.8
RUN_STD, SPEAKER_STD = (
    0.03,
    0.05,
)  # of each system's accuracy, from run to run and from speaker to speaker
STEP = 250  # experiments at a time


class Noise(NamedTuple):
    """What varies besides single clips.

    Attributes:
        runs: standard deviation of a system's accuracy from run to run, in [0, 1].
        speakers: of a system's accuracy from group to group.
        same_clips: whether a clip is as hard for a system in every run, as it is in practice. If not, each run of each system
            errs on clips of its own.
    """

    runs: float = 0.0
    speakers: float = 0.0
    same_clips: bool = True


NOISE = {
    "independent": Noise(),
    "run noise": Noise(runs=RUN_STD),
    "speaker by system": Noise(speakers=SPEAKER_STD),
    "both": Noise(runs=RUN_STD, speakers=SPEAKER_STD),
}


class Design(NamedTuple):
    """How many seeds were run, and how many clips each group has."""

    seeds: int
    sizes: tuple[int, ...]


def design(seeds: int, groups: int, unequal: bool) -> Design:
    """Share about 600 clips out to groups; if unequal, the largest has eleven times as many as the smallest."""
    shares = np.exp(np.linspace(1.2, -1.2, groups)) if unequal else np.ones(groups)
    sizes = np.maximum(1, np.round(shares / shares.sum() * CLIPS)).astype(int)
    return Design(seeds, tuple(sizes.tolist()))


class Simulated(NamedTuple):
    """Many experiments.

    Attributes:
        difference: of the two systems, of which neither is better; one for each experiment.
        score: of the first one, whose expectation is `expected`.
        expected: accuracy.
        by_group: share of each group in the difference, in the mean over seeds, shape (experiments, groups).
        by_clip: difference on each clip, in the mean over seeds, shape (experiments, clips).
        shares: share of each group in the clips, shape (groups,).
    """

    difference: CrossedMean
    score: CrossedMean
    expected: float
    by_group: Array
    by_clip: NDArray[np.float32]
    shares: Array

    @property
    def over_clips(self) -> Array:
        """The standard error that clips would give if they were independent, shape (experiments,)."""
        clips = self.by_clip.shape[1]
        return np.asarray(self.by_clip.std(axis=1, ddof=1, dtype=np.float64) / np.sqrt(clips))


def simulate(design: Design, noise: Noise, experiments: int, seed: int = 0) -> Simulated:
    """Simulate experiments; each takes new groups, new clips and new seeds."""
    steps = [
        _step(design, noise, count, np.random.default_rng([seed, number]))
        for number, count in enumerate(_counts(experiments))
    ]
    sums = np.concatenate([step[0] for step in steps])
    between = sums[:, 0] - sums[:, 1]
    return Simulated(
        mean_of_sums(between, design.sizes),
        mean_of_sums(sums[:, 0], design.sizes),
        float(np.mean([step[2] for step in steps])),
        between.mean(axis=1) / sum(design.sizes),
        np.concatenate([step[1] for step in steps]),
        np.array(design.sizes) / sum(design.sizes),
    )


def _counts(experiments: int) -> Iterator[int]:
    for start in range(0, experiments, STEP):
        yield min(STEP, experiments - start)


def _step(
    design: Design, noise: Noise, count: int, random: np.random.Generator
) -> tuple[Array, NDArray[np.float32], float]:
    """Draw the sums of correct clips, shape (experiments, 2, seeds, groups), the differences on clips, and the expectation."""
    sizes = np.array(design.sizes)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    edges = np.cumsum([0, *sizes[:-1]])
    sums = np.empty((count, 2, design.seeds, len(sizes)))
    differences = np.zeros((count, len(groups)), np.float32)
    expected = []
    for system, sign in ((0, 1), (1, -1)):
        chance: Array = np.full((count, len(groups)), ACCURACY)
        if noise.same_clips:
            # Most clips are easy or hard; the mean is ACCURACY.
            chance = random.beta(3 * ACCURACY, 3 * (1 - ACCURACY), chance.shape)
        chance = chance + noise.speakers * random.standard_normal((count, len(sizes)))[:, groups]
        for run in range(design.seeds):
            of_run = np.clip(chance + noise.runs * random.standard_normal((count, 1)), 0, 1)
            expected.append(float(of_run.mean()))
            correct = random.random(chance.shape) < of_run
            sums[:, system, run] = np.add.reduceat(correct, edges, axis=1)
            differences += np.float32(sign / design.seeds) * correct
    return sums, differences, float(np.mean(expected))


def mean_of_sums(sums: Array, sizes: tuple[int, ...]) -> CrossedMean:
    """Turn sums over the clips of groups, shape (experiments, seeds, groups), into means with their variances."""
    counts = np.array(sizes, np.float64)
    groups = GroupSizes(counts / counts.sum(), counts / counts.sum() ** 2)
    scores = sums.sum(axis=2) / counts.sum()
    deviations = groups.deviations(sums / counts.sum() - groups.weights * scores[..., None])
    group_variance = (deviations.mean(axis=1) ** 2).sum(axis=1)
    total = (deviations**2).sum(axis=(1, 2))
    return from_sums(scores, group_variance, total, groups.degrees_of_freedom)
