"""Clusters of embeddings: whitened principal components, rows of unit length, k-means (as in arXiv:1807.05520).

No label is seen.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from threadpoolctl import threadpool_limits

from lape_bench.core.config import Config
from lape_bench.core.errors import UserError

MAX_ITERATIONS = 300
# Standard deviation of the rounding error of an embedding computed in float32, relative to the largest number of all
# embeddings. Kernels of another processor, or another place in the batch, round differently.
ROUNDING = 1e-6
MIN_SIGNAL = 4  # how much more than rounding a component must vary to count
DUPLICATE = 10  # embeddings closer than so many standard deviations of the rounding error are equal
DECIMALS = 6  # of whitened components; later digits depend on the processor


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
    """Cluster embeddings: PCA with whitening, rows of unit length, k-means.

    Embeddings that differ by rounding alone always share a cluster.

    Args:
        embeddings: of clips, shape (clips, features).
        config: number of clusters, components and restarts.
        random: seeds PCA and k-means.
        held_by: what holds the clips, such as "the corpus", for the error message.

    Returns:
        Cluster of each clip, shape (clips,), in [0, clusters). Some clusters are empty if fewer embeddings differ.

    Raises:
        UserError: there are fewer clips than clusters, or embeddings that are not finite.
    """
    from sklearn.cluster import KMeans  # slow to import
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import normalize

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
    # On one thread: k-means adds the threads' sums in the order they finish, which moves the last digits.
    with threadpool_limits(1), warnings.catch_warnings():
        # Fewer different directions than clusters: some clusters stay empty, which their sizes show.
        warnings.simplefilter("ignore", ConvergenceWarning)
        directions = normalize(
            whiten(embeddings, min(config.components, clips - 1, features), state)
        )
        # Every different row once, weighted: equal rows would tie, and rounding would break the tie either way.
        _, first, row, count = np.unique(
            directions, axis=0, return_index=True, return_inverse=True, return_counts=True
        )
        order = np.argsort(first)  # by first appearance, so that without duplicates nothing moves
        kmeans = KMeans(
            min(config.clusters, len(order)),
            n_init=config.restarts,
            max_iter=MAX_ITERATIONS,
            random_state=state,
        )
        labels = kmeans.fit_predict(directions[first[order]], sample_weight=count[order])
    clusters: NDArray[np.int64] = labels[np.argsort(order)[row]].astype(np.int64)
    return clusters


def whiten(embeddings: NDArray[np.float32], components: int, state: int) -> NDArray[np.float64]:
    """Project embeddings on their principal components and scale each to unit variance.

    Components that vary by rounding alone are left out: scaled to unit variance they would drown the rest. The largest
    standard deviation that independent rounding errors have in any direction is their own times
    1 + sqrt(features / clips) (Marchenko and Pastur, 1967).

    Args:
        embeddings: shape (clips, features).
        components: how many, at most.
        state: seeds the solver.

    Returns:
        Shape (clips, components or fewer). Embeddings that differ by rounding alone have equal rows; the row of one that
        differs from the mean by rounding alone is 0. If all embeddings are equal there is one component, which is 0.
    """
    from sklearn.decomposition import PCA  # slow to import

    clips, features = embeddings.shape
    rounding = ROUNDING * float(np.abs(embeddings).max())
    if np.ptp(embeddings, axis=0).max() <= DUPLICATE * rounding:
        return np.zeros((clips, 1))
    # Centered in place: many embeddings take gigabytes, and each copy as much again.
    pca = PCA(components, copy=False, random_state=state)
    scores = pca.fit_transform(embeddings.astype(np.float64))
    deviation = np.sqrt(pca.explained_variance_)
    kept = deviation > MIN_SIGNAL * rounding * (1 + np.sqrt(features / clips))
    if not kept.any():
        return np.zeros((clips, 1))
    scores = scores[:, kept]
    whitened: NDArray[np.float64] = np.round(scores / deviation[kept], DECIMALS)
    # Scaled to unit length, what is left of a clip at the mean would be a direction of rounding errors.
    whitened[(np.abs(scores) <= DUPLICATE * rounding).all(axis=1)] = 0
    whitened[:] = whitened[_representatives(scores, DUPLICATE * rounding)]
    return whitened


def _representatives(rows: NDArray[np.float64], tolerance: float) -> NDArray[np.int64]:
    """Return the index of one row that stands for each row and all that are equal to it within a tolerance.

    Args:
        rows: shape (rows, features); the first feature should vary most.
        tolerance: absolute, of each feature.
    """
    order = np.argsort(rows[:, 0], kind="stable")
    ordered = rows[order, 0]
    ends = np.searchsorted(ordered, ordered + tolerance, side="right")
    representative = np.full(len(rows), -1)
    for begin, end in enumerate(ends):
        first = order[begin]
        if representative[first] >= 0:
            continue
        near = order[begin:end]
        equal = near[(np.abs(rows[near] - rows[first]) <= tolerance).all(axis=1)]
        representative[equal[representative[equal] < 0]] = first
    return representative
