"""Means over seeds and groups: against scipy and statsmodels where these have them, by hand elsewhere, and by properties."""

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.weightstats import ttost_paired

from lape_bench.report.stats.crossed import (
    CrossedMean,
    GroupSizes,
    crossed_mean,
    mean_over_tasks,
)

Array = NDArray[np.float64]


def of_sizes(sizes: list[int]) -> GroupSizes:
    """Groups of so many clips, which all weigh the same."""
    counts = np.array(sizes, np.float64)
    return GroupSizes(counts / counts.sum(), counts / counts.sum() ** 2)


def mean_of(values: Array, sizes: list[int]) -> CrossedMean:
    """The mean of clips, shape (seeds, clips), whose groups have these sizes."""
    groups = of_sizes(sizes)
    scores = values.mean(axis=1)
    edges = np.cumsum([0, *sizes[:-1]])
    residuals = np.add.reduceat(values - scores[:, None], edges, axis=1) / values.shape[1]
    return crossed_mean(scores, groups.deviations(residuals), groups.degrees_of_freedom)


def drawn(seeds: int, sizes: list[int], seed: int = 0, speakers: float = 0.5) -> Array:
    random = np.random.default_rng(seed)
    of_groups = np.repeat(random.normal(0, speakers, len(sizes)), sizes)
    return random.normal(0.3, 1, (seeds, sum(sizes))) + of_groups


@pytest.mark.parametrize("groups", [2, 6, 40])
def test_equal_groups_have_one_degree_of_freedom_less_than_their_number(groups: int) -> None:
    assert of_sizes([5] * groups).degrees_of_freedom == pytest.approx(groups - 1)


@pytest.mark.parametrize(
    "sizes", [[250, 150, 90, 60, 30, 20], [3, 1, 1], [300] + [10] * 29], ids=str
)
def test_unequal_groups_have_bell_and_mccaffrey_s_degrees_of_freedom(sizes: list[int]) -> None:
    assert of_sizes(sizes).degrees_of_freedom == pytest.approx(bell_mccaffrey(sizes))


def bell_mccaffrey(sizes: list[int]) -> float:
    """Compute the degrees of freedom from their definition, with matrices.

    Residuals of the regression on a constant, each cluster's multiplied by (I - H)^(-1/2), in a quadratic form whose
    eigenvalues give Satterthwaite's degrees of freedom.
    """
    clips = sum(sizes)
    hat = np.full((clips, clips), 1 / clips)
    columns, start = [], 0
    for size in sizes:
        own = slice(start, start + size)
        values, vectors = np.linalg.eigh(np.eye(size) - hat[own, own])
        root = vectors @ np.diag(values**-0.5) @ vectors.T
        columns.append((np.eye(clips) - hat)[own].T @ root @ np.full(size, 1 / clips))
        start += size
    eigenvalues = np.linalg.eigvalsh(np.stack(columns).T @ np.stack(columns))
    return float(eigenvalues.sum() ** 2 / (eigenvalues**2).sum())


def test_one_seed_of_equal_groups_is_statsmodels_s_cluster_robust_regression_on_a_constant() -> (
    None
):
    sizes = [20] * 6
    values = drawn(1, sizes)
    mean = mean_of(values, sizes)
    groups = np.repeat(np.arange(6), sizes)
    # Its correction is G / (G - 1) times (N - 1) / (N - 1), and the jackknife's for equal groups G / (G - 1).
    fit = sm.OLS(values[0], np.ones(120)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    by_group = values[0].reshape(6, 20).mean(axis=1)
    assert float(mean.group_variance) == pytest.approx(by_group.var(ddof=1) / 6)
    assert float(mean.group_variance) == pytest.approx(fit.bse[0] ** 2)
    low, high = stats.t.interval(0.95, 5, by_group.mean(), stats.sem(by_group))
    assert float(mean.half_width()) == pytest.approx((high - low) / 2)


def test_the_variance_over_groups_is_the_jackknife_that_leaves_out_a_group_at_a_time() -> None:
    sizes = [9, 1, 4, 6]
    values = drawn(2, sizes)
    groups = np.repeat(np.arange(4), sizes)
    without = np.array([values[:, groups != group].mean() for group in range(4)])
    expected = 3 / 4 * ((without - values.mean()) ** 2).sum()
    assert float(mean_of(values, sizes).group_variance) == pytest.approx(expected)


def test_if_every_clip_is_a_group_of_its_own_one_seed_is_student_s_t_over_clips() -> None:
    values = drawn(1, [1] * 30)
    low, high = stats.t.interval(0.95, 29, values.mean(), stats.sem(values[0]))
    assert float(mean_of(values, [1] * 30).half_width()) == pytest.approx((high - low) / 2)


def test_variances_are_the_mean_squares_of_a_two_way_table() -> None:
    seeds, groups, clips = 4, 6, 10
    values = drawn(seeds, [clips] * groups)
    table = values.reshape(seeds, groups, clips).mean(axis=2)
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    mean = mean_of(values, [clips] * groups)
    assert float(mean.seed_variance) == pytest.approx(table.mean(axis=1).var(ddof=1) / seeds)
    assert float(mean.group_variance) == pytest.approx(table.mean(axis=0).var(ddof=1) / groups)
    joint = (rest**2).sum() / ((seeds - 1) * (groups - 1)) / (seeds * groups)
    assert float(mean.joint_variance) == pytest.approx(joint)


def test_seeds_and_groups_together_are_a_two_way_analysis_of_variance_with_satterthwaite_s_df() -> (
    None
):
    seeds, groups = 5, 8
    random = np.random.default_rng(3)
    effects = random.normal(0, 1, (seeds, 1)) + random.normal(0, 2, groups)
    table = 1 + effects + random.normal(0, 1, (seeds, groups))
    seed, group = np.indices(table.shape)
    columns = {"value": table.ravel(), "seed": seed.ravel(), "group": group.ravel()}
    squares = sm.stats.anova_lm(ols("value ~ C(seed) + C(group)", columns).fit())["mean_sq"]
    of_seeds = (squares["C(seed)"] - squares["Residual"]) / table.size
    of_groups = squares["C(group)"] / table.size
    error = np.sqrt(of_seeds + of_groups)
    df = error**4 / (of_seeds**2 / (seeds - 1) + of_groups**2 / (groups - 1))
    mean = mean_of(table, [1] * groups)
    half = float(mean.half_width())
    assert half == pytest.approx(stats.t.ppf(0.975, df) * error)
    assert float(mean.p()) == pytest.approx(2 * stats.t.sf(abs(table.mean()) / error, df))
    # Student's t over seeds, which intervals must not be narrower than, is not what decides here.
    assert half > 1.05 * stats.t.ppf(0.975, seeds - 1) * stats.sem(table.mean(axis=1))


def test_runs_that_do_not_vary_are_the_paired_t_test_over_groups_and_statsmodels_s_tost() -> None:
    by_group = np.array([0.04, -0.01, 0.03, 0.02, 0.00, 0.05])
    values = np.tile(np.repeat(by_group, 10), (3, 1))
    mean = mean_of(values, [10] * 6)
    assert float(mean.p()) == pytest.approx(stats.ttest_1samp(by_group, 0).pvalue)
    p, above, below = ttost_paired(by_group, np.zeros(6), -0.04, 0.04)
    assert float(mean.p_above(-0.04)) == pytest.approx(above[1])
    assert float(mean.p_below(0.04)) == pytest.approx(below[1])
    assert max(float(mean.p_above(-0.04)), float(mean.p_below(0.04))) == pytest.approx(p)


def test_groups_that_do_not_vary_are_the_t_test_over_seeds() -> None:
    of_seeds = np.array([0.03, 0.01, 0.04])
    values = np.repeat(of_seeds[:, None], 60, axis=1)
    mean = mean_of(values, [10] * 6)
    expected = stats.ttest_1samp(of_seeds, 0)
    assert float(mean.p()) == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert float(mean.half_width()) == pytest.approx((high - low) / 2)


@settings(max_examples=30)
@given(
    seeds=st.integers(2, 5),
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=8),
    seed=st.integers(0, 99),
)
def test_an_interval_is_never_narrower_than_student_s_t_over_seeds_and_fits_its_p(
    seeds: int, sizes: list[int], seed: int
) -> None:
    values = drawn(seeds, sizes, seed)
    mean = mean_of(values, sizes)
    scores = values.mean(axis=1)
    over_seeds = stats.t.ppf(0.975, seeds - 1) * stats.sem(scores)
    half = float(mean.half_width())
    assert half >= over_seeds * (1 - 1e-9)
    assert (float(mean.p()) <= 0.05) == (abs(float(mean.value)) >= half)
    # The p of a mean at the edge of its interval is the level.
    moved = mean_of(values - scores.mean() + half, sizes)
    assert float(moved.p()) == pytest.approx(0.05, abs=1e-6)
    other = mean_of(-values, sizes)
    assert float(other.half_width()) == pytest.approx(half)
    assert float(other.p()) == pytest.approx(float(mean.p()))


def test_the_order_of_seeds_and_groups_does_not_matter() -> None:
    sizes = [4, 7, 9]
    values = drawn(3, sizes)
    parts = np.split(values, [4, 11], axis=1)
    turned = np.concatenate([parts[2], parts[0], parts[1]], axis=1)[::-1]
    assert float(mean_of(turned, [9, 4, 7]).p()) == pytest.approx(float(mean_of(values, sizes).p()))


def test_one_seed_or_one_group_allows_no_test() -> None:
    for mean in (
        mean_of(drawn(1, [5] * 4), [5] * 4),
        crossed_mean(np.array([0.1, 0.2]), np.zeros((2, 1)), np.nan),
    ):
        assert not mean.testable
        for p in (mean.p(), mean.p_above(-0.1), mean.p_below(0.1), mean.detectable()):
            assert np.isnan(p)
    assert float(mean_of(drawn(1, [5] * 4), [5] * 4).half_width()) > 0
    assert np.isnan(crossed_mean(np.array([0.1, 0.2]), np.zeros((2, 1)), np.nan).half_width())


def test_equal_systems_have_p_1_and_what_does_not_vary_has_neither_test_nor_interval() -> None:
    alike = mean_of(np.zeros((2, 20)), [5] * 4)
    assert float(alike.p()) == 1
    assert np.isnan(alike.half_width())
    apart = mean_of(np.ones((2, 20)), [5] * 4)
    assert np.isnan(apart.p())


def test_a_detectable_difference_is_found_with_the_power_that_it_says() -> None:
    # Groups alone vary, so that power is that of a t-test, which statsmodels knows.
    by_group = np.random.default_rng(0).normal(0, 0.05, 12)
    mean = mean_of(np.tile(by_group, (3, 1)), [1] * 12)
    effect = float(mean.detectable()) / by_group.std(ddof=1)
    power = sm.stats.TTestPower().power(effect, 12, 0.05)
    assert power == pytest.approx(0.8, abs=0.001)


def test_a_mean_over_tasks_is_that_of_the_groups_of_all_tasks_together() -> None:
    tables = [drawn(3, [1] * 8, seed=1), drawn(3, [1] * 8, seed=2)]
    means = [mean_of(table, [1] * 8) for table in tables]
    scores = np.stack([table.mean(axis=1) for table in tables])
    over = mean_over_tasks(means, scores, ["a", "b"])
    assert float(over.value) == pytest.approx(np.mean(tables))
    assert float(over.seed_variance) == pytest.approx(scores.mean(axis=0).var(ddof=1) / 3)
    by_group = [table.mean(axis=0).var(ddof=1) / 8 for table in tables]
    assert float(over.group_variance) == pytest.approx(sum(by_group) / 4)
    # Welch and Satterthwaite's, as of the t-test of two samples with unequal variances.
    expected = stats.ttest_ind(tables[0].mean(axis=0), tables[1].mean(axis=0), equal_var=False).df
    assert over.group_df == pytest.approx(expected)
    assert float(over.joint_variance) == pytest.approx(
        sum(float(mean.joint_variance) for mean in means) / 4
    )


def test_a_task_that_is_named_twice_says_no_more_than_once() -> None:
    table = drawn(3, [1] * 8, seed=1)
    once = mean_of(table, [1] * 8)
    scores = np.stack([table.mean(axis=1)] * 2)
    twice = mean_over_tasks([once, once], scores, ["a", "a"])
    assert float(twice.group_variance) == pytest.approx(float(once.group_variance))
    assert float(twice.joint_variance) == pytest.approx(float(once.joint_variance))
    assert float(twice.group_df) == pytest.approx(float(once.group_df))
    assert float(twice.p()) == pytest.approx(float(once.p()))


def test_tasks_of_the_same_groups_err_together() -> None:
    """With the same speakers in three tasks, and no difference, a test at 5 % is wrong in at most 6 %."""
    random = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        shared = random.normal(0, 0.05, 12)
        tables = [shared + random.normal(0, 0.01, (5, 12)) for _ in range(3)]
        means = [mean_of(table, [1] * 12) for table in tables]
        scores = np.stack([table.mean(axis=1) for table in tables])
        wrong += float(mean_over_tasks(means, scores, ["a"] * 3).p()) <= 0.05
    assert wrong / 400 <= 0.08  # two standard errors above 6 %
