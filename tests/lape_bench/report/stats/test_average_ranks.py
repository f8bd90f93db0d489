"""Average ranks over tasks, by hand, from scipy and from published tables."""

from collections.abc import Callable
from itertools import combinations, permutations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lape_bench.core.errors import UserError
from lape_bench.report.stats.average_ranks import (
    as_text,
    average_ranks,
    critical_difference,
    rank_over_tasks,
    with_common_tasks,
)
from tests.lape_bench.report.stats.test_board_statistics import write_right

Bench = Callable[..., tuple[int, str, str]]


def test_ranks_are_shared_by_ties_and_averaged_over_tasks() -> None:
    found = average_ranks(np.array([[0.9, 0.5], [0.8, 0.5], [0.7, 0.9]]))
    assert found.ranks.tolist() == [(1 + 2.5) / 2, (2 + 2.5) / 2, (3 + 1) / 2]


def test_means_of_the_same_scores_in_another_order_are_a_tie() -> None:
    mean = np.mean([0.1, 0.2, 0.3]), np.mean([0.3, 0.2, 0.1])
    assert mean[0] != mean[1]
    found = average_ranks(np.array([[mean[0], 0.5], [mean[1], 0.5], [0.1, 0.4]]))
    assert found.ranks.tolist() == [1.5, 1.5, 3]
    same = average_ranks(np.array([[mean[0]] * 2, [mean[1]] * 2, [mean[0]] * 2]))
    assert (same.ranks.tolist(), same.p) == ([2, 2, 2], 1)


def test_friedman_s_test_is_the_formula_of_demsar() -> None:
    scores = np.random.default_rng(0).random((4, 9))
    found = average_ranks(scores)
    chi_squared = 12 * 9 / (4 * 5) * ((found.ranks**2).sum() - 4 * 5**2 / 4)
    assert found.statistic == pytest.approx(chi_squared)
    assert found.p == pytest.approx(stats.chi2.sf(chi_squared, 3))


def test_three_systems_in_one_order_on_three_tasks_have_the_exact_p() -> None:
    found = average_ranks(np.tile(np.array([[0.1], [0.3], [0.2]]), 3))
    assert found.p == pytest.approx(6 / 6**3), "chi-squared says 0.0498"


@pytest.mark.parametrize("ties", [False, True])
def test_of_few_tasks_p_is_the_share_of_all_orders_that_are_at_least_as_far_apart(
    ties: bool,
) -> None:
    scores = np.random.default_rng(3).random((3, 4))
    scores = scores.round(1) if ties else scores
    by_task = stats.rankdata(-scores, axis=0).T
    spreads = [np.var(np.sum(each, axis=0)) for each in product(*map(permutations, by_task))]
    expected = np.mean(np.array(spreads) >= np.var(by_task.sum(axis=0)) - 1e-9)
    assert average_ranks(scores).p == pytest.approx(expected)


def test_of_more_orders_than_can_be_listed_some_are_drawn_always_the_same() -> None:
    scores = np.random.default_rng(1).random((7, 4)) + np.linspace(0, 0.4, 7)[:, None]
    found = average_ranks(scores)
    assert found.p == average_ranks(scores).p
    assert found.p == pytest.approx(stats.friedmanchisquare(*scores).pvalue, rel=0.3)
    apart = average_ranks(np.tile(np.arange(7.0)[:, None], 4))
    assert as_text(apart).startswith("over tasks: Friedman p < 0.0001; critical difference ")


def test_on_too_few_tasks_to_find_anything_nothing_is_said_to_be_alike() -> None:
    found = average_ranks(np.array([[0.9, 0.9], [0.8, 0.8], [0.1, 0.1]]))
    assert found.p == found.least_p == pytest.approx(1 / 6)
    assert as_text(found) == (
        "no ranks of 3 systems on so few tasks could be significant (Friedman p is at least 0.17)"
    )
    assert average_ranks(np.tile(np.arange(3.0)[:, None], 3)).least_p == pytest.approx(1 / 36)


def test_letters_are_said_to_mean_nothing_where_friedman_s_test_finds_nothing() -> None:
    found = average_ranks(np.array([[0.9, 0.5, 0.3], [0.8, 0.6, 0.2], [0.7, 0.9, 0.5]]))
    told = "above 0.05, so no difference is significant, whatever the critical difference"
    assert told in as_text(found)
    assert told not in as_text(average_ranks(np.tile(np.arange(3.0)[:, None], 9)))


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


@settings(max_examples=40)
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
    found = rank_over_tasks(board_of({"x": [0.9, 0.8, 0.7], "y": [0.6, 0.7, 0.5], "z": [0.1, 0.2]}))
    assert (found.systems, found.tasks, found.left_out) == (("a", "b", "c"), ("x", "y"), ("z",))
    assert found.average.ranks.tolist() == [1.5, 1.5, 3]


def test_a_task_of_which_a_system_lacks_folds_is_left_out() -> None:
    board = board_of({name: [0.9, 0.8, 0.7] for name in "xyz"})
    board.loc[(board["task"] == "y") & (board["system"] == "b"), "complete"] = False
    assert rank_over_tasks(board).left_out == ("y",)


def test_systems_with_too_few_tasks_in_common_are_not_ranked() -> None:
    with pytest.raises(UserError, match=r"3 systems have 1 task in common; average ranks need 3 "):
        rank_over_tasks(board_of({"x": [0.9, 0.8, 0.7], "y": [0.6, 0.7]}))
    with pytest.raises(UserError, match=r"^1 system has 2 tasks; .*run more systems on the same "):
        rank_over_tasks(board_of({"x": [0.9], "y": [0.6]}))


def test_of_systems_with_too_few_common_tasks_it_is_said_which_could_be_ranked() -> None:
    board = board_of({"x": [0.9, 0.8, 0.7], "y": [0.6, 0.7, 0.5]})
    other = board_of({"z": [0.4]}).assign(system="d")
    with pytest.raises(UserError, match=r"0 tasks in common; .*same tasks, such as a, b and c"):
        rank_over_tasks(pd.concat([board, other]))


@settings(max_examples=60)
@given(st.lists(st.sets(st.sampled_from("vwxyz"), min_size=1), min_size=1, max_size=6))
def test_no_other_choice_of_systems_has_more_figures(done: list[set[str]]) -> None:
    board = pd.DataFrame(
        [
            {"task": task, "system": f"s{number}", "score": 0.5, "complete": True}
            for number, tasks in enumerate(done)
            for task in tasks
        ]
    )
    choices = {
        tuple(f"s{n}" for n in members): len(members) * len(common)
        for size in range(3, len(done) + 1)
        for members in combinations(range(len(done)), size)
        if len(common := set.intersection(*(done[n] for n in members))) >= 2
    }
    everyone = tuple(f"s{n}" for n in range(len(done)))
    chosen = with_common_tasks(board)
    if everyone in choices:
        assert chosen == everyone
    else:
        assert choices.get(chosen, 0) == max(choices.values(), default=0)
        assert (chosen == ()) == (not choices)


def test_the_command_ranks_over_tasks_and_sums_up_label_budgets(
    bench: Bench, tmp_path: Path
) -> None:
    for task in ("t", "u", "v"):
        for number, system in enumerate(("good", "fine", "bad")):
            write_right(tmp_path, system, np.arange(10) < 9 - number, task=task)
    write_right(tmp_path, "good", np.arange(10) < 5, task="t", labels="10%")
    write_right(tmp_path, "other", np.arange(10) < 5, task="w")
    write_right(tmp_path, "half", np.arange(10) < 5, task="u", fold=1, folds=2)
    words = ["--system", "good", "--system", "fine", "--system", "bad", "--out", str(tmp_path)]
    code, out, err = bench("ranks", *words)
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["linear,", "all", "labels:", "t,", "u,", "v"]
    # The critical difference of 3 systems on 3 tasks is 1.91: good and bad are 2 apart.
    assert lines[2:5] == [["good", "1.00", "a"], ["fine", "2.00", "ab"], ["bad", "3.00", "b"]]
    assert "critical difference 1.91" in out
    assert lines[-1] == ["t,", "linear", "good", "10%", "to", "100%", "1", "70.0"]
    assert "left out: fine on t, linear, lacks 10%" in err
    every, ranked = bench("ranks", "--out", str(tmp_path)), out
    assert every[:2] == (0, ranked)
    err = every[2]
    assert "linear, all labels, for too few tasks in common with the others: other\n" in err
    assert "left out: half on u, linear: 1 of 2 folds" in err
    code, _, err = bench("ranks", "--system", "god", "--out", str(tmp_path))
    assert code == 2
    assert "there is no system with results 'god': did you mean 'good'?" in err
