"""SLICER: both losses by hand, who sees which view, the queue, and whom it teaches."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.testing import assert_close

from lape_bench.baselines.slicer import (
    Slicer,
    SlicerConfig,
    SlicerObjective,
    cluster_contrast,
    imbalance,
)
from lape_bench.learning.augmentations.k_mix import FarthestCluster
from lape_bench.learning.augmentations.random_resize_crop import RandomResizeCrop
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.systems.momentum_contrast import MomentumContrastConfig

D, KEY, QUEUE, CLUSTERS, BATCH = 8, 5, 8, 6, 3
TINY: dict[str, Any] = {
    "width": D,
    "key_features": KEY,
    "key_hidden": 6,
    "queue": QUEUE,
    "clusters": CLUSTERS,
    "cluster_hidden": 7,
}


def build(clips: int = 1000, **changes: Any) -> SlicerObjective:
    torch.manual_seed(0)
    config = SlicerConfig.model_validate(TINY | changes)
    return Slicer.build_objective(AudioNTT(D, dropout=0.0), config, clips).train()


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def shares(batch: int, clusters: int, seed: int) -> Tensor:
    return (2 * normal(batch, clusters, seed=seed)).softmax(dim=1)


def two_views(seed: int = 0, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    a, b = normal(2, batch, 64, 16, seed=seed).float()
    return a, 2 * b + 1  # views whose statistics differ


def projections(seed: int) -> list[Tensor]:
    """What `forward_views` returns: queries, keys and cluster scores of both views."""
    sizes = [KEY] * 4 + [CLUSTERS] * 2
    return [normal(BATCH, size, seed=10 * seed + place) for place, size in enumerate(sizes)]


def swapped(parts: list[Tensor]) -> list[Tensor]:
    return [parts[place] for place in (1, 0, 3, 2, 5, 4)]


def cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


# --- the cluster-level contrast ---------------------------------------------------------------------------


def contrast_by_hand(p_a: Tensor, p_b: Tensor, temperature: float) -> float:
    """Over all clusters of both views: which of the other columns is this cluster, as the other view has it?"""
    views, terms = (p_a.numpy(), p_b.numpy()), []
    clusters = p_a.shape[1]
    for view in (0, 1):
        for k in range(clusters):
            own = views[view][:, k]

            def score(other: NDArray[np.float64], own: NDArray[np.float64] = own) -> float:
                return math.exp(cosine(own, other) / temperature)

            partner = score(views[1 - view][:, k])
            rest = [score(v[:, j]) for v in views for j in range(clusters) if j != k]
            terms.append(-math.log(partner / (partner + sum(rest))))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize(("batch", "clusters"), [(1, 2), (5, 3), (4, 9)])
def test_the_cluster_contrast_agrees_with_a_loop_over_clusters(
    batch: int, clusters: int, temperature: float
) -> None:
    views = shares(batch, clusters, 0), shares(batch, clusters, 1)
    expected = contrast_by_hand(*views, temperature)
    assert float(cluster_contrast(*views, temperature)) == pytest.approx(expected)


@pytest.mark.parametrize("clips", [[0, 1, 2, 3, 4], [2, 0, 1, 4, 3], [1, 0, 2, 3, 4]])
@pytest.mark.parametrize("clusters", [[0, 1, 2], [2, 0, 1], [0, 2, 1]])
def test_it_depends_on_which_clips_and_clusters_belong_together_and_not_on_their_order(
    clips: list[int], clusters: list[int]
) -> None:
    p_a = shares(5, 3, 0)
    p_b = (p_a.log() + 0.1 * normal(5, 3, seed=1)).softmax(dim=1)
    paired = cluster_contrast(p_a, p_b, 0.2)
    assert_close(cluster_contrast(p_b, p_a, 0.2), paired)
    assert_close(cluster_contrast(p_a[clips][:, clusters], p_b[clips][:, clusters], 0.2), paired)
    if clips != sorted(clips):
        assert cluster_contrast(p_a, p_b[clips], 0.2) > paired
    if clusters != sorted(clusters):
        assert cluster_contrast(p_a, p_b[:, clusters], 0.2) > paired


def test_the_size_of_a_cluster_does_not_matter() -> None:
    p_a, p_b = shares(7, 4, 0), shares(7, 4, 1)
    sizes = torch.tensor([1e-3, 1.0, 2.0, 30.0], dtype=torch.float64)
    assert_close(cluster_contrast(sizes * p_a, p_b, 1.0), cluster_contrast(p_a, p_b, 1.0))


def test_it_is_least_where_every_clip_has_one_cluster_and_all_clusters_have_clips() -> None:
    sure = torch.eye(4, dtype=torch.float64).repeat(2, 1)
    least = math.log(math.e + 6) - 1
    assert float(cluster_contrast(sure, sure, 1.0)) == pytest.approx(least)
    for seed in range(20):
        assert float(cluster_contrast(shares(8, 4, seed), shares(8, 4, seed), 1.0)) > least


def test_clusters_that_share_all_clips_alike_leave_a_guess_among_all_others() -> None:
    alike = torch.full((5, 4), 0.25)
    assert float(cluster_contrast(alike, alike, 1.0)) == pytest.approx(math.log(7))


@pytest.mark.parametrize("batch", [1, 4, 9])
def test_imbalance_agrees_with_the_entropy_of_the_sizes(batch: int) -> None:
    p = shares(batch, 5, 0)
    sizes = p.numpy().sum(axis=0) / batch
    expected = math.log(5) + sum(size * math.log(size) for size in sizes)
    assert float(imbalance(p)) == pytest.approx(expected)


def test_imbalance_is_zero_for_equal_clusters_and_most_for_a_single_one() -> None:
    assert float(imbalance(torch.eye(4).repeat(3, 1))) == pytest.approx(0)
    single = torch.eye(4)[[2, 2, 2]].requires_grad_()
    most = imbalance(single)
    assert most.item() == pytest.approx(math.log(4))
    most.backward()
    assert torch.isfinite(single.grad).all()


def test_gradients_of_both_agree_with_differences_and_stay_finite_for_clusters_without_clips() -> (
    None
):
    scores = [normal(4, 3, seed=seed).requires_grad_() for seed in (0, 1)]

    def both(a: Tensor, b: Tensor) -> Tensor:
        p_a, p_b = a.softmax(dim=1), b.softmax(dim=1)
        return cluster_contrast(p_a, p_b, 0.5) + imbalance(p_a) + imbalance(p_b)

    assert torch.autograd.gradcheck(both, scores)
    sure = (200 * torch.eye(3)[[0, 0, 1]]).requires_grad_()  # the last cluster's share is 0
    both(sure, sure).backward()
    assert torch.isfinite(sure.grad).all()


# --- what is projected, and the whole loss ----------------------------------------------------------------


def test_student_and_teacher_see_both_views_and_the_student_alone_tells_clusters() -> None:
    objective, apart = build(), build()
    with torch.no_grad():
        for parameter in (*objective.teacher.parameters(), *apart.teacher.parameters()):
            parameter.mul_(1.5)  # so that the two can be told apart
    query_a, query_b, key_a, key_b, scores_a, scores_b = objective.forward_views(*two_views())
    for view, query, key, scores in zip(
        two_views(), (query_a, query_b), (key_a, key_b), (scores_a, scores_b), strict=True
    ):
        embedding = apart.student.encoder(view)
        assert_close(query, apart.student.key(embedding))
        assert_close(scores, apart.cluster(embedding))
        assert_close(key, apart.teacher.key(apart.teacher.encoder(view)))
        assert (query.requires_grad, scores.requires_grad, key.requires_grad) == (True, True, False)
        assert (query.shape, scores.shape) == ((BATCH, KEY), (BATCH, CLUSTERS))


@pytest.mark.parametrize(("weight", "balance"), [(1.0, 0.0), (0.0, 0.0), (0.7, 0.3)])
def test_the_loss_over_some_batches_agrees_with_a_loop_over_clips_clusters_and_the_last_keys(
    weight: float, balance: float
) -> None:
    objective = build(
        temperature=0.3, cluster_temperature=0.6, cluster_weight=weight, balance=balance
    ).double()
    held: list[tuple[int, NDArray[np.float64]]] = []
    for seed in range(5):
        clips = torch.tensor([0, 1 + seed, 6 + seed % 2])  # some are in the queue already
        parts = projections(seed)
        query_a, query_b, key_a, key_b = (part.numpy() for part in parts[:4])
        terms = []
        both = [*clips.tolist()] * 2
        for query, key, clip in zip([*query_a, *query_b], [*key_b, *key_a], both, strict=True):
            negatives = [older for its_clip, older in held if its_clip != clip]
            own, *others = (math.exp(cosine(query, each) / 0.3) for each in (key, *negatives))
            terms.append(-math.log(own / (own + sum(others))))
        p_a, p_b = (torch.softmax(part, dim=1) for part in parts[4:])
        clusters = contrast_by_hand(p_a, p_b, 0.6)
        clusters += balance * float(imbalance(p_a) + imbalance(p_b))
        # The sum of two means over the batch.
        expected = sum(terms) / BATCH + weight * clusters
        assert float(objective.loss(*parts, clips)) == pytest.approx(expected)
        held = [*held, *zip(both, [*key_a, *key_b], strict=True)][-QUEUE:]
        assert sorted(objective.queue.keys[objective.queue.clips >= 0].tolist()) == sorted(
            key.tolist() for _, key in held
        )


def test_neither_the_order_of_views_or_clips_nor_the_length_of_queries_and_keys_matters() -> None:
    def loss(change: Any) -> Tensor:
        objective = build(balance=0.5).double()
        for seed in range(2):
            objective.loss(*projections(seed), BATCH * seed + torch.arange(BATCH))
        return objective.loss(*change(projections(2)), 9 * BATCH + torch.arange(BATCH))

    plain = loss(lambda parts: parts)
    assert_close(loss(swapped), plain)
    assert_close(loss(lambda parts: [part[[2, 0, 1]] for part in parts]), plain)
    assert_close(loss(lambda parts: [7 * z for z in parts[:4]] + parts[4:]), plain)


def test_no_gradient_reaches_teacher_or_queue_and_every_other_parameter_gets_one() -> None:
    objective = build()
    objective.loss(*objective.forward_views(*two_views(0)), torch.arange(BATCH))
    view_a, view_b = (view.requires_grad_() for view in two_views(1))
    compared = objective.forward_views(view_a, view_b)
    objective.loss(*compared, BATCH + torch.arange(BATCH)).backward()
    assert (view_a.grad is None, view_b.grad is None) == (False, False)
    assert not objective.queue.keys[objective.queue.clips >= 0].requires_grad
    assert all(p.grad is None for p in objective.teacher.parameters())
    for part in (objective.student, objective.cluster):
        assert all(torch.isfinite(p.grad).all() for p in part.parameters())


def test_the_teacher_has_no_cluster_head() -> None:
    objective = build()
    ours = {name for name, _ in objective.student.named_parameters()}
    assert {name for name, _ in objective.teacher.named_parameters()} == ours


# --- settings and views -----------------------------------------------------------------------------------


def test_what_it_shares_with_moco_has_its_defaults() -> None:
    ours, theirs = SlicerConfig().model_dump(), MomentumContrastConfig().model_dump()
    assert theirs == {name: ours[name] for name in theirs}


def test_its_heads_have_the_published_sizes() -> None:
    objective = Slicer.build_objective(AudioNTT(D), SlicerConfig(width=D), 1000)
    into, *_, out = objective.cluster
    assert (into.in_features, into.out_features, out.out_features) == (D, 2048, 128)
    assert objective.student.key[-1].out_features == 128


def test_its_views_are_k_mix_and_then_a_crop() -> None:
    views = Slicer.new_views(SlicerConfig(mix_clusters=3, mix_candidates=7), (64, 20), 30)
    choose = views.mixup.choose
    assert isinstance(choose, FarthestCluster)
    assert (choose.centroids.shape, choose.candidates) == ((3, 64), 7)
    assert isinstance(views.crop, RandomResizeCrop)
    assert {"mixup.choose.centroids", "mixup.choose._extra_state"} <= set(views.state_dict())
