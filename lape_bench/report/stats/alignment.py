"""Predictions of several systems aligned clip by clip, so that they can be compared."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lape_bench.results.load import CellPredictions

TestFold = tuple[int, str]  # a fold and the hash of its test clips
PredictionsBySeed = dict[int, dict[TestFold, CellPredictions]]


class AlignedPredictions(NamedTuple):
    """Whether each system predicted the class of each clip correctly.

    Attributes:
        correct: shape (systems, seeds, clips), the clips of one fold after those of another.
        was_run: whether a system ran every fold with a seed, shape (systems, seeds); if not, `correct` is undefined.
        folds: fold of each clip, shape (clips,).
        labels: class of each clip, shape (clips,).
        seeds: as in the cells.
        test_folds: in the order of their clips.
    """

    correct: NDArray[np.bool_]
    was_run: NDArray[np.bool_]
    folds: NDArray[np.int64]
    labels: NDArray[np.int16]
    seeds: tuple[int, ...]
    test_folds: tuple[TestFold, ...]


def predictions_by_seed(
    cells: pd.DataFrame, predictions: Mapping[int, CellPredictions]
) -> PredictionsBySeed:
    """Group the predictions of one system's cells by seed, fold and test set."""
    by_seed: PredictionsBySeed = {}
    for index, seed, fold in zip(cells.index, cells["seed"], cells["fold"], strict=True):
        of_cell = predictions[index]
        by_seed.setdefault(int(seed), {})[int(fold), of_cell.test_hash] = of_cell
    return by_seed


def align_predictions(systems: Sequence[PredictionsBySeed]) -> AlignedPredictions:
    """Align systems clip by clip, on the folds of the seeds that have the most folds.

    A seed that lacks one of these folds, or was tested on other clips, is left out.

    Args:
        systems: the predictions of each, as from `predictions_by_seed`; at least one system.
    """
    test_folds = _most_complete_folds(systems)
    complete = [
        {seed: parts for seed, parts in system.items() if parts.keys() >= set(test_folds)}
        for system in systems
    ]
    seeds = tuple(sorted({seed for system in complete for seed in system}))
    example = next(parts for system in complete for parts in system.values())
    labels = [example[test_fold].labels for test_fold in test_folds]
    all_labels = np.concatenate(labels)
    correct = np.zeros((len(systems), len(seeds), len(all_labels)), dtype=np.bool_)
    for rows, system in zip(correct, complete, strict=True):
        for row, seed in zip(rows, seeds, strict=True):
            if seed in system:
                predicted = [system[seed][test_fold].predicted for test_fold in test_folds]
                row[:] = np.concatenate(predicted) == all_labels
    return AlignedPredictions(
        correct,
        np.array([[seed in system for seed in seeds] for system in complete]),
        np.repeat([fold for fold, _ in test_folds], list(map(len, labels))),
        all_labels,
        seeds,
        test_folds,
    )


def _most_complete_folds(systems: Sequence[PredictionsBySeed]) -> tuple[TestFold, ...]:
    """Return the largest set of folds that a seed has; of equal ones the most frequent, then a fixed choice."""
    counts = Counter(tuple(sorted(parts)) for system in systems for parts in system.values())
    return max(counts, key=lambda folds: (len(folds), counts[folds], folds))
