"""Metrics by name."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Confusion = NDArray[np.int64]


def confusion_matrix(
    labels: NDArray[np.int64], predicted: NDArray[np.int64], classes: int
) -> Confusion:
    """Count clips: entry (i, j) is the number of clips of class i that were predicted as class j, shape (classes,
    classes).

    Args:
        labels: true class of each clip, shape (clips,), in [0, classes).
        predicted: predicted class of each clip, same shape.
        classes: number of classes.
    """
    flat = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def accuracy(confusion: Confusion) -> float:
    """Share of clips whose class was predicted correctly, in [0, 1]."""
    return float(confusion.trace() / confusion.sum())


def balanced_accuracy(confusion: Confusion) -> float:
    """Mean recall over the classes that occur, in [0, 1]. Classes without clips do not count."""
    support = confusion.sum(axis=1)
    present = support > 0
    return float((confusion.diagonal()[present] / support[present]).mean())


def macro_f1(confusion: Confusion) -> float:
    """Mean F1 over the classes that occur or were predicted, in [0, 1]. The F1 of a class is 0 if its precision or
    recall is 0.
    """
    both = confusion.sum(axis=0) + confusion.sum(axis=1)
    present = both > 0
    return float((2 * confusion.diagonal()[present] / both[present]).mean())


# Every metric is in [0, 1], and more is better.
CLASS_METRICS: dict[str, Callable[[Confusion], float]] = {
    function.__name__: function for function in (accuracy, balanced_accuracy, macro_f1)
}
ROC_AUC = "roc_auc"  # for two classes, from scores
METRICS = (*CLASS_METRICS, ROC_AUC)


def metric_exists(metric: str, classes: int) -> bool:
    """Return True if a task with so many classes can be scored by a metric."""
    return metric in CLASS_METRICS or (metric == ROC_AUC and classes == 2)


def roc_auc(
    log_probabilities: NDArray[np.float32] | NDArray[np.float64], labels: NDArray[np.int64]
) -> float:
    """Area under the ROC curve: how often a clip of class 1 scores higher than one of class 0.

    Computed from ranks (Mann-Whitney U); a tie counts half. If only one class occurs, the area is 0.5, as for random
    scores.

    Args:
        log_probabilities: shape (clips, 2), unitless; a clip's score is their difference.
        labels: true classes, shape (clips,), 0 or 1.

    Raises:
        ValueError: there are not two classes.
    """
    if log_probabilities.shape[1] != 2:
        raise ValueError(f"{ROC_AUC} is for 2 classes, not {log_probabilities.shape[1]}")
    scores = log_probabilities.astype(np.float64)
    _, place, counts = np.unique(
        scores[:, 1] - scores[:, 0], return_inverse=True, return_counts=True
    )
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]  # from 1; equal scores share a mean rank
    positive = labels == 1
    n_positive, n_pairs = positive.sum(), positive.sum() * (~positive).sum()
    if n_pairs == 0:
        return 0.5
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / n_pairs)


def score(log_probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Compute every metric of a set of predictions. The predicted class is the most likely one, the first if several
    are.

    Args:
        log_probabilities: shape (clips, classes), unitless.
        labels: true classes, shape (clips,).

    Returns:
        A value in [0, 1] for each metric name; `ROC_AUC` is included if there are two classes.
    """
    classes = log_probabilities.shape[1]
    scores = score_classes(log_probabilities.argmax(axis=1), labels, classes)
    return scores | ({ROC_AUC: roc_auc(log_probabilities, labels)} if classes == 2 else {})


def score_classes(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int
) -> dict[str, float]:
    """Compute the metrics that need no scores (`CLASS_METRICS`).

    Args:
        predicted: predicted classes, shape (clips,).
        labels: true classes, same shape.
        classes: number of classes.
    """
    confusion = confusion_matrix(labels, predicted, classes)
    return {name: compute(confusion) for name, compute in CLASS_METRICS.items()}
