"""Compare clusters with classes: a diagnosis of pseudo-labels that no system sees."""

import numpy as np
from numpy.typing import NDArray

SHUFFLES = 20


def describe(clusters: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, float]:
    """Measure how well the clusters of clips match their classes.

    Args:
        clusters: of each clip, shape (clips,).
        labels: class of each clip, same shape.

    Returns:
        "nmi", normalized mutual information in [0, 1]; "nmi_shuffled", its mean for the same clusters in random order,
        which grows with the number of clusters; "purity", see `purity`.
    """
    from sklearn.metrics import normalized_mutual_info_score  # slow to import

    random = np.random.default_rng(0)
    by_chance = [
        normalized_mutual_info_score(labels, random.permutation(clusters)) for _ in range(SHUFFLES)
    ]
    return {
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "nmi_shuffled": float(np.mean(by_chance)),
        "purity": purity(clusters, labels),
    }


def purity(clusters: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """Share of clips whose class is the most frequent one of their cluster."""
    counts = np.zeros((clusters.max() + 1, labels.max() + 1), np.int64)
    np.add.at(counts, (clusters, labels), 1)
    return float(counts.max(axis=1).sum() / len(labels))
