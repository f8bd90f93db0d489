"""Stage 2: the teacher's embeddings of the task's train audio become clusters, the pseudo-labels.

PCA with whitening, rows brought to unit length, k-means; no label is seen. The published code takes the first
layer's output here and k-means on a GPU; this is what its text describes.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from lape_bench.config import Config
from lape_bench.errors import UserError

MOST_ITERATIONS = 300
ROUNDING = 1e-6  # of the largest number: what float32 cannot tell apart
DECIMALS = 6


class PseudoLabelConfig(Config):
    """Stage 2: cluster the teacher's embeddings into pseudo-labels."""

    clusters: int = Field(
        64, ge=2, description="k of k-means; the student's classifiers take their width from it"
    )
    components: int = Field(128, ge=1, description="of the whitened PCA, at most")
    restarts: int = Field(4, ge=1, description="of k-means, from other centres; the best is taken")
    shuffle_pseudo_labels: bool = Field(
        False, description="deal the pseudo-labels at random: a control that must cost accuracy"
    )


def pseudo_labels(
    embeddings: NDArray[np.float32], config: PseudoLabelConfig, random: np.random.Generator
) -> NDArray[np.int64]:
    """Cluster embeddings.

    Args:
        embeddings: of the train clips, shape (clips, features).
        config: k, components, and whether to shuffle.
        random: seeds PCA and k-means.

    Returns:
        Cluster of each clip, shape (clips,), in [0, k). A cluster may be empty where fewer than k embeddings
        differ.

    Raises:
        UserError: fewer clips than clusters.
    """
    clips, features = embeddings.shape
    if clips < config.clusters:
        raise UserError(
            f"clusters is {config.clusters}, and the train split holds {clips} clips to put into them",
            allowed=f"2 to {clips}",
            next_step="give fewer, such as --set clusters=" + str(max(2, clips // 10)),
        )
    state = int(random.integers(2**31))
    components = min(config.components, clips - 1, features)
    kmeans = KMeans(
        config.clusters, n_init=config.restarts, max_iter=MOST_ITERATIONS, random_state=state
    )
    # On one thread: k-means adds the threads' sums in the order they finish, which moves the last digits.
    with threadpool_limits(1), warnings.catch_warnings():
        # Fewer different embeddings than clusters: some stay empty, and the record's sizes show it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        reduced = normalize(whiten(embeddings, components, state))
        found: NDArray[np.int64] = kmeans.fit_predict(reduced).astype(np.int64)
    return random.permutation(found) if config.shuffle_pseudo_labels else found


def whiten(embeddings: NDArray[np.float32], components: int, state: int) -> NDArray[np.float64]:
    """Project embeddings on their principal components and bring each to unit variance.

    Directions in which they differ by rounding alone are left out: brought to unit variance they would drown
    the rest. Of a collapsed teacher few remain, or one that is 0 for every clip.

    Args:
        embeddings: shape (clips, features).
        components: how many, at most.
        state: seeds the solver.

    Returns:
        Shape (clips, components or fewer); equal embeddings have equal rows.
    """
    exact = embeddings.astype(np.float64)
    rounding = ROUNDING * np.abs(exact).max()
    if exact.std(axis=0).max() <= rounding:
        return np.zeros((len(exact), 1))
    pca = PCA(components, random_state=state)
    scores = pca.fit_transform(exact)
    deviation = np.sqrt(pca.explained_variance_)
    told = deviation > rounding
    # Blocked products round equal rows apart in the last digits, and k-means would split them.
    whitened: NDArray[np.float64] = np.round(scores[:, told] / deviation[told], DECIMALS)
    return whitened
