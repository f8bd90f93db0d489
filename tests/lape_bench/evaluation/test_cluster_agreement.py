"""Clusters held against classes: mutual information by entropies, purity by counting."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lape_bench.evaluation.cluster_agreement import describe, purity

Labels = NDArray[np.int64]
pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=30)


def entropy(things: list[object]) -> float:
    share = np.array(list(Counter(things).values())) / len(things)
    return float(-(share * np.log(share)).sum())


def mutual_information(clusters: Labels, labels: Labels) -> float:
    """H(clusters) + H(labels) - H(both), over the mean of the two entropies."""
    apart = entropy(clusters.tolist()), entropy(labels.tolist())
    shared = sum(apart) - entropy(list(zip(clusters.tolist(), labels.tolist(), strict=True)))
    return shared / (sum(apart) / 2)


def drawn(clips: int, clusters: int, classes: int, seed: int = 0) -> tuple[Labels, Labels]:
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=clips)
    noise = random.integers(clusters, size=clips)
    return np.where(random.random(clips) < 0.6, labels % clusters, noise), labels


@pytest.mark.parametrize(("clusters", "classes"), [(4, 4), (9, 3), (2, 6)])
def test_mutual_information_is_that_of_the_entropies(clusters: int, classes: int) -> None:
    found, labels = drawn(120, clusters, classes)
    expected = mutual_information(found, labels)
    assert 0.02 < expected < 0.98
    assert describe(found, labels)["nmi"] == pytest.approx(expected)


def test_purity_counts_each_clusters_most_frequent_class() -> None:
    # Cluster 0 holds classes 0 0 1, cluster 1 holds 1 1 1 2, cluster 2 nothing, cluster 3 holds 2.
    clusters = np.array([0, 0, 0, 1, 1, 1, 1, 3])
    labels = np.array([0, 0, 1, 1, 1, 1, 2, 2])
    assert purity(clusters, labels) == pytest.approx((2 + 3 + 1) / 8)
    assert describe(clusters, labels)["purity"] == pytest.approx(6 / 8)
    # The other way round: class 0 lies in one cluster, class 1 in two (1 and 3 clips), class 2 in two.
    assert purity(labels, clusters) == pytest.approx((2 + 3 + 1) / 8)


def test_purity_and_its_reverse_differ_where_clusters_are_many() -> None:
    clusters, labels = np.arange(10), np.arange(10) % 2
    assert purity(clusters, labels) == 1
    assert purity(labels, clusters) == pytest.approx(2 / 10)


@given(pairs)
def test_purity_agrees_with_a_loop_over_clusters(held: list[tuple[int, int]]) -> None:
    clusters, labels = (np.array(side) for side in zip(*held, strict=True))
    right = 0
    for cluster in set(clusters.tolist()):
        right += max(Counter(labels[clusters == cluster].tolist()).values())
    assert purity(clusters, labels) == pytest.approx(right / len(held))


@settings(max_examples=25)
@given(pairs)
def test_all_three_lie_between_zero_and_one_and_do_not_depend_on_names(
    held: list[tuple[int, int]],
) -> None:
    clusters, labels = (np.array(side) for side in zip(*held, strict=True))
    found = describe(clusters, labels)
    assert all(-1e-9 <= value <= 1 + 1e-9 for value in found.values())
    renamed = describe(np.array([3, 0, 4, 1, 2])[clusters], np.array([2, 3, 0, 1])[labels])
    assert renamed == pytest.approx(found)


def test_clusters_that_are_the_classes_tell_everything_whatever_their_names() -> None:
    labels = np.arange(60) % 5
    clusters = np.array([3, 1, 4, 0, 2])[labels]
    found = describe(clusters, labels)
    assert found["nmi"] == pytest.approx(1)
    assert found["purity"] == 1
    assert found["nmi_shuffled"] < 0.3


def test_a_single_cluster_tells_nothing() -> None:
    labels = np.array([0, 0, 0, 1, 2])
    found = describe(np.zeros(5, np.int64), labels)
    assert found == pytest.approx({"nmi": 0, "nmi_shuffled": 0, "purity": 3 / 5})


def test_the_shuffled_level_grows_with_the_number_of_clusters() -> None:
    labels = np.arange(200) % 8
    levels = [describe(np.arange(200) % k, labels)["nmi_shuffled"] for k in (2, 8, 32, 128)]
    assert levels == sorted(levels)
    assert levels[0] < 0.05
    assert levels[-1] > 0.4


def test_the_shuffled_level_is_the_mean_of_clusters_dealt_at_random() -> None:
    clusters, labels = drawn(150, 12, 6)
    random = np.random.default_rng(123)
    by_chance = [mutual_information(random.permutation(clusters), labels) for _ in range(400)]
    found = describe(clusters, labels)
    assert found["nmi_shuffled"] == pytest.approx(np.mean(by_chance), abs=np.std(by_chance))
    assert found["nmi"] > found["nmi_shuffled"] + 5 * np.std(by_chance)


def test_the_same_clusters_are_described_the_same_twice_and_left_as_they_were() -> None:
    clusters, labels = drawn(50, 6, 4)
    before = clusters.copy(), labels.copy()
    assert describe(clusters, labels) == describe(clusters, labels)
    assert np.array_equal(clusters, before[0])
    assert np.array_equal(labels, before[1])
