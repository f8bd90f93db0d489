"""Stage 2: the teacher's embeddings of the task's train audio become clusters, the pseudo-labels.

PCA with whitening, rows brought to unit length, k-means; no label is seen. The published code takes the first
layer's output here and k-means on a GPU; this is what its text describes.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lape_bench.learning.training.clustering import ClusteringConfig, cluster


class PseudoLabelConfig(ClusteringConfig):
    """Stage 2: cluster the teacher's embeddings into pseudo-labels."""

    shuffle_pseudo_labels: bool = Field(
        False, description="deal the pseudo-labels at random: a control that must cost accuracy"
    )


def pseudo_labels(
    embeddings: NDArray[np.float32], config: PseudoLabelConfig, random: np.random.Generator
) -> NDArray[np.int64]:
    """Cluster embeddings, and deal the clusters at random if asked.

    Args:
        embeddings: of the train clips, shape (clips, features).
        config: k, components, and whether to shuffle.
        random: seeds PCA and k-means, and shuffles.

    Returns:
        Cluster of each clip, shape (clips,), in [0, k). A cluster may be empty where fewer than k embeddings
        differ.

    Raises:
        UserError: fewer clips than clusters.
    """
    found = cluster(embeddings, config, random, held_by="the train split")
    return random.permutation(found) if config.shuffle_pseudo_labels else found
