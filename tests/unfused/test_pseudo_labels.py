"""Pseudo-labels are the clusters of the train clips' embeddings, or, as a control, those dealt at random."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import normalized_mutual_info_score

from lape_bench.core.errors import UserError
from lape_bench.learning.training.clustering import ClusteringConfig, cluster
from lape_bench.unfused.pseudo_labels import PseudoLabelConfig, center_groups, pseudo_labels

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def config(clusters: int, components: int = 128, **how: object) -> PseudoLabelConfig:
    return PseudoLabelConfig.model_validate({"clusters": clusters, "components": components, **how})


def blobs(kinds: int, clips: int, features: int, seed: int = 0) -> tuple[Floats, Labels]:
    """Well separated blobs, and which clip is of which."""
    random = draw(seed)
    truth = np.arange(clips) % kinds
    centers = 10 * random.normal(size=(kinds, features))
    points = centers[truth] + 0.1 * random.normal(size=(clips, features))
    return points.astype(np.float32), truth


@pytest.mark.parametrize("seed", [0, 1])
def test_they_are_the_clusters_of_the_same_draw(seed: int) -> None:
    embeddings = draw(1).normal(size=(80, 10)).astype(np.float32)
    settings = ClusteringConfig(clusters=12, components=6, restarts=2)
    expected = cluster(embeddings, settings, draw(seed), held_by="the train split")
    found = pseudo_labels(embeddings, None, config(12, 6, restarts=2), draw(seed))
    assert np.array_equal(found, expected)
    assert found.dtype == np.int64


def test_fewer_clips_than_clusters_are_refused_by_the_split_that_holds_them() -> None:
    embeddings, _ = blobs(3, clips=30, features=4)
    with pytest.raises(UserError, match="clusters is 31, and the train split holds 30 clips"):
        pseudo_labels(embeddings, None, config(31), draw())


def test_shuffled_pseudo_labels_keep_the_sizes_and_tell_nothing() -> None:
    kinds = 6
    embeddings, truth = blobs(kinds, clips=240, features=12)
    truth = np.where(truth == 5, 4, truth)  # sizes that differ
    plain = pseudo_labels(embeddings, None, config(kinds, 5), draw(0))
    shuffled = pseudo_labels(
        embeddings, None, config(kinds, 5, shuffle_pseudo_labels=True), draw(0)
    )
    assert np.array_equal(np.bincount(shuffled), np.bincount(plain))
    assert normalized_mutual_info_score(truth, plain) > 0.9
    random = draw(9)
    by_chance = [normalized_mutual_info_score(truth, random.permutation(plain)) for _ in range(200)]
    found = normalized_mutual_info_score(truth, shuffled)
    assert found == pytest.approx(np.mean(by_chance), abs=4 * np.std(by_chance))
    assert found < 0.1


def test_centered_groups_have_the_mean_of_all_and_keep_their_differences() -> None:
    groups = np.array([4, 0, 4, 9, 0, 4, 7, 2])  # 9, 7 and 2 are alone
    embeddings = draw().normal(3, 2, size=(8, 5)).astype(np.float32)
    centered = center_groups(embeddings, groups)
    assert centered.dtype == np.float32
    together = np.where(np.isin(groups, [9, 7, 2]), -1, groups)
    for group in np.unique(together):
        rows = together == group
        np.testing.assert_allclose(centered[rows].mean(axis=0), embeddings.mean(axis=0), atol=1e-5)
        shift = embeddings[rows] - centered[rows]
        np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-5)


def test_centered_groups_no_longer_hide_what_they_share() -> None:
    kinds, speakers = 4, 6
    offsets = 30 * draw(3).normal(size=(speakers, 12))
    embeddings, truth = blobs(kinds, clips=240, features=12)
    groups = np.arange(240) // 40  # of every kind
    embeddings = (embeddings + offsets[groups]).astype(np.float32)
    plain = pseudo_labels(embeddings, groups, config(kinds, 5), draw())
    centered = pseudo_labels(embeddings, groups, config(kinds, 5, center_groups=True), draw())
    assert normalized_mutual_info_score(truth, plain) < 0.2
    assert normalized_mutual_info_score(truth, centered) > 0.99
    assert np.array_equal(plain, pseudo_labels(embeddings, None, config(kinds, 5), draw()))


def test_a_task_without_groups_cannot_center_them() -> None:
    with pytest.raises(UserError, match="center_groups is set, and the task names no group"):
        pseudo_labels(np.zeros((8, 3), np.float32), None, config(2, center_groups=True), draw())
