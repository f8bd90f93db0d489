"""Intervals and ranks on a leaderboard, over the groups of its test clips and over seeds."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lape_bench.report.stats.alignment import predictions_by_seed
from lape_bench.report.stats.crossed import Array
from lape_bench.report.stats.grouped_scores import GroupedScores, compare_pairs, grouped_scores
from lape_bench.report.stats.significance import rank_intervals
from lape_bench.results.scored_cells import CellPredictions
from lape_bench.runtime.cpu_cores import available

MOST_RANKED = 200  # systems of a board: memory for its pairs


@dataclass(frozen=True)
class BoardStatistics:
    """What predictions allow to say of the systems of one board.

    Attributes:
        half_widths: half of the 95 % interval of each score, shape (systems,); over groups and seeds, or over groups alone for a
            system of one seed. NaN for a system that lacks a fold others have, if there is one group, or if nothing varies.
        ranks: best and worst rank that each system may have, shape (systems, 2); NaN for a system that cannot be compared
            with any other, such as one with one seed.
        detectable: the difference of two typical systems that such an experiment finds with a probability of 80 %, if it is the only
            one that is tested, in [0, 1]; NaN if no pair was.
        n_groups: number of groups, or of clips if predictions name no groups.
        grouped: whether the unit is the group.
    """

    half_widths: Array
    ranks: Array
    detectable: float
    n_groups: int
    grouped: bool


def statistics_of_boards(
    boards: Sequence[Sequence[pd.DataFrame]],
    metrics: Sequence[str],
    predictions: Mapping[int, CellPredictions],
) -> list[BoardStatistics | None]:
    """Return the statistics of several boards as `board_statistics` does, one board on each core."""
    # Most of the time is spent in numpy, which releases the GIL. Matrix products must not start more threads.
    with threadpool_limits(1), ThreadPoolExecutor(available()) as threads:
        return [
            *threads.map(
                lambda systems, metric: board_statistics(systems, metric, predictions),
                boards,
                metrics,
            )
        ]


def board_statistics(
    systems: Sequence[pd.DataFrame], metric: str, predictions: Mapping[int, CellPredictions]
) -> BoardStatistics | None:
    """Compare the systems of one board.

    Args:
        systems: seed and fold of each one's cells.
        metric: that the board is ranked by.
        predictions: by the index of the cells.

    Returns:
        None if there are more than `MOST_RANKED` systems, if a cell has no predictions, or if a fold was tested on different clips.
    """
    known = all(index in predictions for cells in systems for index in cells.index)
    if not known or not systems or len(systems) > MOST_RANKED:
        return None
    by_seed = [predictions_by_seed(cells, predictions) for cells in systems]
    test_folds = {test for system in by_seed for parts in system.values() for test in parts}
    if len(test_folds) > len({fold for fold, _ in test_folds}):
        return None
    grouped = grouped_scores(by_seed, metric)
    half_widths = [
        grouped.mean(system).half_width() if was_run.any() else np.nan
        for system, was_run in enumerate(grouped.was_run)
    ]
    ranks, detectable = _ranks(grouped)
    return BoardStatistics(
        np.array(half_widths, np.float64),
        ranks,
        detectable,
        grouped.clips.n_groups,
        grouped.clips.names is not None,
    )


def _ranks(grouped: GroupedScores) -> tuple[Array, float]:
    pairs = compare_pairs(grouped)
    ranks = np.full((len(grouped.scores), 2), np.nan)
    tested: NDArray[np.bool_] = np.isfinite(pairs.p) & ~np.eye(len(ranks), dtype=np.bool_)
    compared = np.flatnonzero(tested.any(axis=1))
    if not len(compared):
        return ranks, np.nan
    both = np.ix_(compared, compared)
    ranks[compared] = rank_intervals(pairs.differences[both], pairs.p[both])
    detectable = np.nan if pairs.typical is None else float(pairs.typical.detectable())
    return ranks, detectable
