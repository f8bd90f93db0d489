"""Score functions, known by their names."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Confusion = NDArray[np.int64]


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
    return float(confusion.trace() / confusion.sum())


def balanced_accuracy(confusion: Confusion) -> float:
    """Mean recall over the classes that occur; a class without clips has no recall to count."""
    support = confusion.sum(axis=1)
    present = support > 0
    return float((confusion.diagonal()[present] / support[present]).mean())


def macro_f1(confusion: Confusion) -> float:
    """Mean F1 over the classes that occur or were predicted; 0 where precision or recall is."""
    both = confusion.sum(axis=0) + confusion.sum(axis=1)
    present = both > 0
    return float((2 * confusion.diagonal()[present] / both[present]).mean())


# Every one is in [0, 1], and more is better.
METRICS: dict[str, Callable[[Confusion], float]] = {
    function.__name__: function for function in (accuracy, balanced_accuracy, macro_f1)
}


def score(log_probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Compute every metric of one set of predictions; the class of a clip is the first of its most likely ones.

    Args:
        log_probabilities: shape (clips, classes), unitless.
        labels: true classes, shape (clips,).

    Returns:
        Metric names to values.
    """
    return score_classes(log_probabilities.argmax(axis=1), labels, log_probabilities.shape[1])


def score_classes(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> dict[str, float]:
    """Do the same for predicted classes, shape (clips,), of so many classes."""
    confusion = confusion_matrix(labels, predicted, classes)
    return {name: compute(confusion) for name, compute in METRICS.items()}
