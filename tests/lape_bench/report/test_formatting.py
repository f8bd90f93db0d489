"""How reports write figures: halves, signs, least p-values, counts and lists."""

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lape_bench.report.formatting import count, join_list, p_value, percent


@pytest.mark.parametrize(
    ("right", "clips", "digits", "text"),
    [
        (369, 400, 1, "92.3"),  # 92.25, which half-even takes for 92.2
        (361, 400, 1, "90.3"),  # 90.25
        (1, 8, 0, "13"),
        (201, 20_000, 2, "1.01"),  # 1.005, whose binary fraction lies below it
        (0, 7, 2, "0.00"),
        (7, 7, 1, "100.0"),
    ],
)
def test_halves_are_rounded_up(right: int, clips: int, digits: int, text: str) -> None:
    assert percent(right / clips, digits) == text


@given(clips=st.integers(1, 2_000), share=st.floats(0, 1), digits=st.integers(0, 2))
def test_a_share_of_clips_is_rounded_as_by_hand(clips: int, share: float, digits: int) -> None:
    right = round(share * clips)
    exact = Fraction(100 * right * 10**digits, clips)
    by_hand = Decimal(math.floor(exact + Fraction(1, 2))).scaleb(-digits)
    assert percent(right / clips, digits) == str(by_hand)


def test_a_mean_of_folds_is_rounded_as_its_figure_is_read() -> None:
    folds = [0.9, 0.925, 0.9, 0.9125, 0.875]  # of mean 90.25, which a sum of floats misses
    assert percent(sum(folds) / 5, 1) == "90.3"


def test_a_difference_has_its_sign_and_none_where_it_rounds_to_none() -> None:
    shares = (0.0225, -0.0225, 0.0004, -0.0004)
    assert [percent(s, 1, signed=True) for s in shares] == ["+2.3", "-2.3", "0.0", "0.0"]
    assert percent(-0.00001) == "0.00"


def test_no_figure_is_no_text() -> None:
    assert percent(math.nan) == ""


def test_a_p_has_two_digits_and_is_never_smaller_than_a_test_can_tell() -> None:
    ps = (0.0281, 0.51, 0.0002, 1e-4, 0.99e-4, 0.0, math.nan, None)
    expected = ["0.028", "0.51", "0.0002", "0.0001", "< 0.0001", "< 0.0001", "", ""]
    assert [*map(p_value, ps)] == expected


def test_a_p_above_the_level_is_not_rounded_down_to_it() -> None:
    assert [*map(p_value, (0.0496, 0.05, 0.0504, 0.05004))] == ["0.05", "0.05", "0.0504", "0.05004"]


def test_one_is_singular_and_the_last_of_a_list_follows_and() -> None:
    assert [count(n, "seed") for n in (0, 1, 2, 10_000)] == [
        "0 seeds",
        "1 seed",
        "2 seeds",
        "10,000 seeds",
    ]
    assert join_list(["a"]) == "a"
    assert join_list([0, 1]) == "0 and 1"
    assert join_list(["a", "b", "c"]) == "a, b and c"
