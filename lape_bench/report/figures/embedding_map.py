"""Embedding map: clips in the plane by their embeddings, colored by class."""

import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lape_bench.core.errors import UserError
from lape_bench.report.figures.style import legend_below, mark, panels

Method = Literal["pca", "tsne"]
METHODS: tuple[Method, ...] = ("pca", "tsne")
COLORED = 24  # classes; of more, those with the most clips
FEWEST_CLIPS = 3


def embedding_map(
    embeddings: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: Sequence[str],
    title: str,
    method: Method = "pca",
) -> Figure:
    """Draw a point per clip.

    Args:
        embeddings: one per clip, shape (clips, features).
        labels: class of each clip, shape (clips,).
        classes: their names.
        title: above the figure.
        method: the plane of most variance, or t-SNE, which keeps neighbors and no distances.

    Raises:
        UserError: there are too few clips.
    """
    if len(embeddings) < FEWEST_CLIPS:
        raise UserError(
            f"{title} has {len(embeddings)} embedded clips", allowed=f"at least {FEWEST_CLIPS}"
        )
    places, axes_labels = project(embeddings, method)
    figure, (axis,) = panels(1, inches=(6.4, 5.4))
    counts = np.bincount(labels, minlength=len(classes))
    chosen = sorted(np.argsort(-counts, kind="stable")[:COLORED].tolist())
    drawn: dict[str, Any] = {}
    rest = ~np.isin(labels, chosen)
    if rest.any():
        drawn[f"{len(classes) - len(chosen)} other classes"] = axis.scatter(
            places[rest, 0], places[rest, 1], s=5, color="#bbbbbb", linewidths=0
        )
    for number, index in enumerate(index for index in chosen if counts[index]):
        look, of_class = mark(number), labels == index
        drawn[classes[index]] = axis.scatter(
            places[of_class, 0], places[of_class, 1], s=16, color=look.color, marker=look.marker,
            linewidths=0.3, edgecolors="white",
        )  # fmt: skip
    axis.set_title(textwrap.fill(title, 72))
    axis.set_xlabel(axes_labels[0])
    axis.set_ylabel(axes_labels[1])
    if method == "tsne":
        axis.set_xticks([])
        axis.set_yticks([])
    legend_below(figure, drawn)
    return figure


def project(
    embeddings: NDArray[np.float32], method: Method
) -> tuple[NDArray[np.float64], tuple[str, str]]:
    """Bring embeddings to the plane.

    Returns:
        Places, shape (clips, 2), and what the two axes are.
    """
    # Slow to import, and no other figure needs it.
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full").fit(embeddings)
    places = pca.transform(embeddings).astype(np.float64)
    if method == "pca":
        first, second = 100 * pca.explained_variance_ratio_
        return places, (
            f"component 1 ({first:.1f} % of variance)",
            f"component 2 ({second:.1f} % of variance)",
        )
    from sklearn.manifold import TSNE

    scale = places / max(float(places[:, 0].std()), 1e-12) * 1e-4
    perplexity = min(30.0, (len(embeddings) - 1) / 3)
    tsne = TSNE(2, perplexity=perplexity, init=scale.astype(np.float32), random_state=0)
    return tsne.fit_transform(embeddings).astype(np.float64), ("t-SNE 1", "t-SNE 2")
