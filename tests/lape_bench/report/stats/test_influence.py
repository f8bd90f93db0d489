"""Influence of clips on a score: the derivative of the metric as scikit-learn computes it with weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from lape_bench.metrics import METRICS
from lape_bench.report.stats.influence import influences

STEP = 1e-5


def weighted(
    metric: str, labels: NDArray[np.int64], odds: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    """The metric by scikit-learn, each clip counted as often as its weight says."""
    predicted = predicted_classes(odds, labels)
    if metric == "roc_auc":
        return float(sk.roc_auc_score(labels, odds, sample_weight=weights))
    function = {
        "accuracy": sk.accuracy_score,
        "balanced_accuracy": lambda a, b, **how: sk.recall_score(
            a, b, average="macro", labels=np.unique(labels), **how
        ),
        "macro_f1": lambda a, b, **how: sk.f1_score(a, b, average="macro", **how),
    }[metric]
    return float(function(labels, predicted, sample_weight=weights))


def predicted_classes(odds: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    return (
        np.where(odds > 0, 1, np.where(odds < -1.5, 2, 0)) if labels.max() > 1 else (odds > 0) * 1
    )


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from(METRICS))
def test_influence_is_the_derivative_of_the_score_by_the_weight_of_a_clip(
    seed: int, metric: str
) -> None:
    random = np.random.default_rng(seed)
    classes = 2 if metric == "roc_auc" else 3
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, 12)])
    odds = np.round(random.normal(size=len(labels)), 1)  # with ties
    found = influences(metric, labels, predicted_classes(odds, labels), odds)
    assert found.sum() == pytest.approx(0, abs=1e-12)
    for clip in range(len(labels)):
        step = np.zeros(len(labels))
        step[clip] = STEP
        change = weighted(metric, labels, odds, 1 + step) - weighted(metric, labels, odds, 1 - step)
        assert found[clip] == pytest.approx(change / (2 * STEP), abs=1e-6)


def test_one_class_has_no_area_under_the_curve_to_influence() -> None:
    ones = np.ones(4, np.int64)
    assert not influences("roc_auc", ones, ones, np.arange(4.0)).any()


def test_the_area_needs_log_odds() -> None:
    with pytest.raises(ValueError, match="log-odds"):
        influences("roc_auc", np.array([0, 1]), np.array([0, 1]))
