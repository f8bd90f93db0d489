"""The distance of directions against NumPy and SciPy, and what it does not depend on."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cosine
from torch import Tensor
from torch.testing import assert_close

from lape_bench.learning.losses.normalized_mse import normalized_mse

few_examples = settings(max_examples=40)


def rows(count: int, seed: int, features: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, features, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_it_is_the_squared_distance_of_unit_vectors_and_twice_the_cosine_distance(
    batch: int,
) -> None:
    q, z = rows(batch, 0), rows(batch, 1)
    squared, cosines = [], []
    for a, b in zip(q.numpy(), z.numpy(), strict=True):
        squared.append(np.sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2))
        cosines.append(2 * cosine(a, b))
    assert float(normalized_mse(q, z)) == pytest.approx(np.mean(squared))
    assert float(normalized_mse(q, z)) == pytest.approx(np.mean(cosines))


@pytest.mark.parametrize(
    ("targets", "expected"),
    [([[2.0, 0.0]], 0.0), ([[0.0, 5.0]], 2.0), ([[-3.0, 0.0]], 4.0), ([[1.0, 1.0]], 2 - 2**0.5)],
)
def test_the_distance_of_some_directions(targets: list[list[float]], expected: float) -> None:
    found = normalized_mse(torch.tensor([[1.0, 0.0]]), torch.tensor(targets))
    assert float(found) == pytest.approx(expected, abs=1e-6)


@few_examples
@given(
    scales=st.lists(st.floats(1e-3, 1e3), min_size=10, max_size=10),
    order=st.permutations(range(5)),
)
def test_neither_lengths_nor_the_order_of_clips_nor_of_the_two_matter(
    scales: list[float], order: list[int]
) -> None:
    q, z = rows(5, 0), rows(5, 1)
    by_q, by_z = torch.tensor(scales, dtype=torch.float64)[:, None].split(5)
    expected = normalized_mse(q, z)
    assert_close(normalized_mse(by_q * q, by_z * z), expected)
    assert_close(normalized_mse(q[order], z[order]), expected)
    assert_close(normalized_mse(z, q), expected)


def test_it_is_least_where_both_are_equal_and_pulls_a_prediction_across_its_own_direction() -> None:
    q = rows(5, 0).requires_grad_()
    least = normalized_mse(q, q.detach())
    least.backward()
    assert float(least.detach()) == pytest.approx(0, abs=1e-12)
    assert_close(q.grad, torch.zeros_like(q), rtol=0, atol=1e-9)
    other = rows(5, 0).requires_grad_()
    normalized_mse(other, rows(5, 1)).backward()
    assert_close((other.grad * other).sum(dim=1), torch.zeros(5, dtype=torch.float64))


def test_gradients_reach_both_unless_detached_and_agree_with_differences() -> None:
    given = [rows(3, seed).requires_grad_() for seed in (0, 1)]
    assert torch.autograd.gradcheck(normalized_mse, given)
    q, z = given
    normalized_mse(q, z.detach()).backward()
    assert q.grad is not None
    assert z.grad is None


def test_a_silent_row_has_a_finite_loss_and_gradient() -> None:
    q = rows(3, 0).index_fill(0, torch.tensor(1), 0.0).requires_grad_()
    loss = normalized_mse(q, rows(3, 1))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(q.grad).all()


def test_other_shapes_are_refused_rather_than_broadcast() -> None:
    with pytest.raises(ValueError, match=r"shape \(5, 4\), targets \(1, 4\)"):
        normalized_mse(rows(5, 0), rows(1, 1))
