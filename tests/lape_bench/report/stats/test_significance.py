"""Corrections, ranks and McNemar's test, held against scipy and statsmodels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar as mcnemar_of_statsmodels
from statsmodels.stats.multitest import multipletests

from lape_bench.report.stats.significance import (
    holm,
    interval_half_width,
    mcnemar,
    rank_intervals,
)


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_the_interval_of_a_mean_is_student_s_t(seeds: int) -> None:
    values = np.random.default_rng(0).random(seeds)
    low, high = stats.t.interval(0.95, seeds - 1, values.mean(), stats.sem(values))
    assert interval_half_width(values.std(ddof=1), seeds) == pytest.approx((high - low) / 2)


def test_one_seed_has_no_interval() -> None:
    assert np.isnan(interval_half_width(0.0, 1))


@settings(max_examples=25)  # statsmodels takes 40 ms
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_s_correction_is_statsmodels_s(p: list[float]) -> None:
    expected = multipletests(p, method="holm")[1]
    assert holm(np.array(p)) == pytest.approx(expected)


def test_ranks_count_who_is_told_to_be_better_and_worse() -> None:
    # 0 and 1 cannot be told apart, nor 1 and 2; 0 is better than 2, and 3 worse than all.
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    p = np.full((4, 4), 0.001)
    for i, j in [(0, 1), (1, 2)]:
        p[i, j] = p[j, i] = 0.5
    ranks = rank_intervals(scores[:, None] - scores[None], p)
    assert ranks.tolist() == [[1, 2], [1, 3], [2, 3], [4, 4]]


def test_ranks_are_told_after_correction_for_the_number_of_pairs() -> None:
    p = np.array([[np.nan, 0.02, 0.9], [0.02, np.nan, 0.9], [0.9, 0.9, np.nan]])
    differences = np.array([[0, 0.1, 0.1], [-0.1, 0, 0], [-0.1, 0, 0]])
    # 3 x 0.02 is above 0.05; with the two pairs of a system that was run with other seeds left out it is not.
    assert rank_intervals(differences, p).tolist() == [[1, 3]] * 3
    p[2], p[:, 2] = np.nan, np.nan
    assert rank_intervals(differences, p).tolist() == [[1, 2], [2, 3], [1, 3]]


@pytest.mark.parametrize(
    ("only_a", "only_b"),
    [(0, 0), (1, 0), (3, 9), (12, 12), (5, 19), (5, 20), (30, 31), (80, 40)],
    ids=str,
)
def test_mcnemar_s_test_is_statsmodels_s(only_a: int, only_b: int) -> None:
    a = np.repeat([True, False, True, False], [only_a, only_b, 7, 5])
    b = np.repeat([False, True, True, False], [only_a, only_b, 7, 5])
    expected = mcnemar_of_statsmodels(
        [[7, only_a], [only_b, 5]], exact=only_a + only_b < 25, correction=True
    )
    assert mcnemar(a, b) == (only_a, only_b, pytest.approx(min(1, expected.pvalue)))
    assert mcnemar(b, a) == (only_b, only_a, mcnemar(a, b).p)
