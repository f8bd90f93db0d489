"""Error rates and coverage in simulated experiments: a few designs here, all of them in `tests/benchmarks/test_statistics.py`."""

import numpy as np
import pytest
from scipy import stats

from tests.lape_bench.report.stats.simulation import NOISE, Simulated, design, simulate

EXPERIMENTS = 500
# 500 experiments of a test that errs in 6 % hardly ever have as many errors as this.
MOST_ERRORS = stats.binom.ppf(0.999, EXPERIMENTS, 0.06) / EXPERIMENTS


def error_rate(simulated: Simulated) -> float:
    return float((simulated.difference.p() <= 0.05).mean())


def misses(simulated: Simulated) -> float:
    """Share of the intervals of a score that do not hold its expectation."""
    distance = np.abs(simulated.score.value - simulated.expected)
    return float((distance > simulated.score.half_width()).mean())


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize(
    ("seeds", "groups", "unequal"), [(3, 6, False), (3, 6, True), (3, 30, False), (10, 6, True)]
)
def test_a_test_errs_in_at_most_6_percent_and_an_interval_holds_its_expectation(
    seeds: int, groups: int, unequal: bool, noise: str
) -> None:
    simulated = simulate(design(seeds, groups, unequal), NOISE[noise], EXPERIMENTS)
    assert error_rate(simulated) <= MOST_ERRORS
    assert misses(simulated) <= MOST_ERRORS


def test_clips_taken_as_independent_would_be_wrong_far_more_often() -> None:
    simulated = simulate(design(3, 6, False), NOISE["both"], EXPERIMENTS)
    over_clips = np.abs(simulated.difference.value) > 1.96 * simulated.over_clips
    assert over_clips.mean() > 0.2 > error_rate(simulated)


def test_one_seed_has_no_test_and_its_interval_holds_for_that_run() -> None:
    # Without run noise that run is like any other.
    simulated = simulate(design(1, 6, False), NOISE["speaker by system"], EXPERIMENTS)
    assert np.isnan(simulated.difference.p()).all()
    assert misses(simulated) <= MOST_ERRORS
