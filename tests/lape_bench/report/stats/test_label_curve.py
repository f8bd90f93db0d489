"""The area under the label curve, from scikit-learn and by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import auc

from lape_bench.report.stats.label_curve import area_under_curve, as_table, curve_areas

FRACTIONS = np.array([0.01, 0.1, 1.0])


def row(system: str, fraction: float, score: float, **how: object) -> dict[str, object]:
    place = {
        "task": "t",
        "data": "real",
        "protocol": "linear",
        "manifest_hash": "m",
        "card_version": 1,
        "protocol_version": 1,
        "metric": "accuracy",
    }
    entry = {
        "system": system,
        "system_version": 1,
        "provenance_hash": "",
        "parameters": 5,
        "encoder_parameters": 4,
        "seeds": 3,
    }
    return place | entry | {"labels": f"{100 * fraction:g}%", "score": score} | how


def test_the_area_is_scikit_learn_s_over_the_logarithm_of_the_fraction() -> None:
    fractions, scores = np.array([0.02, 0.1, 0.35, 1.0]), np.array([0.2, 0.5, 0.55, 0.9])
    expected = auc(np.log10(fractions), scores) / np.log10(1 / 0.02)
    assert area_under_curve(fractions, scores) == pytest.approx(expected)


def test_each_tenfold_of_labels_counts_alike() -> None:
    assert area_under_curve(FRACTIONS, np.array([0.2, 0.4, 0.8])) == pytest.approx(
        ((0.2 + 0.4) / 2 + (0.4 + 0.8) / 2) / 2
    )


@given(score=st.floats(0, 1), slope=st.floats(-0.2, 0.2))
def test_a_line_over_the_logarithm_has_the_score_at_its_middle(score: float, slope: float) -> None:
    scores = score + slope * np.log10(FRACTIONS)
    assert area_under_curve(FRACTIONS, scores) == pytest.approx(scores[1])


@pytest.mark.parametrize("fractions", [[0.1], [0.1, 0.1], [1.0, 0.1]], ids=str)
def test_fewer_than_two_ascending_fractions_are_refused(fractions: list[float]) -> None:
    with pytest.raises(ValueError, match="two or more, ascending"):
        area_under_curve(np.array(fractions), np.zeros(len(fractions)))


def test_only_systems_with_every_budget_get_an_area_and_the_others_are_named() -> None:
    board = pd.DataFrame(
        [
            *(row("a", f, s) for f, s in zip(FRACTIONS, (0.2, 0.4, 0.8), strict=True)),
            *(row("b", f, s) for f, s in zip(FRACTIONS, (0.5, 0.6, 0.7), strict=True)),
            row("c", 1.0, 0.9),
            row("a", 1.0, 0.9, task="once"),
        ]
    )
    found = curve_areas(board)
    assert found.table["system"].tolist() == ["b", "a"]
    assert found.table["area"].tolist() == pytest.approx([0.6, 0.45])
    assert set(found.table["budgets"]) == {("1%", "10%", "100%")}
    assert found.left_out == ["c on t, linear, lacks 1%, 10%"]


def test_an_area_says_how_many_seeds_stand_behind_its_scores() -> None:
    board = pd.DataFrame(
        [row("a", 0.1, 0.5), row("a", 1.0, 0.9, seeds=1), row("b", 0.1, 0.4), row("b", 1.0, 0.8)]
    )
    found = curve_areas(board)
    assert found.table["seeds"].tolist() == [(1, 3), (3, 3)]
    console = Console(width=80)
    with console.capture() as captured:
        console.print(as_table(found))
    assert [line.split()[-4:] for line in captured.get().splitlines()[1:]] == [
        ["1", "to", "3", "70.0"],
        ["to", "100%", "3", "60.0"],
    ]


def test_fractions_of_what_cannot_be_compared_make_no_curve() -> None:
    board = pd.DataFrame([row("a", 0.1, 0.5), row("a", 1.0, 0.9, manifest_hash="n")])
    assert curve_areas(board).table.empty
