"""Average ranks over tasks, by hand, from scipy and from published tables."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lape_bench.errors import UserError
from lape_bench.report.average_ranks import average_ranks, critical_difference, over_tasks

from .test_ranks import write_right

Bench = Callable[..., tuple[int, str, str]]


def test_ranks_are_shared_by_ties_and_averaged_over_tasks() -> None:
    found = average_ranks(np.array([[0.9, 0.5], [0.8, 0.5], [0.7, 0.9]]))
    assert found.ranks.tolist() == [(1 + 2.5) / 2, (2 + 2.5) / 2, (3 + 1) / 2]


def test_friedman_s_test_is_the_formula_of_demsar() -> None:
    scores = np.random.default_rng(0).random((4, 9))
    found = average_ranks(scores)
    chi_squared = 12 * 9 / (4 * 5) * ((found.ranks**2).sum() - 4 * 5**2 / 4)
    assert found.statistic == pytest.approx(chi_squared)
    assert found.p == pytest.approx(stats.chi2.sf(chi_squared, 3))


@pytest.mark.parametrize(
    ("systems", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)]
)
def test_the_critical_difference_has_the_q_of_demsar_s_table_5(systems: int, q: float) -> None:
    expected = q * np.sqrt(systems * (systems + 1) / (6 * 14))
    assert critical_difference(systems, 14) == pytest.approx(expected, abs=1e-3)


def test_cliques_are_the_largest_sets_within_the_critical_difference() -> None:
    # Five systems in this order on every one of 30 tasks: ranks 1 to 5, critical difference 1.11.
    scores = np.tile(np.array([[0.1], [0.5], [0.4], [0.3], [0.2]]), 30)
    found = average_ranks(scores)
    assert 1 < found.critical_difference < 2
    assert found.cliques == ((1, 2), (2, 3), (3, 4), (4, 0))


def test_systems_that_are_alike_everywhere_are_one_clique() -> None:
    found = average_ranks(np.full((4, 5), 0.5))
    assert found.cliques == ((0, 1, 2, 3),)
    assert (found.statistic, found.p) == (0, 1)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(systems=st.integers(3, 8), tasks=st.integers(2, 30), seed=st.integers(0, 999))
def test_two_systems_share_a_clique_exactly_when_they_are_near(
    systems: int, tasks: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    found = average_ranks(random.random((systems, tasks)) + np.linspace(0, 0.5, systems)[:, None])
    for i in range(systems):
        for j in range(i):
            near = abs(found.ranks[i] - found.ranks[j]) < found.critical_difference
            assert near == any({i, j} <= set(clique) for clique in found.cliques)
    sets = [set(clique) for clique in found.cliques]
    assert not any(one < other for one in sets for other in sets)


@pytest.mark.parametrize("shape", [(2, 5), (3, 1)], ids=str)
def test_too_little_to_rank_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least 3 systems on 2 tasks"):
        average_ranks(np.zeros(shape))


def board_of(scores: dict[str, list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"task": task, "system": system, "score": score, "complete": True}
            for task, column in scores.items()
            for system, score in zip("abc", column, strict=False)
        ]
    )


def test_tasks_that_a_system_lacks_are_left_out_by_name() -> None:
    found = over_tasks(board_of({"x": [0.9, 0.8, 0.7], "y": [0.6, 0.7, 0.5], "z": [0.1, 0.2]}))
    assert (found.systems, found.tasks, found.left_out) == (("a", "b", "c"), ("x", "y"), ("z",))
    assert found.average.ranks.tolist() == [1.5, 1.5, 3]


def test_a_task_of_which_a_system_lacks_folds_is_left_out() -> None:
    board = board_of({name: [0.9, 0.8, 0.7] for name in "xyz"})
    board.loc[(board["task"] == "y") & (board["system"] == "b"), "complete"] = False
    assert over_tasks(board).left_out == ("y",)


def test_systems_with_too_few_tasks_in_common_are_not_ranked() -> None:
    with pytest.raises(UserError, match=r"3 systems have 1 tasks in common; average ranks need 3 "):
        over_tasks(board_of({"x": [0.9, 0.8, 0.7], "y": [0.6, 0.7]}))


def test_the_command_ranks_over_tasks_and_sums_up_label_fractions(
    bench: Bench, tmp_path: Path
) -> None:
    for task in ("t", "u", "v"):
        for number, system in enumerate(("good", "fine", "bad")):
            write_right(tmp_path, system, np.arange(10) < 9 - number, task=task)
    write_right(tmp_path, "good", np.arange(10) < 5, task="t", label_fraction=0.1)
    write_right(tmp_path, "other", np.arange(10) < 5, task="w")
    write_right(tmp_path, "half", np.arange(10) < 5, task="u", fold=1, folds=2)
    words = ["--system", "good", "--system", "fine", "--system", "bad", "--out", str(tmp_path)]
    code, out, err = bench("ranks", *words)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["linear,", "1", "of", "the", "labels:", "t,", "u,", "v"]
    # The critical difference of 3 systems on 3 tasks is 1.91: good and bad are 2 apart.
    assert lines[2:5] == [["good", "1.00", "a"], ["fine", "2.00", "ab"], ["bad", "3.00", "b"]]
    assert "critical difference 1.91" in out
    assert lines[-1] == ["t,", "linear", "good", "0.1", "to", "1", "70.00"]
    assert "left out: fine on t, linear, lacks 0.1" in err
    code, _, err = bench("ranks", "--out", str(tmp_path))
    assert "left out: linear, 1 of the labels: 4 systems have 0 tasks in common" in err
    assert "left out: half on u, linear: 1 of 2 folds" in err
    code, _, err = bench("ranks", "--system", "god", "--out", str(tmp_path))
    assert code == 2
    assert "there is no system with results 'god': did you mean 'good'?" in err
