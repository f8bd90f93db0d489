"""InfoNCE against a loop written off its equation, and against cross-entropy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from lape_bench.learning.contrast import info_nce

repeatable = settings(derandomize=True, deadline=None, max_examples=40)


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


@repeatable
@given(scales=st.lists(st.floats(1e-3, 1e3), min_size=13, max_size=13))
def test_the_length_of_a_row_does_not_matter(scales: list[float]) -> None:
    parts = rows(3, 0), rows(3, 1), rows(7, 2)
    by_row = torch.tensor(scales, dtype=torch.float64)[:, None].split([3, 3, 7])
    scaled = [part * scale for part, scale in zip(parts, by_row, strict=True)]
    assert_close(info_nce(*scaled, 0.1), info_nce(*parts, 0.1))


@repeatable
@given(order=st.permutations(range(7)))
def test_the_order_of_the_negatives_does_not_matter(order: list[int]) -> None:
    queries, keys, negatives = rows(3, 0), rows(3, 1), rows(7, 2)
    moved = info_nce(queries, keys, negatives[order], 0.1)
    assert_close(moved, info_nce(queries, keys, negatives, 0.1))


@repeatable
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
