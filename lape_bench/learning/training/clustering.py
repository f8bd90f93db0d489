"""Clusters of embeddings: whitened principal components, rows of unit length, k-means (as in arXiv:1807.05520).

No label is seen.
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

from lape_bench.core.config import Config
from lape_bench.core.errors import UserError

MOST_ITERATIONS = 300
ROUNDING = 1e-6  # of the largest number: what float32 cannot tell apart
DECIMALS = 6
COLUMNS = 64  # of which the deviation is taken at once


class ClusteringConfig(Config):
    """How embeddings are clustered."""

    clusters: int = Field(
        64, ge=2, description="k of k-means; what classifies clusters takes its width from it"
    )
    components: int = Field(128, ge=1, description="of the whitened PCA, at most")
    restarts: int = Field(4, ge=1, description="of k-means, from other centers; the best is taken")


def cluster(
    embeddings: NDArray[np.float32],
    config: ClusteringConfig,
    random: np.random.Generator,
    held_by: str,
) -> NDArray[np.int64]:
    """Cluster embeddings.

    Args:
        embeddings: of clips, shape (clips, features).
        config: k, components, restarts.
        random: seeds PCA and k-means.
        held_by: what holds the clips, such as "the corpus", for a refusal.

    Returns:
        Cluster of each clip, shape (clips,), in [0, k). A cluster may be empty where fewer than k embeddings
        differ.

    Raises:
        UserError: fewer clips than clusters, or embeddings that are not finite.
    """
    clips, features = embeddings.shape
    if clips < config.clusters:
        raise UserError(
            f"clusters is {config.clusters}, and {held_by} holds {clips} clips to put into them",
            allowed=f"2 to {clips}",
            next_step="give fewer, such as --set clusters=" + str(max(2, clips // 10)),
        )
    if not np.isfinite(embeddings).all():
        raise UserError(
            f"the embeddings of {held_by} are no longer finite, and cannot be clustered",
            next_step="lower the learning rate of their encoder, or use --precision float32",
        )
    state = int(random.integers(2**31))
    components = min(config.components, clips - 1, features)
    kmeans = KMeans(
        config.clusters, n_init=config.restarts, max_iter=MOST_ITERATIONS, random_state=state
    )
    # On one thread: k-means adds the threads' sums in the order they finish, which moves the last digits.
    with threadpool_limits(1), warnings.catch_warnings():
        # Fewer different embeddings than clusters: some stay empty, and whoever asked sees it in the sizes.
        warnings.simplefilter("ignore", ConvergenceWarning)
        reduced = normalize(whiten(embeddings, components, state))
        found: NDArray[np.int64] = kmeans.fit_predict(reduced).astype(np.int64)
    return found


def whiten(embeddings: NDArray[np.float32], components: int, state: int) -> NDArray[np.float64]:
    """Project embeddings on their principal components and bring each to unit variance.

    Directions in which they differ by rounding alone are left out: brought to unit variance they would drown
    the rest. Of a collapsed encoder few remain, or one that is 0 for every clip.

    Args:
        embeddings: shape (clips, features).
        components: how many, at most.
        state: seeds the solver.

    Returns:
        Shape (clips, components or fewer); equal embeddings have equal rows.
    """
    exact = embeddings.astype(np.float64)
    rounding = ROUNDING * max(exact.max(), -exact.min())
    # A few columns at a time, and centered in place: many embeddings take gigabytes, and each copy as much again.
    few_columns = np.array_split(exact, -(-exact.shape[1] // COLUMNS), axis=1)
    if max(columns.std(axis=0).max() for columns in few_columns) <= rounding:
        return np.zeros((len(exact), 1))
    pca = PCA(components, copy=False, random_state=state)
    scores = pca.fit_transform(exact)
    deviation = np.sqrt(pca.explained_variance_)
    told = deviation > rounding
    # Blocked products round equal rows apart in the last digits, and k-means would split them.
    whitened: NDArray[np.float64] = np.round(scores[:, told] / deviation[told], DECIMALS)
    return whitened
