"""Figures of boards: what is drawn is what the board says."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

from lape_bench.core.errors import UserError
from lape_bench.report.figures.cost import accuracy_against, parameters, seconds
from lape_bench.report.figures.critical_difference import critical_difference_diagram
from lape_bench.report.figures.label_curves import label_curves
from lape_bench.report.figures.style import marks, styled
from lape_bench.report.stats.average_ranks import average_ranks
from tests.lape_bench.conftest import Bench
from tests.lape_bench.report.test_leaderboard import write


def board(**columns: Any) -> pd.DataFrame:
    """Rows as `leaderboard` makes them, alike but for the columns given."""
    count = max([len(values) for values in columns.values()], default=1)
    plain = {
        "task": "t", "data": "real", "protocol": "linear", "labels": "100%", "manifest_hash": "m", "card_version": 1, "protocol_version": 1,
        "metric": "balanced_accuracy", "system": [f"s{n}" for n in range(count)],
        "system_version": 1, "provenance_hash": "", "parameters": 1000, "score": 0.5, "interval": 0.1,
        "interval_over": "groups and seeds", "minutes": 2.0,
    }  # fmt: skip
    return pd.DataFrame(plain | columns, index=range(count))


def points(axis: Axes) -> dict[str, tuple[float, float]]:
    """Where each color's point lies."""
    return {
        str(line.get_color()): (line.get_xdata()[0], line.get_ydata()[0])
        for line in axis.lines
        if line.get_marker() not in ("_", "|", "None")
    }


def test_scores_stand_over_their_cost_with_their_interval() -> None:
    rows = board(parameters=[1_000, 1_000_000], score=[0.5, 0.95], interval=[0.1, 0.2])
    looks = marks(rows["system"])
    with styled():
        (axis,) = accuracy_against(rows, parameters(rows), looks).axes
        (in_seconds,) = accuracy_against(rows, seconds(rows), looks).axes
    found = points(axis)
    assert found[looks["s0"].color] == pytest.approx((1_000, 50))
    assert found[looks["s1"].color] == pytest.approx((1_000_000, 95))
    ends = [segment[:, 1] for each in axis.collections for segment in each.get_segments()]
    assert np.allclose(ends, [[40, 60], [75, 100]])  # no accuracy is above 100 %
    assert axis.get_ylabel() == "balanced accuracy (%)"
    assert {x for x, _ in points(in_seconds).values()} == {120}


@given(costs=st.lists(st.sampled_from([0.0, 1.0, 1.01, 1e7]), min_size=1, max_size=8))
@settings(max_examples=20)  # each draws a figure
def test_every_system_stands_at_its_cost_within_the_panel(costs: list[float]) -> None:
    rows = board(minutes=[cost / 60 for cost in costs])
    with styled():
        (axis,) = accuracy_against(rows, seconds(rows), marks(rows["system"])).axes
    low, high = axis.get_xlim()
    places = [line.get_xdata()[0] for line in axis.lines]
    assert places == pytest.approx(sorted(max(cost, 0.001) for cost in costs))
    assert low < min(places)
    assert max(places) < high
    assert ("less than 0.001" in axis.get_xlabel()) == (0 in costs)


def drawn_intervals(axis: Axes) -> list[tuple[float, float]]:
    """Where each interval's line is drawn and its lower end, in pixels, from left to right."""
    axis.figure.draw_without_rendering()
    segments = [(each.get_transform(), *each.get_segments()) for each in axis.collections]
    ends = [transform.transform(line)[0] for transform, line in segments if len(line)]
    return sorted((x, y) for x, y in ends)


def test_intervals_of_one_cost_are_fanned_out_by_score_within_the_marker() -> None:
    rows = board(score=[0.7, 0.5, 0.6])
    for each in (rows, rows[::-1]):
        with styled():
            (axis,) = accuracy_against(each, parameters(each), marks(each["system"])).axes
        lines = drawn_intervals(axis)
        middle, _ = axis.transData.transform((1000, 50))
        pixels = 7 / 72 * axis.figure.dpi  # of a marker
        assert [x - middle for x, _ in lines] == pytest.approx([-pixels / 2, 0, pixels / 2])
        assert [y for _, y in lines] == sorted(y for _, y in lines)


def test_an_interval_alone_goes_through_its_marker() -> None:
    rows = board(parameters=[10, 1000, 1000], interval=[0.1, 0.1, math.nan])
    with styled():
        (axis,) = accuracy_against(rows, parameters(rows), marks(rows["system"])).axes
    places = [x for x, _ in drawn_intervals(axis)]
    assert places == pytest.approx(axis.transData.transform([(10, 50), (1000, 50)])[:, 0])


@pytest.mark.parametrize(
    "difference",
    [
        {"task": ["t", "u"]},
        {"data": ["real", "synthetic"]},
        {"protocol": ["linear", "knn"]},
        {"labels": ["10%", "100%"]},
        {"manifest_hash": ["m", "n"]},
    ],
    ids=lambda difference: next(iter(difference)),
)
def test_boards_never_share_a_panel(difference: dict[str, list[Any]]) -> None:
    rows = board(**difference)
    with styled():
        figure = accuracy_against(rows, parameters(rows), marks(rows["system"]))
    assert [len(points(axis)) for axis in figure.axes] == [1, 1]
    assert len({axis.get_title() for axis in figure.axes}) == 2


def test_a_system_has_one_look_in_every_panel_and_one_place_in_the_legend() -> None:
    rows = board(task=["t", "u", "u"], system=["a", "b", "a"])
    with styled():
        figure = accuracy_against(rows, parameters(rows), marks(rows["system"]))
    assert set(points(figure.axes[0])) < set(points(figure.axes[1]))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_a_curve_goes_through_the_scores_and_its_bars_to_the_ends_of_the_intervals() -> None:
    rows = board(
        system=["a", "a", "a"], labels=["100%", "1%", "10%"], score=[0.9, 0.5, 0.7],
        interval=[0.2, math.nan, 0.1],
    )  # fmt: skip
    with styled():
        (axis,) = label_curves(rows, marks(rows["system"])).axes
    assert np.allclose(axis.lines[0].get_xydata(), [[1, 50], [10, 70], [100, 90]])
    (bars,) = axis.collections
    one_seed, *ends = bars.get_segments()
    assert np.allclose(ends, [[[10, 60], [10, 80]], [[100, 70], [100, 100]]])
    assert len(one_seed) == 0  # it has no interval
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "10", "100"]


def test_intervals_of_one_fraction_stand_apart_about_it() -> None:
    rows = board(system=["a", "b", "c", "c"], labels=["10%", "10%", "10%", "100%"])
    with styled():
        (axis,) = label_curves(rows, marks(rows["system"])).axes
    places = [bars.get_segments()[0][0, 0] for bars in axis.collections]
    assert len(set(places)) == 3
    assert places == pytest.approx([10 / 1.05, 10, 10 * 1.05])


@pytest.mark.parametrize("column", ["task", "data", "protocol", "manifest_hash"])
def test_curves_of_what_cannot_be_compared_have_their_own_panels(column: str) -> None:
    values = ["m", "n"] if column == "manifest_hash" else ["linear", "real"]
    rows = board(**{column: values})
    with styled():
        assert len(label_curves(rows, marks(rows["system"])).axes) == 2


def test_too_many_boards_are_refused_with_how_to_choose() -> None:
    rows = board(task=[f"t{n:02}" for n in range(13)])
    with pytest.raises(UserError, match=r"13 panels.*--task"):
        accuracy_against(rows, parameters(rows), marks(rows["system"]))


def test_the_diagram_tells_every_system_and_its_rank_and_bars_join_those_that_are_alike() -> None:
    scores = np.array([[1, 2, 1, 2], [4, 4, 4, 4], [2, 1, 2, 1], [3, 3, 3, 3.0]])
    average = average_ranks(scores)._replace(critical_difference=1.2)
    near = average._replace(cliques=((1, 3), (3, 2, 0)))
    with styled():
        figure = critical_difference_diagram(
            ["a", "b", "c", "d"], near, marks(["a", "b", "c", "d"]), "on x"
        )
    (axis,) = figure.axes
    texts = [text.get_text() for text in axis.texts]
    assert texts[:5] == ["1", "2", "3", "4", "critical difference over these tasks 1.20"]
    assert texts[5:] == ["1.00", "b", "2.00", "d", "3.50", "a", "3.50", "c"]
    bars = [line.get_xdata() for line in axis.lines if line.get_linewidth() == 4]
    assert np.allclose(bars, [[1, 2], [2, 3.5]], atol=0.05)


def test_on_too_few_tasks_for_a_test_a_diagram_has_no_bars_and_says_so() -> None:
    names = ["a", "b", "c"]
    average = average_ranks(np.array([[0.9, 0.8], [0.6, 0.7], [0.1, 0.2]]))
    with styled():
        (axis,) = critical_difference_diagram(names, average, marks(names), "on x").axes
    assert "could be significant (Friedman p is at least 0.17)" in " ".join(
        axis.get_title().split()
    )
    assert not [line for line in axis.lines if line.get_linewidth() == 4]
    assert not any("critical difference" in text.get_text() for text in axis.texts)


def test_boards_of_several_kinds_are_refused_by_name(tmp_path: Path, bench: Bench) -> None:
    for protocol in ("linear", "knn"):
        write(tmp_path / "r", 0, protocol=protocol)
    words = ["figure", "critical-difference", "--out", str(tmp_path / "r")]
    code, _, error = bench(*words, "--file", str(tmp_path / "f.svg"))
    assert code == 2
    assert "of several kinds (real knn 100%, real linear 100%)" in error


def figure_of(folder: Path) -> list[str]:
    """Words that draw the records in `r` to `f.svg`."""
    return ["figure", "parameters", "--out", str(folder / "r"), "--file", str(folder / "f.svg")]


def test_a_system_is_chosen_by_as_much_of_its_name_as_is_clear(
    tmp_path: Path, bench: Bench
) -> None:
    for system, width in (("a", 1), ("b", 1), ("b", 2)):
        write(tmp_path / "r", 0, system=system, settings={"width": width})
    words = figure_of(tmp_path)
    assert bench(*words, "--system", "a", "--system", "b (width=2)")[0] == 0
    drawn = (tmp_path / "f.svg").read_text()
    assert "a (width=1)" in drawn
    assert "b (width=2)" in drawn
    assert "b (width=1)" not in drawn
    code, _, error = bench(*words, "--system", "b")
    assert (code, error.count("\n")) == (2, 1)
    assert "'b' has 2 variants; one of 'b (width=1)', 'b (width=2)'" in error


def test_what_lacks_folds_is_left_out_of_a_figure_by_name(tmp_path: Path, bench: Bench) -> None:
    for fold in (1, 2):
        write(tmp_path / "r", 0, fold, 2, system="whole")
    write(tmp_path / "r", 0, 1, 2, system="half")
    words = figure_of(tmp_path)
    code, _, error = bench(*words)
    assert (code, error) == (0, "left out: half on t, linear: 1 of 2 folds\n")
    assert "half" not in (tmp_path / "f.svg").read_text()
    code, _, error = bench(*words, "--system", "half")
    assert (code, "no system has been run in every fold" in error) == (2, True)
