"""Power of the test over groups and seeds: statsmodels' where only one of them varies, and by properties."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from lape_bench.report.stats.crossed import CrossedMean
from lape_bench.report.stats.power import (
    Experiment,
    Spread,
    detectable,
    groups_needed,
    observed_spread,
    planned_spread,
    power,
    power_over_tasks,
    seeds_needed,
    tasks_needed,
)
from tests.lape_bench.report.stats.test_board_statistics import write_right

Bench = Callable[..., tuple[int, str, str]]
STD = 0.05


@pytest.mark.parametrize("number", [3, 6, 30])
def test_if_one_source_alone_varies_power_is_that_of_the_t_test(number: int) -> None:
    expected = TTestPower().power(0.04 / STD, number, 0.05)
    groups_vary = power(Spread(0, STD, 0), Experiment(4, number), 0.04)
    seeds_vary = power(Spread(STD, 0, 0), Experiment(number, 40), 0.04)
    assert groups_vary == pytest.approx(expected, abs=0.02)
    assert seeds_vary == pytest.approx(expected, abs=0.02)
    assert power_over_tasks(STD, number, 0.04) == pytest.approx(expected, abs=1e-6)


def test_no_difference_is_found_in_a_twentieth_of_experiments_at_most() -> None:
    for spread in (Spread(STD, 0, 0), Spread(0, STD, 0), Spread(STD, STD, STD), Spread(0, 0, STD)):
        for experiment in (Experiment(3, 6), Experiment(10, 30)):
            assert power(spread, experiment, 0) < 0.06


def test_numbers_needed_are_the_fewest_that_have_the_power() -> None:
    spread = Spread(0.02, 0.03, 0.05)
    seeds = seeds_needed(spread, 60, 0.03, 0.8)
    groups = groups_needed(spread, 10, 0.03, 0.8)
    tasks = tasks_needed(0.04, 0.03, 0.8)
    assert seeds is not None
    assert groups is not None
    assert tasks is not None
    assert power(spread, Experiment(seeds, 60), 0.03) >= 0.8 > power(spread, Experiment(seeds - 1, 60), 0.03)  # fmt: skip
    assert power(spread, Experiment(10, groups), 0.03) >= 0.8 > power(spread, Experiment(10, groups - 1), 0.03)  # fmt: skip
    expected = TTestPower().solve_power(0.03 / 0.04, alpha=0.05, power=0.8)
    assert tasks == np.ceil(expected)


def test_seeds_cannot_make_up_for_groups_nor_groups_for_seeds() -> None:
    assert seeds_needed(Spread(0.01, 0.2, 0), 6, 0.02, 0.8) is None
    assert groups_needed(Spread(0.2, 0.01, 0), 3, 0.02, 0.8) is None


def test_the_detectable_difference_has_the_power() -> None:
    spread, experiment = Spread(0.02, 0.03, 0.05), Experiment(5, 20)
    found = detectable(spread, experiment, 0.8)
    assert power(spread, experiment, found) >= 0.8 > power(spread, experiment, found - 2e-4)


def test_a_spread_that_was_measured_is_the_one_that_made_the_variances() -> None:
    seeds, groups, rest = 0.04, 0.05, 0.1
    joint = rest**2 / (4 * 20)
    mean = CrossedMean(
        np.array(0.0),
        np.array(seeds**2 / 4 + joint),
        np.array(groups**2 / 20 + joint),
        np.array(joint),
        4,
        19,
    )
    assert observed_spread(mean) == pytest.approx((seeds, groups, rest))


def test_a_planned_spread_is_that_of_two_independent_shares() -> None:
    random = np.random.default_rng(0)
    shares = random.binomial(25, 0.8, (2, 100_000)) / 25
    assert planned_spread(0, 0, 0.8, 25).rest == pytest.approx(
        (shares[0] - shares[1]).std(), rel=0.01
    )


def test_the_command_takes_the_spread_from_records(tmp_path: Path, bench: Bench) -> None:
    random = np.random.default_rng(0)
    groups = np.repeat([f"g{n}" for n in range(12)], 10).tolist()
    for task in ("t", "u"):
        for system, accuracy in (("a", 0.8), ("b", 0.7)):
            for seed in range(4):
                right = random.random(120) < accuracy
                write_right(tmp_path, system, right, seed, groups=groups, task=task)
    out = ["--out", str(tmp_path)]
    code, text, _ = bench(
        "power", "a", "b", "--task", "t", "--task", "u", "--difference", "5", *out
    )
    assert code == 0
    assert "t: what a difference of 5 points needs" in text
    assert "seeds, with 12 groups" in text
    assert "4 seeds and 12 groups: the test has " in text
    assert "these numbers are rough" in text
    assert "over tasks like these" in text
    write_right(tmp_path / "one", "a", np.arange(50) < 40)
    write_right(tmp_path / "one", "b", np.arange(50) < 30)
    code, _, error = bench("power", "a", "b", "--task", "t", "--out", str(tmp_path / "one"))
    assert code == 2
    assert "have one seed on t, which does not show how seeds differ" in error


def test_a_plan_needs_no_records_and_excludes_them(bench: Bench) -> None:
    code, text, _ = bench("power", "--plan", "--seeds", "5", "--groups", "40", "--clips", "50")
    assert code == 0
    assert "plan: what a difference of 2 points needs" in text
    assert "5 seeds and 40 groups: the test would have " in text
    for words in (("power",), ("power", "--plan", "a", "b")):
        code, _, error = bench(*words)
        assert code == 2
        assert "name two systems and a task, or give --plan" in error
    assert bench("power", "a", "b")[0] == 2
