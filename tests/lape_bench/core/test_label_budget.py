"""Label budgets: one spelling, an order, and how many clips of a class they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lape_bench.core.errors import UserError
from lape_bench.core.label_budget import LabelBudget, budget_order, label_budgets

budgets = st.one_of(
    st.builds(LabelBudget, fraction=st.floats(1e-6, 1), validation=st.booleans()),
    st.builds(LabelBudget, shots=st.integers(1, 1000), validation=st.booleans()),
)


@given(budget=budgets)
def test_the_text_of_a_budget_is_read_back(budget: LabelBudget) -> None:
    again = LabelBudget.parse(str(budget))
    assert str(again) == str(budget)
    assert (again.shots, again.validation) == (budget.shots, budget.validation)
    assert again.fraction == pytest.approx(budget.fraction, rel=1e-10)


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("0.1", "10%"),
        ("10 %", "10%"),
        ("10.0%", "10%"),
        ("1", "100%"),
        ("1-shot", "1-shot"),
        ("5-shots", "5-shot"),
        ("5e-2", "5%"),
        ("10%+validation", "10%+validation"),
    ],
)
def test_a_budget_has_one_spelling(text: str, spelling: str) -> None:
    assert str(LabelBudget.parse(text)) == spelling


@pytest.mark.parametrize(
    "text", ["", "0", "0-shot", "-1-shot", "200%", "nan", "1e400", "all", "5 shots", "1.2.3%"]
)
def test_what_is_no_budget_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(UserError, match="is not a label budget; a percentage such as 10%"):
        LabelBudget.parse(text)


@given(budget=budgets, size=st.integers(1, 10_000))
def test_a_class_has_at_least_one_label_and_no_more_than_clips(
    budget: LabelBudget, size: int
) -> None:
    count = budget.count(size)
    assert 1 <= count <= size
    if budget.shots:
        assert count == min(size, budget.shots)
    else:
        assert count == 1 or abs(count - budget.fraction * size) <= 0.5


def test_budgets_are_in_the_order_of_their_labels() -> None:
    texts = label_budgets((0.1, 1.0, 0.01), (10, 1))
    assert sorted(texts, key=budget_order) == ["1-shot", "10-shot", "1%", "10%", "100%"]
    assert label_budgets() == ["100%"]
    assert label_budgets((0.1, 0.1), (), "all") == ["10%+validation"]


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"fractions": (0.1, 2.0)}, "the label fraction 2 is out of range"),
        ({"shots": (0,)}, "the number of shots 0 is out of range"),
        ({"validation_labels": "some"}, "some"),
    ],
)
def test_a_budget_out_of_range_is_refused(given_: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        label_budgets(**given_)
