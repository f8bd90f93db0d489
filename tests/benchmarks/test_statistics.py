"""Error rates, coverage and power of the tests of two systems, for many designs: the tables of `docs/concepts/statistics.md`.

`python -m tests.benchmarks.test_statistics` prints the tables.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.special import stdtrit

from tests.benchmarks.resampling_tests import RESAMPLING_TESTS, sign_flip_p
from tests.lape_bench.report.stats.simulation import NOISE, Noise, Simulated, design, simulate

EXPERIMENTS = 4_000  # the standard error of 5 % is a third of a point
SEEDS, GROUPS = (1, 3, 10), (6, 30, 300)
BEST = 0.8  # power of a test that knows the variances
# Runs that err on clips of their own, so that neither seeds nor clips have an effect that lasts.
ALL_NOISE = {**NOISE, "coin flips": Noise(same_clips=False)}


def error_rate(simulated: Simulated) -> float:
    """Share of intervals of a difference without the true one, which is none."""
    return float((np.abs(simulated.difference.value) > simulated.difference.half_width()).mean())


def misses(simulated: Simulated) -> float:
    """Share of intervals of a score without its expectation."""
    distance = np.abs(simulated.score.value - simulated.expected)
    return float((distance > simulated.score.half_width()).mean())


def power(simulated: Simulated) -> float:
    """Power for the difference that a test which knows the variances finds with a probability of 80 %."""
    value = simulated.difference.value
    difference = 2.802 * value.std()  # 1.960 and 0.842 standard deviations
    return float((np.abs(value + difference) > simulated.difference.half_width()).mean())


def designs() -> Iterator[tuple[int, int, bool]]:
    for seeds in SEEDS:
        for groups in GROUPS:
            for unequal in (False, True):
                yield seeds, groups, unequal


@pytest.mark.parametrize(("seeds", "groups", "unequal"), designs())
def test_no_design_errs_in_more_than_6_percent(seeds: int, groups: int, unequal: bool) -> None:
    for name, noise in ALL_NOISE.items():
        if seeds == 1 and noise.runs:
            continue  # cannot be analyzed: there is no test, and the interval is said to be of this run
        simulated = simulate(design(seeds, groups, unequal), noise, EXPERIMENTS)
        # Two standard errors of a rate of 6 % are 0.75 points.
        assert error_rate(simulated) <= 0.0675, name
        assert misses(simulated) <= 0.0675, name


def tables() -> str:
    """Write error rates, misses and powers as Markdown, in percent."""
    head = [
        f"| seeds | groups | sizes | {' | '.join(ALL_NOISE)} |",
        "|---:|---:|---|" + "---:|" * len(ALL_NOISE),
    ]
    lines: dict[str, list[str]] = {title: [*head] for title in FIGURES}
    for seeds, groups, unequal in designs():
        experiments = [
            simulate(design(seeds, groups, unequal), noise, EXPERIMENTS)
            for noise in ALL_NOISE.values()
        ]
        for title, figure in FIGURES.items():
            texts = [f"{100 * figure(simulated):.1f}" for simulated in experiments]
            if seeds == 1:  # cannot be analyzed with run noise
                texts = [
                    f"({text})" if noise.runs else text
                    for text, noise in zip(texts, ALL_NOISE.values(), strict=True)
                ]
            sizes = "unequal" if unequal else "equal"
            lines[title].append(f"| {seeds} | {groups} | {sizes} | {' | '.join(texts)} |")
    return "\n".join(f"{title}\n\n" + "\n".join(rows) + "\n" for title, rows in lines.items())


FIGURES: dict[str, Callable[[Simulated], float]] = {
    "error rate of a difference": error_rate,
    "intervals of a score without its expectation": misses,
    "power": power,
}


# Other methods, as the half width of an interval.
Method = Callable[[Simulated, int], NDArray[np.float64]]


def _t(variance: NDArray[np.float64], df: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(variance) * stdtrit(df, 0.975))


def _two_way(simulated: Simulated, groups: int) -> NDArray[np.float64]:
    d = simulated.difference
    variance = np.maximum(d.seed_variance + d.group_variance - d.joint_variance, 1e-12)
    spread = d.seed_variance**2 / (d.seeds - 1) + d.group_variance**2 / (groups - 1)
    spread += d.joint_variance**2 / ((d.seeds - 1) * (groups - 1))
    return _t(variance, np.maximum(variance**2 / spread, 1))


METHODS: dict[str, Method] = {
    "clips, as if independent": lambda s, g: 1.96 * s.over_clips,
    "t over groups": lambda s, g: _t(s.difference.group_variance, g - 1),
    "t over seeds": lambda s, g: _t(s.difference.seed_variance, s.difference.seeds - 1),
    "two-way, Satterthwaite": _two_way,
    "two-way, fewest degrees of freedom": lambda s, g: _t(
        np.maximum(
            s.difference.seed_variance + s.difference.group_variance - s.difference.joint_variance,
            s.difference.group_variance,
        ),
        min(s.difference.seeds, g) - 1,
    ),
    "both sums, Satterthwaite": lambda s, g: _t(
        s.difference.seed_variance + s.difference.group_variance,
        (s.difference.seed_variance + s.difference.group_variance) ** 2
        / (
            s.difference.seed_variance**2 / (s.difference.seeds - 1)
            + s.difference.group_variance**2 / (g - 1)
        ),
    ),
    "chosen": lambda s, g: s.difference.half_width(),
}


def methods_table() -> str:
    """Compare methods by the range of their error rates over kinds of noise, and by their mean power."""
    lines = [
        "| method | " + " | ".join(f"{s} x {g}" for s in (3, 10) for g in GROUPS) + " |",
        "|---|" + "---:|" * 6,
    ]
    experiments = {
        (s, g): [simulate(design(s, g, False), n, EXPERIMENTS) for n in ALL_NOISE.values()]
        for s in (3, 10)
        for g in GROUPS
    }
    for name, method in METHODS.items():
        figures = []
        for (_, groups), simulated in experiments.items():
            rates, powers = [], []
            for each in simulated:
                value, half = each.difference.value, method(each, groups)
                rates.append(100 * (np.abs(value) > half).mean())
                powers.append(100 * (np.abs(value + 2.802 * value.std()) > half).mean())
            figures.append(f"{min(rates):.1f} to {max(rates):.1f}; {np.mean(powers):.0f}")
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return "\n".join(lines)


def test_sign_flips_are_the_permutation_test_of_scipy() -> None:
    sums = np.random.default_rng(1).normal(0.1, 0.2, (4, 6))
    expected = [
        stats.permutation_test(
            (row,), np.mean, permutation_type="samples", n_resamples=np.inf
        ).pvalue
        for row in sums
    ]
    assert sign_flip_p(sums) == pytest.approx(expected)


def resampling_table() -> str:
    """Compare tests that resample with the chosen one, as `methods_table` does."""
    cases = [(s, g, u) for s in (3, 10) for g, u in ((6, False), (6, True), (30, False))]
    titles = [f"{s} x {g}{', unequal' if u else ''}" for s, g, u in cases]
    lines = [f"| test | {' | '.join(titles)} |", "|---|" + "---:|" * len(cases)]
    columns = []
    for seeds, groups, unequal in cases:
        simulated = [
            simulate(design(seeds, groups, unequal), noise, EXPERIMENTS)
            for noise in ALL_NOISE.values()
        ]
        column = []
        for test in RESAMPLING_TESTS.values():
            rates = [100 * test(each, 0.0).mean() for each in simulated]
            powers = [
                100 * test(each, 2.802 * each.difference.value.std()).mean() for each in simulated
            ]
            column.append(f"{min(rates):.1f} to {max(rates):.1f}; {np.mean(powers):.0f}")
        columns.append(column)
    for name, *figures in zip(RESAMPLING_TESTS, *columns, strict=True):
        lines.append(f"| {name} | {' | '.join(figures)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(tables(), flush=True)
    print(methods_table(), flush=True)
    print(f"\n{resampling_table()}")
