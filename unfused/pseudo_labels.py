"""Stage 2: the teacher's embeddings of the task's train audio become clusters, the pseudo-labels.

PCA with whitening, rows scaled to unit length, k-means; no label is used. This follows the paper's text (arXiv:2303.05668).
The published code clusters the first layer's output instead, with k-means on a GPU.

Clusters also tell who speaks. `center_groups`, which is not in the paper, removes that: it subtracts the mean embedding of each
group. Groups must then cut across classes, as speakers of the same words do.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lape_bench.core.errors import UserError
from lape_bench.learning.training.clustering import ClusteringConfig, cluster


class PseudoLabelConfig(ClusteringConfig):
    """Stage 2: cluster the teacher's embeddings into pseudo-labels."""

    shuffle_pseudo_labels: bool = Field(
        False, description="permute the pseudo-labels at random; a control, which must lower scores"
    )
    center_groups: bool = Field(
        False,
        description="subtract the mean embedding of each clip's group, such as its speaker, before clustering",
    )


def pseudo_labels(
    embeddings: NDArray[np.float32],
    groups: NDArray[np.int64] | None,
    config: PseudoLabelConfig,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """Cluster embeddings, and permute the clusters at random if `config` says so.

    Args:
        embeddings: of the train clips, shape (clips, features).
        groups: number of each clip's group, shape (clips,); None if the task has no groups.
        config: number of clusters and components, whether to center groups, and whether to shuffle.
        random: seeds PCA and k-means, and draws the permutation.

    Returns:
        Cluster of each clip, shape (clips,), in [0, clusters). Some clusters are empty if there are fewer distinct embeddings.

    Raises:
        UserError: there are fewer clips than clusters, or embeddings that are not finite; or groups are to be centered, and the
            task has none.
    """
    if config.center_groups:
        if groups is None:
            raise UserError(
                "center_groups is set, and the task names no group that holds two train clips",
                next_step="leave center_groups out, or name a group for each clip, such as its speaker",
            )
        embeddings = center_groups(embeddings, groups)
    clusters = cluster(embeddings, config, random, held_by="the train split")
    return random.permutation(clusters) if config.shuffle_pseudo_labels else clusters


def center_groups(
    embeddings: NDArray[np.float32], groups: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Give all groups the same mean embedding, that of all clips. Clips that are alone in their group form a group together.

    Args:
        embeddings: of clips, shape (clips, features).
        groups: number of each clip's group, shape (clips,).

    Returns:
        The shifted embeddings, shape (clips, features).
    """
    codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    codes = np.where(sizes[codes] == 1, len(sizes), codes)
    members = np.bincount(codes, minlength=len(sizes) + 1)[:, None]
    means = np.zeros((len(members), embeddings.shape[1]))
    np.add.at(means, codes, embeddings)
    means /= np.maximum(members, 1)
    overall = embeddings.mean(axis=0, dtype=np.float64)
    # The overall mean stays, since clustering takes the size of rounding errors from the largest number.
    centered: NDArray[np.float32] = (embeddings - means[codes] + overall).astype(np.float32)
    return centered
