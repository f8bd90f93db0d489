"""Clusters against a pipeline written from its steps, and on embeddings that are few, equal or mixed up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import normalize

from lape_bench.core.errors import UserError
from lape_bench.learning.training.clustering import ClusteringConfig, cluster, whiten

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def config(clusters: int, components: int = 128, **how: object) -> ClusteringConfig:
    return ClusteringConfig.model_validate({"clusters": clusters, "components": components, **how})


def clustered(embeddings: Floats, how: ClusteringConfig, random: np.random.Generator) -> Labels:
    return cluster(embeddings, how, random, held_by="the corpus")


def blobs(kinds: int, clips: int, features: int, seed: int = 0) -> tuple[Floats, Labels]:
    """Well separated blobs, features of different sizes, and which clip is of which."""
    random = draw(seed)
    truth = np.arange(clips) % kinds
    centers = 10 * random.normal(size=(kinds, features))
    points = centers[truth] + 0.1 * random.normal(size=(clips, features))
    return (points * np.geomspace(0.1, 10, features)).astype(np.float32), truth


def step_by_step(embeddings: Floats, clusters: int, components: int) -> Labels:
    """Whiten by the singular value decomposition, bring rows to unit length, run k-means."""
    centered = embeddings.astype(np.float64) - embeddings.astype(np.float64).mean(axis=0)
    u, _, _ = np.linalg.svd(centered, full_matrices=False)
    whitened = u[:, :components] * np.sqrt(len(embeddings) - 1)
    directions = whitened / np.linalg.norm(whitened, axis=1, keepdims=True)
    found: Labels = KMeans(clusters, n_init=20, random_state=1).fit_predict(directions)
    return found


@pytest.mark.parametrize(
    ("kinds", "components", "features"), [(4, 3, 6), (6, 5, 12), (3, 2, 2), (5, 4, 40)]
)
def test_blobs_are_found_as_by_hand(kinds: int, components: int, features: int) -> None:
    embeddings, truth = blobs(kinds, clips=60, features=features, seed=kinds)
    found = clustered(embeddings, config(kinds, components), draw())
    assert (found.shape, found.dtype) == ((60,), np.int64)
    assert adjusted_rand_score(step_by_step(embeddings, kinds, components), found) == 1
    assert adjusted_rand_score(truth, found) == 1


def test_a_large_feature_does_not_drown_a_small_one() -> None:
    random = draw()
    truth, loud = np.arange(90) % 2, np.arange(90) % 3 - 1
    pair = np.stack([100 * loud, truth], axis=1) + 0.01 * random.normal(size=(90, 2))
    embeddings = pair.astype(np.float32)
    found = clustered(embeddings, config(2, 2), draw())
    assert adjusted_rand_score(truth, found) == 1
    assert adjusted_rand_score(step_by_step(embeddings, 2, 2), found) == 1


def test_embeddings_are_told_apart_by_their_direction_and_not_their_length() -> None:
    truth = np.arange(80) % 4
    directions = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])[truth]
    lengths = np.where(np.arange(80) // 4 % 2, 1.0, 20.0)
    points = lengths[:, None] * (directions + 0.02 * draw().normal(size=(80, 2)))
    found = clustered(points.astype(np.float32), config(4, 2), draw())
    assert adjusted_rand_score(truth, found) == 1


def test_only_the_leading_components_are_looked_at() -> None:
    truth, rest = np.arange(60) % 3, np.arange(60) // 3 % 2
    random = draw()
    centers = np.array([[10, 0], [-5, 8], [-5, -8]])
    lesser = 0.5 * rest[:, None] * np.ones((1, 1))
    embeddings = np.concatenate([centers[truth], lesser], axis=1) + 0.01 * random.normal(
        size=(60, 3)
    )
    found = clustered(embeddings.astype(np.float32), config(3, 2), draw())
    assert adjusted_rand_score(truth, found) == 1
    finer = clustered(embeddings.astype(np.float32), config(6, 3), draw())
    assert adjusted_rand_score(2 * truth + rest, finer) == 1


# --- few clips, few features ------------------------------------------------------------------------------


def test_fewer_clips_than_clusters_are_refused_with_both_numbers_and_what_to_do() -> None:
    embeddings, _ = blobs(3, clips=30, features=4)
    with pytest.raises(
        UserError,
        match=r"clusters is 31, and the corpus holds 30 clips .*; 2 to 30; .*--set clusters=3\.$",
    ):
        clustered(embeddings, config(31), draw())


@pytest.mark.parametrize(
    ("clips", "clusters"), [(2, 3), (3, 128), (9, 128), (19, 20), (200, 201), (30, 1000)]
)
def test_the_number_of_clusters_that_a_refusal_offers_is_accepted(
    clips: int, clusters: int
) -> None:
    embeddings, _ = blobs(2, clips, features=4)
    with pytest.raises(UserError) as refused:
        clustered(embeddings, config(clusters), draw())
    offered = int(refused.value.next_step.rpartition("=")[2])
    assert len(clustered(embeddings, config(offered), draw())) == clips


def test_with_as_many_clusters_as_clips_each_clip_is_one() -> None:
    embeddings, _ = blobs(3, clips=12, features=20)
    found = clustered(embeddings, config(12), draw())
    assert sorted(found.tolist()) == list(range(12))


@pytest.mark.parametrize(
    ("clips", "features", "most"),
    [(12, 40, 11), (40, 3, 3), (4, 4, 3), (2, 5, 1)],
    ids=["few clips", "few features", "both", "two clips"],
)
def test_components_are_at_most_the_features_and_one_fewer_than_the_clips(
    clips: int, features: int, most: int
) -> None:
    embeddings = draw(3).normal(size=(clips, features)).astype(np.float32)
    clusters = max(2, clips // 3)
    asked = clustered(embeddings, config(clusters, components=128), draw())
    assert np.array_equal(asked, clustered(embeddings, config(clusters, most), draw()))


@settings(max_examples=25)
@given(
    clips=st.integers(2, 20),
    features=st.integers(1, 12),
    components=st.integers(1, 20),
    share=st.floats(0, 1),
    seed=st.integers(0, 1000),
)
def test_every_clip_gets_a_cluster_below_k(
    clips: int, features: int, components: int, share: float, seed: int
) -> None:
    clusters = 2 + round(share * (clips - 2))
    embeddings = draw(seed).normal(size=(clips, features)).astype(np.float32)
    found = clustered(embeddings, config(clusters, components, restarts=1), draw(seed))
    assert found.shape == (clips,)
    assert found.min() >= 0
    assert found.max() < clusters


# --- equal embeddings -------------------------------------------------------------------------------------


def test_clips_that_are_equal_share_a_cluster_and_others_stay_empty() -> None:
    kinds = draw().normal(size=(3, 8)).astype(np.float32)
    truth = np.arange(24) % 3
    found = clustered(kinds[truth], config(10), draw())
    assert adjusted_rand_score(truth, found) == 1
    assert found.min() >= 0
    assert found.max() < 10
    assert np.count_nonzero(np.bincount(found, minlength=10)) == 3


@pytest.mark.parametrize("value", [0.0, 3.3, -1e4])
def test_embeddings_that_are_all_the_same_are_one_cluster(value: float) -> None:
    embeddings = np.full((9, 5), value, np.float32)
    assert len(set(clustered(embeddings, config(4), draw()).tolist())) == 1


@pytest.mark.parametrize("rank", [7, 20])
def test_directions_in_which_embeddings_differ_by_rounding_alone_do_not_count(rank: int) -> None:
    random, truth = draw(), np.arange(200) % 6
    points = random.normal(size=(6, rank))[truth] + 0.05 * random.normal(size=(200, rank))
    embeddings = (points @ random.normal(size=(rank, 64))).astype(np.float32)
    found = clustered(embeddings, config(6, components=48), draw())
    assert adjusted_rand_score(step_by_step(embeddings, 6, rank), found) == 1
    assert adjusted_rand_score(truth, found) == 1


# --- rounding ---------------------------------------------------------------------------------------------


def rounded_elsewhere(embeddings: Floats, random: np.random.Generator) -> Floats:
    """Return embeddings as the kernels of another processor might compute them."""
    noise = 1 + 1e-6 * random.normal(size=embeddings.shape)
    return (embeddings.astype(np.float64) * noise).astype(np.float32)


@settings(max_examples=40)
@given(
    kinds=st.integers(2, 6),
    copies=st.integers(2, 12),
    features=st.integers(2, 40),
    clusters=st.integers(2, 12),
    offset=st.sampled_from([0.0, 1.0, 30.0]),
    seed=st.integers(0, 1000),
)
def test_clips_that_differ_by_rounding_alone_share_a_cluster(
    kinds: int, copies: int, features: int, clusters: int, offset: float, seed: int
) -> None:
    random, truth = draw(seed), np.tile(np.arange(kinds), copies)
    exact = (offset + random.normal(size=(kinds, features))).astype(np.float32)[truth]
    embeddings = rounded_elsewhere(exact, random)
    how = config(min(clusters, len(truth)), restarts=1)
    found = clustered(embeddings, how, draw(seed))
    assert len({*zip(truth, found, strict=True)}) == kinds
    assert found.max() < how.clusters


@pytest.mark.parametrize("features", [3, 8, 200])
def test_a_clip_at_the_mean_is_not_torn_apart(features: int) -> None:
    truth = np.tile([-1, 0, 1], 20)
    exact = (5 + truth[:, None] * draw().normal(size=features)).astype(np.float32)
    found = clustered(rounded_elsewhere(exact, draw(1)), config(8), draw())
    assert adjusted_rand_score(truth, found) == 1


@pytest.mark.parametrize("features", [4, 64, 1000])
def test_rounding_errors_are_never_brought_to_unit_variance(features: int) -> None:
    random = draw()
    exact = (3 + random.normal(size=(80, 2)) @ random.normal(size=(2, features))).astype(np.float32)
    whitened = whiten(rounded_elsewhere(exact, random), min(79, features), state=0)
    assert whitened.shape == (80, 2)


def test_a_component_well_above_rounding_counts() -> None:
    random, truth = draw(), np.arange(80) % 2
    exact = np.stack([random.normal(size=80), 1e-4 * truth], axis=1).astype(np.float32)
    whitened = whiten(rounded_elsewhere(exact, random), 2, state=0)
    assert whitened.shape == (80, 2)
    assert adjusted_rand_score(truth, whitened[:, 1] > 0) == 1


def test_a_duplicate_counts_as_often_as_it_comes() -> None:
    directions = np.array([[1, 0], [0.9, 0.6], [-1, 0.1], [-0.7, -0.7]])
    embeddings = np.repeat(directions, [1, 7, 2, 5], axis=0).astype(np.float32)
    spread = embeddings + 1e-3 * draw().normal(size=embeddings.shape).astype(np.float32)
    equal, nearly = (
        clustered(each, config(3, restarts=20), draw()) for each in (embeddings, spread)
    )
    assert adjusted_rand_score(equal, nearly) == 1


def test_without_duplicates_clusters_are_those_of_k_means_on_all_rows() -> None:
    embeddings, how = draw(1).normal(size=(80, 10)).astype(np.float32), config(12, restarts=2)
    state = int(draw().integers(2**31))
    rows = normalize(whiten(embeddings, 10, state))
    kmeans = KMeans(12, n_init=2, max_iter=300, random_state=state)
    assert np.array_equal(clustered(embeddings, how, draw()), kmeans.fit_predict(rows))


# --- chance -----------------------------------------------------------------------------------------------


def test_the_same_generator_gives_the_same_clusters_and_another_other_ones() -> None:
    embeddings = draw(1).normal(size=(80, 10)).astype(np.float32)  # no blobs: k-means must choose
    how = config(12, 6, restarts=1)
    first = clustered(embeddings, how, draw(0))
    assert np.array_equal(first, clustered(embeddings, how, draw(0)))
    others = [clustered(embeddings, how, draw(seed)) for seed in range(1, 4)]
    assert any(adjusted_rand_score(first, other) < 1 for other in others)


def test_the_embeddings_are_left_as_they_were() -> None:
    embeddings, _ = blobs(3, clips=30, features=4)
    before = embeddings.copy()
    clustered(embeddings, config(3), draw())
    assert np.array_equal(embeddings, before)


def test_more_restarts_find_clusters_that_are_no_looser() -> None:
    embeddings = draw(1).normal(size=(60, 2)).astype(np.float32)
    centered = embeddings - embeddings.mean(axis=0)
    u, _, _ = np.linalg.svd(centered, full_matrices=False)
    directions = u / np.linalg.norm(u, axis=1, keepdims=True)

    def looseness(restarts: int, seed: int) -> float:
        found = clustered(embeddings, config(8, 2, restarts=restarts), draw(seed))
        members = [directions[found == cluster] for cluster in range(8)]
        return sum(float(((m - m.mean(axis=0)) ** 2).sum()) for m in members if len(m))

    seeds = range(8)
    once, often = ([looseness(restarts, seed) for seed in seeds] for restarts in (1, 20))
    assert np.mean(often) < np.mean(once)
