"""Error rates, coverage and power in simulated experiments: some designs here, all in `tests/benchmarks/test_statistics.py`."""

import numpy as np
import pytest
from scipy import stats

from tests.lape_bench.report.stats.simulation import NOISE, Simulated, design, simulate

EXPERIMENTS = 500
# Of a rate of 6 % this many errors, or more, come by chance in one simulation of a thousand; of 4 % so few.
MOST_ERRORS = stats.binom.ppf(0.999, EXPERIMENTS, 0.06) / EXPERIMENTS
FEWEST_ERRORS = stats.binom.ppf(0.001, EXPERIMENTS, 0.04) / EXPERIMENTS


def error_rate(simulated: Simulated) -> float:
    return float((simulated.difference.p() <= 0.05).mean())


def misses(simulated: Simulated) -> float:
    """Share of the intervals of a score that do not hold its expectation."""
    distance = np.abs(simulated.score.value - simulated.expected)
    return float((distance > simulated.score.half_width()).mean())


def interval_errors(simulated: Simulated) -> float:
    """Share of the intervals of a difference that do not hold the true one, which is none."""
    return float((np.abs(simulated.difference.value) > simulated.difference.half_width()).mean())


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("unequal", [False, True], ids=["equal", "unequal"])
@pytest.mark.parametrize(("seeds", "groups"), [(3, 6), (3, 30), (10, 6), (10, 30)])
def test_a_test_errs_in_at_most_6_percent_and_an_interval_holds_its_expectation(
    seeds: int, groups: int, unequal: bool, noise: str
) -> None:
    simulated = simulate(design(seeds, groups, unequal), NOISE[noise], EXPERIMENTS)
    assert error_rate(simulated) <= MOST_ERRORS
    assert interval_errors(simulated) == error_rate(simulated)
    assert misses(simulated) <= MOST_ERRORS


@pytest.mark.parametrize("noise", ["run noise", "speaker by system", "both"])
def test_with_ten_seeds_and_equal_groups_intervals_are_no_wider_than_they_have_to_be(
    noise: str,
) -> None:
    simulated = simulate(design(10, 6, False), NOISE[noise], EXPERIMENTS)
    assert error_rate(simulated) >= FEWEST_ERRORS
    assert misses(simulated) >= FEWEST_ERRORS


@pytest.mark.parametrize("noise", ["independent", "speaker by system"])
@pytest.mark.parametrize("unequal", [False, True], ids=["equal", "unequal"])
@pytest.mark.parametrize("groups", [6, 30])
def test_one_seed_has_no_test_and_its_intervals_hold_for_runs_like_it(
    groups: int, unequal: bool, noise: str
) -> None:
    # Without run noise that run is like any other.
    simulated = simulate(design(1, groups, unequal), NOISE[noise], EXPERIMENTS)
    assert np.isnan(simulated.difference.p()).all()
    for errors in (misses(simulated), interval_errors(simulated)):
        assert errors <= MOST_ERRORS
        # Groups of unequal size have fewer degrees of freedom than they may need.
        assert unequal or errors >= FEWEST_ERRORS


def test_clips_taken_as_independent_would_be_wrong_far_more_often() -> None:
    simulated = simulate(design(3, 6, False), NOISE["both"], EXPERIMENTS)
    over_clips = np.abs(simulated.difference.value) > 1.96 * simulated.over_clips
    assert over_clips.mean() > 0.2 > error_rate(simulated)


def test_a_difference_that_can_be_seen_is_found() -> None:
    simulated = simulate(design(10, 30, False), NOISE["both"], EXPERIMENTS)
    value, half = simulated.difference.value, simulated.difference.half_width()
    # 80 % is the best possible for this difference, and the whole simulation gives 78 %.
    found = int((np.abs(value + 2.802 * value.std()) > half).sum())
    assert found >= stats.binom.ppf(0.001, EXPERIMENTS, 0.75)
