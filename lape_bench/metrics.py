"""Score functions that own their name, direction and range."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Confusion = NDArray[np.int64]


class Metric(NamedTuple):
    """A score of a confusion matrix."""

    name: str
    higher_is_better: bool
    lowest: float
    highest: float
    compute: Callable[[Confusion], float]


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> Confusion:
    """Count clips: entry (i, j) holds those of class i that were taken for class j.

    Args:
        labels: true class of each clip, shape (clips,), in [0, classes).
        predicted: predicted class of each clip, same shape.
        classes: number of classes.
    """
    flat = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def accuracy(confusion: Confusion) -> float:
    """Share of clips whose class was found."""
    return float(np.trace(confusion) / confusion.sum())


def balanced_accuracy(confusion: Confusion) -> float:
    """Mean recall over the classes that occur; a class without clips has no recall to count."""
    support = confusion.sum(axis=1)
    present = support > 0
    return float((np.diag(confusion)[present] / support[present]).mean())


def macro_f1(confusion: Confusion) -> float:
    """Mean F1 over the classes that occur or were predicted; 0 where precision or recall is."""
    both = confusion.sum(axis=0) + confusion.sum(axis=1)
    present = both > 0
    return float((2 * np.diag(confusion)[present] / both[present]).mean())


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", True, 0.0, 1.0, accuracy),
        Metric("balanced_accuracy", True, 0.0, 1.0, balanced_accuracy),
        Metric("macro_f1", True, 0.0, 1.0, macro_f1),
    )
}


def score(log_probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Compute every metric of one set of predictions.

    Args:
        log_probabilities: shape (clips, classes), unitless.
        labels: true classes, shape (clips,).

    Returns:
        Metric names to values.
    """
    confusion = confusion_matrix(
        labels, log_probabilities.argmax(axis=1), log_probabilities.shape[1]
    )
    return {metric.name: metric.compute(confusion) for metric in METRICS.values()}
