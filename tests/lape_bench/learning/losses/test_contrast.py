"""InfoNCE, NT-Xent and the bilinear contrast against loops written off their equations, and against cross-entropy."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from lape_bench.learning.losses.contrast import bilinear_contrast, info_nce, nt_xent

few_examples = settings(max_examples=40)


def rows(count: int, seed: int, features: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, features, generator=generator, dtype=torch.float64)


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other) / (math.hypot(*one.tolist()) * math.hypot(*other.tolist()))


def loss_by_hand(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> float:
    terms = []
    for query, key in zip(queries, keys, strict=True):
        positive = math.exp(cosine(query, key) / temperature)
        others = sum(math.exp(cosine(query, other) / temperature) for other in negatives)
        terms.append(-math.log(positive / (positive + others)))
    return sum(terms) / len(terms)


# --- InfoNCE ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
@pytest.mark.parametrize(("batch", "negatives"), [(1, 1), (5, 7), (6, 2)])
def test_the_loss_agrees_with_a_loop_over_clips(
    batch: int, negatives: int, temperature: float
) -> None:
    given = rows(batch, 0), rows(batch, 1), rows(negatives, 2)
    expected = loss_by_hand(*given, temperature)
    assert float(info_nce(*given, temperature)) == pytest.approx(expected)


def test_the_loss_is_the_cross_entropy_of_picking_the_own_key() -> None:
    queries, keys, negatives = rows(5, 0), rows(5, 1), rows(7, 2)
    scores = torch.stack(
        [
            F.cosine_similarity(query[None], torch.cat([key[None], negatives]), dim=1)
            for query, key in zip(queries, keys, strict=True)
        ]
    )
    expected = F.cross_entropy(scores / 0.2, torch.zeros(5, dtype=torch.long))
    assert_close(info_nce(queries, keys, negatives, 0.2), expected)


@few_examples
@given(scales=st.lists(st.floats(1e-3, 1e3), min_size=13, max_size=13))
def test_the_length_of_a_row_does_not_matter(scales: list[float]) -> None:
    parts = rows(3, 0), rows(3, 1), rows(7, 2)
    by_row = torch.tensor(scales, dtype=torch.float64)[:, None].split([3, 3, 7])
    scaled = [part * scale for part, scale in zip(parts, by_row, strict=True)]
    assert_close(info_nce(*scaled, 0.1), info_nce(*parts, 0.1))


@few_examples
@given(order=st.permutations(range(7)))
def test_the_order_of_the_negatives_does_not_matter(order: list[int]) -> None:
    queries, keys, negatives = rows(3, 0), rows(3, 1), rows(7, 2)
    moved = info_nce(queries, keys, negatives[order], 0.1)
    assert_close(moved, info_nce(queries, keys, negatives, 0.1))


@few_examples
@given(order=st.permutations(range(5)))
def test_the_order_of_the_clips_does_not_matter_but_their_pairing_does(order: list[int]) -> None:
    queries, negatives = rows(5, 0), rows(7, 2)
    keys = queries + 0.1 * rows(5, 1)
    paired = info_nce(queries, keys, negatives, 0.1)
    assert_close(info_nce(queries[order], keys[order], negatives, 0.1), paired)
    if order != list(range(5)):
        assert info_nce(queries, keys[order], negatives, 0.1) > paired


def test_without_negatives_there_is_nothing_to_tell_apart() -> None:
    queries = rows(5, 0).requires_grad_()
    loss = info_nce(queries, rows(5, 1), rows(0, 2), 0.07)
    loss.backward()
    assert loss.item() == 0
    assert not queries.grad.any()


@pytest.mark.parametrize("kept", [[], [2], [0, 3, 4], list(range(6))])
def test_a_negative_that_does_not_count_is_as_if_it_were_not_there(kept: list[int]) -> None:
    queries, keys, negatives = rows(5, 0).requires_grad_(), rows(5, 1), rows(6, 2)
    allowed = torch.zeros(5, 6, dtype=torch.bool)
    allowed[:, kept] = True
    masked = info_nce(queries, keys, negatives, 0.1, allowed)
    without = info_nce(queries, keys, negatives[kept], 0.1)
    assert_close(masked, without)
    gradients = (torch.autograd.grad(loss, queries)[0] for loss in (masked, without))
    assert_close(*gradients)


def test_each_query_has_negatives_of_its_own() -> None:
    queries, keys, negatives = rows(3, 0), rows(3, 1), rows(4, 2)
    kept = [[0, 3], [], [1, 2, 3]]
    allowed = torch.zeros(3, 4, dtype=torch.bool)
    for query, columns in enumerate(kept):
        allowed[query, columns] = True
    alone = [
        info_nce(queries[[i]], keys[[i]], negatives[columns], 0.1) for i, columns in enumerate(kept)
    ]
    found = info_nce(queries, keys, negatives, 0.1, allowed)
    assert_close(found, torch.stack(alone).mean())


def test_negatives_like_the_own_key_leave_a_guess_among_equals() -> None:
    keys = rows(4, 1)
    losses = [
        info_nce(query[None], key[None], key.expand(9, -1), 0.3)
        for query, key in zip(rows(4, 0), keys, strict=True)
    ]
    assert_close(torch.stack(losses), torch.full((4,), math.log(10), dtype=torch.float64))


def test_a_negative_more_never_lowers_the_loss() -> None:
    queries, keys, negatives = rows(5, 0), rows(5, 1), rows(7, 2)
    losses = [float(info_nce(queries, keys, negatives[:count], 0.1)) for count in range(8)]
    assert losses == sorted(losses)
    assert losses[0] < losses[-1]


def test_a_cold_temperature_neither_overflows_nor_loses_its_gradient() -> None:
    queries = rows(5, 0).float().requires_grad_()
    loss = info_nce(queries, -queries.detach(), queries.detach(), 1e-3)
    loss.backward()
    assert loss.item() == pytest.approx(2000, rel=0.1)
    assert torch.isfinite(queries.grad).all()


def test_a_silent_row_has_a_finite_loss_and_gradient() -> None:
    queries = rows(3, 0).index_fill(0, torch.tensor(1), 0.0).requires_grad_()
    loss = info_nce(queries, rows(3, 1), rows(4, 2), 0.1)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(queries.grad).all()


def test_gradients_reach_queries_keys_and_negatives_and_agree_with_differences() -> None:
    given = [part.clone().requires_grad_() for part in (rows(3, 0), rows(3, 1), rows(4, 2))]
    assert torch.autograd.gradcheck(lambda q, k, n: info_nce(q, k, n, 0.5), given)


# --- NT-Xent ----------------------------------------------------------------------------------------------


def nt_xent_by_hand(z_a: Tensor, z_b: Tensor, temperature: float) -> float:
    """l(i, j) of Eq. (1), summed over both orders of every pair; views 2k - 1 and 2k are of one clip."""
    views = [view for pair in zip(z_a, z_b, strict=True) for view in pair]

    def term(i: int, j: int) -> float:
        scores = [math.exp(cosine(views[i], view) / temperature) for view in views]
        return -math.log(scores[j] / sum(score for k, score in enumerate(scores) if k != i))

    pairs = [(2 * k, 2 * k + 1) for k in range(len(z_a))]
    return sum(term(i, j) + term(j, i) for i, j in pairs) / len(views)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
@pytest.mark.parametrize("batch", [2, 3, 7])
def test_nt_xent_agrees_with_a_loop_over_pairs(batch: int, temperature: float) -> None:
    z_a, z_b = rows(batch, 0), rows(batch, 1)
    expected = nt_xent_by_hand(z_a, z_b, temperature)
    assert float(nt_xent(z_a, z_b, temperature)) == pytest.approx(expected)


def test_nt_xent_is_info_nce_of_each_view_with_all_views_of_the_other_clips_as_negatives() -> None:
    z = rows(4, 0), rows(4, 1)
    terms = []
    for clip, (own, other) in itertools.product(range(4), ((0, 1), (1, 0))):
        rest = [view for view in range(4) if view != clip]
        negatives = torch.cat([z[0][rest], z[1][rest]])
        terms.append(info_nce(z[own][[clip]], z[other][[clip]], negatives, 0.2))
    assert_close(nt_xent(*z, 0.2), torch.stack(terms).mean())


@few_examples
@given(scales=st.lists(st.floats(1e-3, 1e3), min_size=6, max_size=6))
def test_nt_xent_does_not_depend_on_the_length_of_a_row(scales: list[float]) -> None:
    z_a, z_b = rows(3, 0), rows(3, 1)
    by_a, by_b = torch.tensor(scales, dtype=torch.float64)[:, None].split(3)
    assert_close(nt_xent(by_a * z_a, by_b * z_b, 0.1), nt_xent(z_a, z_b, 0.1))


@few_examples
@given(order=st.permutations(range(5)))
def test_nt_xent_depends_on_the_pairing_and_not_on_the_order_of_clips_or_views(
    order: list[int],
) -> None:
    z_a = rows(5, 0)
    z_b = z_a + 0.1 * rows(5, 1)
    paired = nt_xent(z_a, z_b, 0.1)
    assert_close(nt_xent(z_b, z_a, 0.1), paired)
    assert_close(nt_xent(z_a[order], z_b[order], 0.1), paired)
    if order != list(range(5)):
        assert nt_xent(z_a, z_b[order], 0.1) > paired


def test_a_rotation_of_all_views_leaves_nt_xent_as_it_is() -> None:
    rotation, _ = torch.linalg.qr(rows(4, 3))
    z_a, z_b = rows(5, 0), rows(5, 1)
    assert_close(nt_xent(z_a @ rotation, z_b @ rotation, 0.2), nt_xent(z_a, z_b, 0.2))


@pytest.mark.parametrize("clips", [2, 3, 4])
def test_nt_xent_is_least_where_partners_are_equal_and_clips_as_far_apart_as_can_be(
    clips: int,
) -> None:
    # The corners of a simplex: cosine 1 to the partner, -1 / (clips - 1) to all others.
    simplex = torch.eye(clips, dtype=torch.float64) - 1 / clips
    apart = math.exp(-1 / (clips - 1) / 0.3)
    least = -math.log(math.exp(1 / 0.3) / (math.exp(1 / 0.3) + 2 * (clips - 1) * apart))
    assert float(nt_xent(simplex, simplex, 0.3)) == pytest.approx(least)
    for seed in range(20):
        moved = [simplex + 0.2 * rows(clips, seed + 50 * view, clips) / 3 for view in (0, 1)]
        assert float(nt_xent(*moved, 0.3)) > least


def test_nt_xent_of_collapsed_views_is_a_guess_among_all_others() -> None:
    ones = torch.ones(5, 3, dtype=torch.float64)
    assert float(nt_xent(ones, ones, 0.1)) == pytest.approx(math.log(9))


def test_gradients_of_nt_xent_reach_both_views_agree_with_differences_and_stay_finite() -> None:
    views = [rows(3, 0).requires_grad_(), rows(3, 1).requires_grad_()]
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.5), views)
    silent = rows(3, 0).index_fill(0, torch.tensor(1), 0.0)
    for z_a, z_b in ((rows(2, 0), -rows(2, 0)), (silent, rows(3, 1)), (silent, silent)):
        cold = [z.float().requires_grad_() for z in (z_a, z_b)]
        loss = nt_xent(*cold, 1e-3)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(torch.isfinite(z.grad).all() for z in cold)


# --- the bilinear contrast --------------------------------------------------------------------------------


def bilinear_by_hand(anchors: Tensor, positives: Tensor, weight: Tensor) -> float:
    terms = []
    for i, anchor in enumerate(anchors.numpy()):
        scores = [np.exp(anchor @ weight.numpy() @ positive) for positive in positives.numpy()]
        terms.append(-np.log(scores[i] / np.sum(scores)))
    return float(np.mean(terms))


@pytest.mark.parametrize("batch", [2, 3, 7])
def test_the_bilinear_contrast_agrees_with_a_loop_over_anchors(batch: int) -> None:
    given = rows(batch, 0), rows(batch, 1), rows(4, 2) / 5
    assert float(bilinear_contrast(*given)) == pytest.approx(bilinear_by_hand(*given))


def test_the_bilinear_contrast_is_the_cross_entropy_of_picking_the_own_positive() -> None:
    anchors, positives, weight = rows(6, 0), rows(6, 1), rows(4, 2)
    similarity = torch.einsum("if,fg,jg->ij", anchors, weight, positives)
    expected = F.cross_entropy(similarity, torch.arange(6))
    assert_close(bilinear_contrast(anchors, positives, weight), expected)


def test_swapping_the_segments_is_transposing_the_weight_and_classifying_the_other_way() -> None:
    anchors, positives, weight = rows(6, 0), rows(6, 1), rows(4, 2)
    similarity = torch.einsum("if,fg,jg->ij", anchors, weight, positives)
    expected = F.cross_entropy(similarity.T, torch.arange(6))
    assert_close(bilinear_contrast(positives, anchors, weight.T), expected)


@few_examples
@given(order=st.permutations(range(5)))
def test_the_bilinear_contrast_depends_on_the_pairing_and_not_on_the_order(
    order: list[int],
) -> None:
    anchors, weight = rows(5, 0), torch.eye(4, dtype=torch.float64)
    unit = F.normalize(anchors, dim=1)
    paired = bilinear_contrast(unit, unit, weight)
    assert_close(bilinear_contrast(unit[order], unit[order], weight), paired)
    if order != list(range(5)):
        assert bilinear_contrast(unit, unit[order], weight) > paired


def test_a_constant_that_is_added_for_an_anchor_changes_nothing() -> None:
    anchors, positives, weight = rows(5, 0), rows(5, 1), rows(4, 2)
    moved = positives + rows(1, 3)  # every similarity of an anchor grows by anchor W moved
    found = bilinear_contrast(anchors, moved, weight)
    assert_close(found, bilinear_contrast(anchors, positives, weight))


def test_without_weight_the_bilinear_contrast_is_a_guess_among_the_batch() -> None:
    found = bilinear_contrast(rows(6, 0), rows(6, 1), torch.zeros(4, 4, dtype=torch.float64))
    assert float(found) == pytest.approx(math.log(6))


def test_gradients_of_the_bilinear_contrast_reach_segments_and_weight_and_stay_finite() -> None:
    given = [rows(count, seed).requires_grad_() for seed, count in enumerate((3, 3, 4))]
    assert torch.autograd.gradcheck(bilinear_contrast, given)
    large = [(100 * z.detach()).float().requires_grad_() for z in given]
    loss = bilinear_contrast(*large)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(z.grad).all() for z in large)


# --- both -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        lambda z_a, z_b: nt_xent(z_a, z_b, 0.1),
        lambda z_a, z_b: bilinear_contrast(z_a, z_b, torch.eye(4, dtype=torch.float64)),
    ],
    ids=["nt_xent", "bilinear_contrast"],
)
@pytest.mark.parametrize(("first", "second"), [(5, 4), (1, 1), (0, 0)])
def test_views_without_a_partner_or_with_one_clip_are_refused(
    loss: Callable[[Tensor, Tensor], Tensor], first: int, second: int
) -> None:
    with pytest.raises(ValueError, match="need one shape and at least 2 clips"):
        loss(rows(first, 0), rows(second, 1))
