"""Scores against scikit-learn, classes that are absent included.

scikit-learn's own conventions: `confusion_matrix` needs the list of classes, else absent ones are dropped;
`balanced_accuracy_score` counts the classes of the truth alone, and warns of predictions outside them;
`f1_score(average="macro")` counts the classes that occur in truth or predictions, unless it is given a list of
classes, where an absent one counts as 0. The harness follows the defaults of the latter two.
"""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lape_bench import metrics

many_examples = settings(max_examples=80)
Labels = NDArray[np.int64]
CLASSES = 6

# Drawn from part of the classes more often than not, so that some lack clips, predictions or both.
part = st.sets(st.integers(0, CLASSES - 1), min_size=1).map(sorted)
outcomes = st.tuples(part, part, st.integers(1, 25)).flatmap(
    lambda drawn: st.tuples(
        *(
            st.lists(st.sampled_from(of), min_size=drawn[2], max_size=drawn[2]).map(np.array)
            for of in drawn[:2]
        )
    )
)


def by_scikit_learn(name: str, truth: Labels, predicted: Labels) -> float:
    scores: dict[str, Callable[[], float]] = {
        "accuracy": lambda: sk.accuracy_score(truth, predicted),
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(truth, predicted),
        "macro_f1": lambda: sk.f1_score(truth, predicted, average="macro", zero_division=0),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of predictions outside the truth's classes
        return scores[name]()


def certain(predicted: Labels, classes: int) -> NDArray[np.float32]:
    """Log-probabilities that name one class a clip."""
    return np.log(0.9 * np.eye(classes, dtype=np.float32)[predicted] + 0.01)


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "macro_f1"])
@many_examples
@given(outcome=outcomes)
def test_a_score_is_that_of_scikit_learn(name: str, outcome: tuple[Labels, Labels]) -> None:
    truth, predicted = outcome
    found = metrics.score(certain(predicted, CLASSES), truth)[name]
    assert found == pytest.approx(by_scikit_learn(name, truth, predicted), abs=1e-12)


@many_examples
@given(outcome=outcomes)
def test_the_confusion_matrix_is_that_of_scikit_learn_with_a_row_for_absent_classes(
    outcome: tuple[Labels, Labels],
) -> None:
    expected = sk.confusion_matrix(*outcome, labels=range(CLASSES))
    assert metrics.confusion_matrix(*outcome, CLASSES).tolist() == expected.tolist()


def test_scores_of_a_small_table_are_those_by_hand() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1])
    predicted = np.array([0, 0, 0, 1, 1, 2])
    assert metrics.confusion_matrix(truth, predicted, 4).tolist() == [
        [3, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]
    assert metrics.score(certain(predicted, 4), truth) == pytest.approx(
        {
            "accuracy": 4 / 6,
            "balanced_accuracy": (3 / 4 + 1 / 2) / 2,  # class 2 has no clips: no recall
            "macro_f1": (6 / 7 + 1 / 2 + 0)
            / 3,  # class 2 was predicted: F1 is 0; class 3 is absent
        }
    )


@many_examples
@given(outcome=outcomes, order=st.permutations(range(CLASSES)))
def test_no_score_depends_on_the_order_of_the_classes(
    outcome: tuple[Labels, Labels], order: list[int]
) -> None:
    truth, predicted = outcome
    renamed = np.array(order)
    assert metrics.score(certain(renamed[predicted], CLASSES), renamed[truth]) == pytest.approx(
        metrics.score(certain(predicted, CLASSES), truth)
    )


@many_examples
@given(outcome=outcomes)
def test_a_score_lies_in_its_range_and_perfect_predictions_reach_its_better_end(
    outcome: tuple[Labels, Labels],
) -> None:
    truth, predicted = outcome
    found = metrics.score(certain(predicted, CLASSES), truth)
    perfect = metrics.score(certain(truth, CLASSES), truth)
    assert found.keys() == metrics.CLASS_METRICS.keys()
    assert all(0 <= value <= 1 for value in found.values())
    assert set(perfect.values()) == {1.0}


def test_all_wrong_reaches_the_worse_end_of_every_score() -> None:
    truth = np.array([0, 1, 1, 2])
    found = metrics.score(certain((truth + 1) % 3, 3), truth)
    assert set(found.values()) == {0.0}


def test_a_clip_is_taken_for_the_class_of_its_highest_log_probability() -> None:
    rows = np.array([[-0.1, -3.0, -4.0], [-2.0, -0.3, -2.0], [-1.5, -1.2, -0.7]], np.float32)
    assert metrics.score(rows, np.array([0, 1, 2]))["accuracy"] == 1
    assert metrics.score(rows, np.array([0, 1, 0]))["accuracy"] == pytest.approx(2 / 3)


# Scores from few values, so that ties are common.
two_classes = st.integers(2, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.sampled_from([-3.0, -0.5, 0.0, 0.25, 4.0]), min_size=n, max_size=n),
        st.lists(st.integers(0, 1), min_size=n, max_size=n),
    )
).filter(lambda drawn: len({*drawn[1]}) == 2)  # fmt: skip


def rows_of(logits: list[float]) -> NDArray[np.float32]:
    """Log-probabilities of two classes, shape (clips, 2), of their log-odds."""
    odds = np.array(logits)
    return -np.logaddexp(0, np.stack([odds, -odds], axis=1)).astype(np.float32)


@many_examples
@given(drawn=two_classes)
def test_the_area_under_the_roc_curve_is_that_of_scikit_learn(
    drawn: tuple[list[float], list[int]],
) -> None:
    logits, labels = drawn
    found = metrics.score(rows_of(logits), np.array(labels))
    assert found.keys() == {*metrics.METRICS}
    assert found["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, logits), abs=1e-12)


@many_examples
@given(drawn=two_classes)
def test_the_area_asks_for_the_order_of_scores_alone_and_turns_round_with_it(
    drawn: tuple[list[float], list[int]],
) -> None:
    logits, labels = np.array(drawn[0]), np.array(drawn[1])
    area = metrics.roc_auc(rows_of(logits.tolist()), labels)
    assert metrics.roc_auc(rows_of((2 * logits - 5).tolist()), labels) == pytest.approx(area)
    assert metrics.roc_auc(rows_of((-logits).tolist()), labels) == pytest.approx(1 - area)
    assert metrics.roc_auc(rows_of(logits.tolist())[:, ::-1], 1 - labels) == pytest.approx(area)


def test_sure_predictions_are_ranked_too() -> None:
    # Probabilities of class 1 all round to 1; those of class 0 tell the clips apart.
    rows = np.array([[-60, 0], [-50, 0], [-40, 0], [-30, 0]], np.float32)
    assert metrics.roc_auc(rows, np.array([1, 1, 0, 0])) == 1
    assert metrics.roc_auc(rows, np.array([0, 1, 0, 1])) == 0.25


def test_of_one_class_alone_the_area_tells_nothing() -> None:
    assert metrics.roc_auc(rows_of([1.0, -1.0]), np.array([1, 1])) == 0.5


def test_the_area_is_of_two_classes() -> None:
    with pytest.raises(ValueError, match="roc_auc is for 2 classes, not 3"):
        metrics.roc_auc(np.zeros((2, 3), np.float32), np.array([0, 1]))
