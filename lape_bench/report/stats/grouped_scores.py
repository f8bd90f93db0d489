"""Scores of systems on one test set, taken apart by groups of clips, so that they can be compared.

A score of a seed is the mean over its folds. If predictions name the group of a clip, such as its speaker, the unit is the
group, otherwise the clip. Groups are pooled over folds: one that occurs in several folds is one group.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lape_bench import metrics
from lape_bench.report.stats.alignment import (
    ClipGroups,
    PredictionsBySeed,
    clip_groups,
    complete_seeds,
)
from lape_bench.report.stats.crossed import Array, CrossedMean, crossed_mean, from_sums
from lape_bench.report.stats.influence import influences
from lape_bench.results.scored_cells import CellPredictions


class GroupedScores(NamedTuple):
    """Scores of systems by one metric, with the deviations of groups.

    Attributes:
        scores: shape (systems, seeds), in [0, 1].
        deviations: shape (systems, seeds, groups), as of `GroupSizes.deviations`.
        was_run: whether a system ran every fold with a seed, shape (systems, seeds); if not, its scores are undefined.
        seeds: as in the cells.
        clips: that all were tested on.
        group_df: degrees of freedom of the groups.
    """

    scores: Array
    deviations: Array
    was_run: NDArray[np.bool_]
    seeds: tuple[int, ...]
    clips: ClipGroups
    group_df: float

    def mean(self, system: int) -> CrossedMean:
        """Return the mean of one system over its seeds."""
        own = self.was_run[system]
        return crossed_mean(self.scores[system, own], self.deviations[system, own], self.group_df)

    def difference(self, a: int, b: int) -> CrossedMean:
        """Return the mean of a minus b over the seeds that both ran; a seed of one is paired with the same of the other."""
        both = self.was_run[a] & self.was_run[b]
        return crossed_mean(
            self.scores[a, both] - self.scores[b, both],
            self.deviations[a, both] - self.deviations[b, both],
            self.group_df,
        )


class PairwiseComparison(NamedTuple):
    """The comparison of every pair of systems, over the seeds that both ran.

    Attributes:
        differences: row minus column, shape (systems, systems).
        p: two-sided, not corrected, same shape; NaN if a pair cannot be tested.
        typical: a difference with the medians over pairs of each variance; None if no pair can be tested.
    """

    differences: Array
    p: Array
    typical: CrossedMean | None


def grouped_scores(systems: Sequence[PredictionsBySeed], metric: str) -> GroupedScores:
    """Score systems, and take their scores apart by groups.

    Args:
        systems: the predictions of each, as from `predictions_by_seed`; at least one system.
        metric: one of `metrics.METRICS`.
    """
    test_folds, complete = complete_seeds(systems)
    seeds = tuple(sorted({seed for system in complete for seed in system}))
    cells = [[system.get(seed) for seed in seeds] for system in complete]
    example = next(parts for system in complete for parts in system.values())
    clips = clip_groups(test_folds, example)
    sizes = clips.sizes()
    was_run = np.array([[parts is not None for parts in row] for row in cells])
    shape = (len(systems), len(seeds))
    scores, residuals = np.zeros(shape), np.zeros((*shape, clips.n_groups))
    runs = [parts for row in cells for parts in row if parts is not None]
    of_folds, sums = zip(
        *(
            _score_fold(metric, [parts[test_fold] for parts in runs], clips, place)
            for place, test_fold in enumerate(test_folds)
        ),
        strict=True,
    )
    by_fold = np.stack(of_folds, axis=1)  # (runs, folds)
    scores[was_run] = by_fold.mean(axis=1)
    residuals[was_run] = np.mean(sums, axis=0)
    if len(test_folds) > 1:  # how folds differ is a part of how their groups differ
        between = by_fold - by_fold.mean(axis=1, keepdims=True)
        residuals[was_run] += between @ _fold_shares(clips).T
    single = clips.n_groups == 1
    deviations = residuals if single else sizes.deviations(residuals)
    return GroupedScores(
        scores, deviations, was_run, seeds, clips, math.nan if single else sizes.degrees_of_freedom
    )


def score(metric: str, cell: CellPredictions) -> float:
    """Score one cell by a metric."""
    if metric == metrics.ROC_AUC:
        assert cell.log_odds is not None
        both = np.stack([np.zeros_like(cell.log_odds), cell.log_odds], axis=1)
        return metrics.roc_auc(both, cell.labels.astype(np.int64))
    classes = int(max(cell.labels.max(), cell.predicted.max())) + 1
    predicted, labels = cell.predicted.astype(np.int64), cell.labels.astype(np.int64)
    return metrics.CLASS_METRICS[metric](metrics.confusion_matrix(labels, predicted, classes))


def _score_fold(
    metric: str, cells: Sequence[CellPredictions], clips: ClipGroups, place: int
) -> tuple[Array, Array]:
    """Score runs on one fold.

    Args:
        metric: one of `metrics.METRICS`.
        cells: of the runs, all on this fold.
        clips: those of all folds.
        place: of the fold, among all folds.

    Returns:
        The scores, shape (runs,), and the sum of each group's influences, shape (runs, groups).
    """
    groups = clips.of_fold(place)
    if metric == "accuracy":
        # By far the most frequent case, and thousands of runs: all of them at once.
        correct = np.stack([cell.predicted for cell in cells]) == cells[0].labels
        scores = correct.mean(axis=1)
        present, starts, counts = np.unique(np.sort(groups), return_index=True, return_counts=True)
        hits = np.add.reduceat(
            correct[:, np.argsort(groups, kind="stable")], starts, axis=1, dtype=np.float64
        )
        sums = np.zeros((len(cells), clips.n_groups))
        sums[:, present] = (hits - counts * scores[:, None]) / len(groups)
        return scores, sums
    scores = np.array([score(metric, cell) for cell in cells])
    influence = [influences(metric, c.labels, c.predicted, c.log_odds) for c in cells]
    return scores, np.stack([np.bincount(groups, each, clips.n_groups) for each in influence])


def _fold_shares(clips: ClipGroups) -> Array:
    """Return the share of each group in the score that lies in each fold, shape (groups, folds)."""
    columns = [
        np.bincount(clips.groups[clips.folds == fold], minlength=clips.n_groups)
        for fold in dict.fromkeys(clips.folds.tolist())
    ]
    return np.stack([column / column.sum() for column in columns], axis=1) / len(columns)


def compare_pairs(grouped: GroupedScores) -> PairwiseComparison:
    """Compare every pair of systems as `GroupedScores.difference` does."""
    systems = len(grouped.scores)
    differences, p = np.full((2, systems, systems), np.nan)
    typical: CrossedMean | None = None
    common = grouped.was_run[:, None] & grouped.was_run[None, :]
    seed_sets = np.unique(common.reshape(-1, len(grouped.seeds)), axis=0)
    for shared in seed_sets[np.argsort(seed_sets.sum(axis=1), kind="stable")]:
        if not shared.any():
            continue
        members = np.flatnonzero(grouped.was_run[:, shared].all(axis=1))
        scores = grouped.scores[members][:, shared]
        deviations = grouped.deviations[members][:, shared]
        of_pairs = from_sums(
            scores[:, None] - scores[None, :],
            _squared_distances(deviations.mean(axis=1)),
            _squared_distances(deviations.reshape(len(members), -1)),
            grouped.group_df,
        )
        pairs = np.ix_(members, members)
        chosen = (common[pairs] == shared).all(axis=2)
        differences[pairs] = np.where(chosen, of_pairs.value, differences[pairs])
        p[pairs] = np.where(chosen, of_pairs.p(), p[pairs])
        others = chosen & ~np.eye(len(members), dtype=np.bool_)
        if of_pairs.testable and others.any():
            # Of sets of seeds the last one has the most.
            typical = of_pairs.median(others)
    return PairwiseComparison(differences, p, typical)


def _squared_distances(rows: Array) -> Array:
    """Return the squared distances between all rows, shape (rows, columns) to (rows, rows)."""
    products = rows @ rows.T
    squares = np.diag(products)
    sums = squares[:, None] + squares[None, :]
    distances = sums - 2 * products
    # What is left of equal rows is rounding.
    return np.where(distances > 1e-12 * sums, distances, 0)
