"""Ranks on a leaderboard, shared by systems that cannot be told apart."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lape_bench.report.stats.alignment import align_predictions, predictions_by_seed
from lape_bench.report.stats.significance import (
    LEVEL,
    Resamples,
    clip_draws,
    pairwise_bootstrap,
    rank_intervals,
)
from lape_bench.results.load import CellPredictions

MOST_RANKED = 40  # systems of a board: 780 pairs, which take some seconds
FEWEST_RESAMPLES = 1_000
CORES = os.cpu_count() or 1


def rank_boards(
    boards: Sequence[Sequence[pd.DataFrame]], predictions: Mapping[int, CellPredictions]
) -> list[NDArray[np.float64] | None]:
    """Rank the systems of several boards, each as `rank_systems` does, a board a core."""
    # Almost all of it is inside numpy, which lets other threads go on meanwhile; but not if each product of
    # matrices starts threads of its own.
    with threadpool_limits(1), ThreadPoolExecutor(CORES) as threads:
        return [*threads.map(lambda systems: rank_systems(systems, predictions), boards)]


def rank_systems(
    systems: Sequence[pd.DataFrame], predictions: Mapping[int, CellPredictions]
) -> NDArray[np.float64] | None:
    """Rank the systems of one board.

    The same cells give the same ranks: the draws are seeded by a constant.

    Args:
        systems: seed and fold of each one's cells.
        predictions: by the index of the cells.

    Returns:
        First and last rank that each may have, shape (systems, 2); NaN for one that lacks a fold others have.
        None where there are fewer than two systems to rank or more than `MOST_RANKED`, a cell has no predictions,
        or a fold was tested on other clips.
    """
    known = all(index in predictions for cells in systems for index in cells.index)
    if not known or not 2 <= len(systems) <= MOST_RANKED:
        return None
    found = [predictions_by_seed(cells, predictions) for cells in systems]
    tests = {part for system in found for parts in system.values() for part in parts}
    if len(tests) > len({fold for fold, _ in tests}):
        return None
    aligned = align_predictions(found)
    ranked = np.flatnonzero(aligned.ran.any(axis=1))
    if len(ranked) < 2:
        return None
    pairs = len(ranked) * (len(ranked) - 1) // 2
    pairwise = pairwise_bootstrap(
        aligned.right[ranked],
        aligned.ran[ranked],
        aligned.folds,
        # The least p is 2 / (resamples + 1), and the first step of Holm's correction asks for LEVEL / pairs.
        _draws(tuple(aligned.folds.tolist()), max(FEWEST_RESAMPLES, round(2 * pairs / LEVEL))),
        np.random.default_rng(0),
    )
    ranks = np.full((len(systems), 2), np.nan)
    ranks[ranked] = rank_intervals(pairwise)
    return ranks


@lru_cache(CORES)
def _draws(folds: tuple[int, ...], resamples: int) -> list[Resamples]:
    """Draw clips once for the boards of a task, which come one after the other: it takes most of the time."""
    return list(clip_draws(np.array(folds), np.random.default_rng(1), resamples))
