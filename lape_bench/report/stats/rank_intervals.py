"""Ranks on a leaderboard, shared by systems that do not differ significantly."""

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
from lape_bench.runtime.cpu_cores import available

MOST_RANKED = 40  # systems of a board: 780 pairs, which take some seconds
FEWEST_RESAMPLES = 1_000


def rank_boards(
    boards: Sequence[Sequence[pd.DataFrame]], predictions: Mapping[int, CellPredictions]
) -> list[NDArray[np.float64] | None]:
    """Rank the systems of several boards as `rank_systems` does, one board on each core."""
    # Almost all of the time is spent in numpy, which releases the GIL. Matrix products must not start more threads.
    with threadpool_limits(1), ThreadPoolExecutor(available()) as threads:
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
        Best and worst rank that each may have, shape (systems, 2); NaN for a system that lacks a fold others have.
        None if there are fewer than two systems to rank or more than `MOST_RANKED`, if a cell has no predictions, or
        if a fold was tested on different clips.
    """
    known = all(index in predictions for cells in systems for index in cells.index)
    if not known or not 2 <= len(systems) <= MOST_RANKED:
        return None
    by_seed = [predictions_by_seed(cells, predictions) for cells in systems]
    test_folds = {test for system in by_seed for parts in system.values() for test in parts}
    if len(test_folds) > len({fold for fold, _ in test_folds}):
        return None
    aligned = align_predictions(by_seed)
    ranked = np.flatnonzero(aligned.was_run.any(axis=1))
    if len(ranked) < 2:
        return None
    pairs = len(ranked) * (len(ranked) - 1) // 2
    pairwise = pairwise_bootstrap(
        aligned.correct[ranked],
        aligned.was_run[ranked],
        aligned.folds,
        # The least p is 2 / (resamples + 1), and the first step of Holm's correction asks for LEVEL / pairs.
        _draws(tuple(aligned.folds.tolist()), max(FEWEST_RESAMPLES, round(2 * pairs / LEVEL))),
        np.random.default_rng(0),
    )
    ranks = np.full((len(systems), 2), np.nan)
    ranks[ranked] = rank_intervals(pairwise)
    return ranks


@lru_cache(8)  # boards of a task come one after the other
def _draws(folds: tuple[int, ...], resamples: int) -> list[Resamples]:
    """Draw clips once for all boards of a task, since drawing takes most of the time."""
    return list(clip_draws(np.array(folds), np.random.default_rng(1), resamples))
