"""Predictions of several systems on one test set, by seed and fold, and the groups of its clips."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lape_bench.records.pack import groups_in
from lape_bench.report.stats.crossed import GroupSizes
from lape_bench.results.scored_cells import CellPredictions

TestFold = tuple[int, str]  # a fold and the hash of its test clips
PredictionsBySeed = dict[int, dict[TestFold, CellPredictions]]


class ClipGroups(NamedTuple):
    """The test clips of all folds, the clips of one fold after those of another.

    Attributes:
        test_folds: in the order of their clips.
        clips_of_folds: number of clips of each fold, in the same order.
        folds: fold of each clip, shape (clips,).
        groups: number of each clip's group, from 0, shape (clips,).
        names: of the groups; None if the unit is the clip.
    """

    test_folds: tuple[TestFold, ...]
    clips_of_folds: tuple[int, ...]
    folds: NDArray[np.int64]
    groups: NDArray[np.int64]
    names: tuple[str, ...] | None

    @property
    def n_groups(self) -> int:
        """Number of groups, or of clips if these are the unit."""
        return int(self.groups.max()) + 1

    def of_fold(self, place: int) -> NDArray[np.int64]:
        """Return the groups of one fold's clips, given the place of the fold among all."""
        places = np.repeat(np.arange(len(self.test_folds)), self.clips_of_folds)
        return np.asarray(self.groups[places == place])

    def sizes(self) -> GroupSizes:
        """Return the weights of the groups: all folds count the same, and all clips of a fold count the same."""
        _, place, clips = np.unique(self.folds, return_inverse=True, return_counts=True)
        weights: NDArray[np.float64] = 1 / (clips[place] * float(len(clips)))
        by_group, squares = (
            np.bincount(self.groups, values).astype(np.float64) for values in (weights, weights**2)
        )
        return GroupSizes(by_group, squares)


def predictions_by_seed(
    cells: pd.DataFrame, predictions: Mapping[int, CellPredictions]
) -> PredictionsBySeed:
    """Group the predictions of one system's cells by seed, fold and test set."""
    by_seed: PredictionsBySeed = {}
    for index, seed, fold in zip(cells.index, cells["seed"], cells["fold"], strict=True):
        of_cell = predictions[index]
        by_seed.setdefault(int(seed), {})[int(fold), of_cell.test_hash] = of_cell
    return by_seed


def complete_seeds(
    systems: Sequence[PredictionsBySeed],
) -> tuple[tuple[TestFold, ...], list[PredictionsBySeed]]:
    """Choose the folds that the most complete seeds have, and keep the seeds that have them all.

    A seed that lacks one of these folds, or was tested on other clips, is left out.
    """
    counts = Counter(tuple(sorted(parts)) for system in systems for parts in system.values())
    # Of sets of the same size the most frequent counts, then a fixed choice.
    test_folds = max(counts, key=lambda folds: (len(folds), counts[folds], folds))
    complete = [
        {seed: parts for seed, parts in system.items() if parts.keys() >= set(test_folds)}
        for system in systems
    ]
    return test_folds, complete


def clip_groups(
    test_folds: tuple[TestFold, ...], cell: Mapping[TestFold, CellPredictions]
) -> ClipGroups:
    """Read the groups of the clips of some folds, from the predictions of one seed that was tested on them."""
    counts = tuple(len(cell[test_fold].labels) for test_fold in test_folds)
    folds = np.repeat([fold for fold, _ in test_folds], counts)
    names = [name for test_fold in test_folds for name in _groups(cell[test_fold])]
    if not any(name is not None for name in names):
        return ClipGroups(test_folds, counts, folds, np.arange(len(folds)), None)
    numbers: dict[str, int] = {}
    groups = [
        # A clip without a group is a group of its own.
        numbers.setdefault(f"clip {clip}" if name is None else f"group {name}", len(numbers))
        for clip, name in enumerate(names)
    ]
    labels = tuple(name.partition(" ")[2] for name in numbers)
    return ClipGroups(test_folds, counts, folds, np.array(groups), labels)


def _groups(cell: CellPredictions) -> list[str | None]:
    """Read the groups of a cell's clips."""
    groups = groups_in(cell.folder)
    return [None] * len(cell.labels) if groups is None else list(groups.to_pylist())
