"""What each clip contributes to a score, so that a score of any metric can be taken apart by groups.

The influence of a clip is the first-order change of the score if the clip counted a little more (the linearization of survey
statistics, the infinitesimal jackknife). Accuracy, balanced accuracy and macro-F1 are made of ratios of counts; for the area
under the ROC curve it is the structural component of DeLong, DeLong and Clarke-Pearson (1988), Biometrics 44, which
Obuchowski (1997), Biometrics 53, adds up by clusters.
"""

import numpy as np
from numpy.typing import NDArray

from lape_bench import metrics

Array = NDArray[np.float64]


def influences(
    metric: str,
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    log_odds: NDArray[np.floating] | None = None,
) -> Array:
    """Return the influence of each clip on a score over these clips.

    Args:
        metric: one of `metrics.METRICS`.
        labels: true classes, shape (clips,).
        predicted: predicted classes, same shape.
        log_odds: of class 1 against class 0, same shape; the area under the ROC curve needs them.

    Returns:
        Shape (clips,), of sum 0.

    Raises:
        ValueError: the area under the ROC curve is asked for without log-odds.
    """
    correct = labels == predicted
    if metric == "accuracy":
        return np.asarray((correct - correct.mean()) / len(labels))
    if metric == metrics.ROC_AUC:
        if log_odds is None:
            raise ValueError("the area under the ROC curve needs log-odds")
        return _roc_auc(labels == 1, log_odds)
    classes = int(max(labels.max(), predicted.max())) + 1
    support = np.bincount(labels, minlength=classes)
    hits = np.bincount(labels[correct], minlength=classes)
    if metric == "balanced_accuracy":
        recall = hits / np.maximum(support, 1)
        share = 1 / (support[labels] * (support > 0).sum())
        return np.asarray((correct - recall[labels]) * share)
    # F1 is 2 hits / both; a clip adds to `both` of its class and of the class that it was taken for.
    both = support + np.bincount(predicted, minlength=classes)
    f1 = 2 * hits / np.maximum(both, 1)
    per_class = 1 / (np.maximum(both, 1) * (both > 0).sum())
    of_label, of_prediction = (f1 * per_class)[labels], (f1 * per_class)[predicted]
    return np.asarray(2 * correct * per_class[labels] - of_label - of_prediction)


def _roc_auc(positive: NDArray[np.bool_], log_odds: NDArray[np.floating]) -> Array:
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    influence = np.zeros(len(positive))
    if not n_positive or not n_negative:
        return influence
    scores = log_odds.astype(np.float64)
    for own, others, n_own, sign in (
        (positive, np.sort(scores[~positive]), n_positive, 1),
        (~positive, np.sort(scores[positive]), n_negative, -1),
    ):
        # A tie counts half.
        below = np.searchsorted(others, scores[own], side="left")
        at_most = np.searchsorted(others, scores[own], side="right")
        won = (below + at_most) / (2 * len(others))
        influence[own] = sign * (won - won.mean()) / n_own
    return influence
