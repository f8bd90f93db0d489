"""Stage 2: the teacher's embeddings of the task's train audio become clusters, the pseudo-labels.

PCA with whitening, rows scaled to unit length, k-means; no label is used. This follows the paper's text (arXiv:2303.05668).
The published code clusters the first layer's output instead, with k-means on a GPU.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lape_bench.learning.training.clustering import ClusteringConfig, cluster


class PseudoLabelConfig(ClusteringConfig):
    """Stage 2: cluster the teacher's embeddings into pseudo-labels."""

    shuffle_pseudo_labels: bool = Field(
        False, description="permute the pseudo-labels at random; a control, which must lower scores"
    )


def pseudo_labels(
    embeddings: NDArray[np.float32], config: PseudoLabelConfig, random: np.random.Generator
) -> NDArray[np.int64]:
    """Cluster embeddings, and permute the clusters at random if `config` says so.

    Args:
        embeddings: of the train clips, shape (clips, features).
        config: number of clusters and components, and whether to shuffle.
        random: seeds PCA and k-means, and draws the permutation.

    Returns:
        Cluster of each clip, shape (clips,), in [0, clusters). Some clusters are empty if there are fewer distinct embeddings.

    Raises:
        UserError: there are fewer clips than clusters, or embeddings that are not finite.
    """
    clusters = cluster(embeddings, config, random, held_by="the train split")
    return random.permutation(clusters) if config.shuffle_pseudo_labels else clusters
