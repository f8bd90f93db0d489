"""Several systems' predictions brought clip beside clip, so that they can be compared."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lape_bench.results.load import CellPredictions

Part = tuple[int, str]  # a fold and the hash of its test clips
PredictionsBySeed = dict[int, dict[Part, CellPredictions]]


class AlignedPredictions(NamedTuple):
    """Whether each system took each clip for its class.

    Attributes:
        right: shape (systems, seeds, clips), clips of one fold after those of another.
        ran: whether a system has a seed with every fold, shape (systems, seeds); where not, `right` says nothing.
        folds: fold of each clip, shape (clips,).
        labels: class of each clip, shape (clips,).
        seeds: as numbered in the cells.
        parts: fold and test set of the clips, in their order.
    """

    right: NDArray[np.bool_]
    ran: NDArray[np.bool_]
    folds: NDArray[np.int64]
    labels: NDArray[np.int16]
    seeds: tuple[int, ...]
    parts: tuple[Part, ...]


def predictions_by_seed(
    cells: pd.DataFrame, predictions: Mapping[int, CellPredictions]
) -> PredictionsBySeed:
    """Sort the predictions of one system's cells by seed, fold and test set."""
    found: PredictionsBySeed = {}
    for index, seed, fold in zip(cells.index, cells["seed"], cells["fold"], strict=True):
        of_cell = predictions[index]
        found.setdefault(int(seed), {})[int(fold), of_cell.test_hash] = of_cell
    return found


def align_predictions(systems: Sequence[PredictionsBySeed]) -> AlignedPredictions:
    """Bring systems clip beside clip, on the folds of the seeds that have most of them.

    A seed that lacks one of these folds, or was tested on other clips, is left out.

    Args:
        systems: predictions of each, as `by_seed` sorts them; at least one.
    """
    # Of equally many folds, those that most seeds have; then any, but always the same.
    met = Counter(tuple(sorted(parts)) for system in systems for parts in system.values())
    chosen = max(met, key=lambda parts: (len(parts), met[parts], parts))
    whole = [
        {seed: parts for seed, parts in system.items() if parts.keys() >= set(chosen)}
        for system in systems
    ]
    seeds = tuple(sorted({seed for system in whole for seed in system}))
    some = next(parts for system in whole for parts in system.values())
    labels = np.concatenate([some[part].labels for part in chosen])
    right = np.zeros((len(systems), len(seeds), len(labels)), dtype=np.bool_)
    for rows, system in zip(right, whole, strict=True):
        for row, seed in zip(rows, seeds, strict=True):
            if seed in system:
                row[:] = np.concatenate([system[seed][part].predicted for part in chosen]) == labels
    return AlignedPredictions(
        right,
        np.array([[seed in system for seed in seeds] for system in whole]),
        np.repeat([fold for fold, _ in chosen], [len(some[part].labels) for part in chosen]),
        labels,
        seeds,
        chosen,
    )
