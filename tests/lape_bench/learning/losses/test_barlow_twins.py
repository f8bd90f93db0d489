"""Barlow Twins against NumPy one pair of features at a time, and for what must not change it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from lape_bench.learning.losses.barlow_twins import TRADE_OFF, barlow_twins, cross_correlation

few_examples = settings(max_examples=40)


def views(clips: int = 8, features: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two views that share half of what they hold, with features of different size and place."""
    generator = torch.Generator().manual_seed(seed)
    shared, a, b = torch.randn(3, clips, features, generator=generator, dtype=torch.float64)
    size = torch.logspace(-2, 2, features, dtype=torch.float64)
    return (shared + a) * size + 5, (shared + b) * size.flip(0) - 3


def correlations_by_hand(z_a: Tensor, z_b: Tensor) -> np.ndarray:
    features = z_a.shape[1]
    return np.array(
        [
            [np.corrcoef(z_a[:, i].numpy(), z_b[:, j].numpy())[0, 1] for j in range(features)]
            for i in range(features)
        ]
    )


def loss_by_hand(z_a: Tensor, z_b: Tensor, trade_off: float) -> float:
    c = correlations_by_hand(z_a, z_b)
    total = 0.0
    for i in range(len(c)):
        for j in range(len(c)):
            total += (1 - c[i, j]) ** 2 if i == j else trade_off * c[i, j] ** 2
    return total


def decorrelated() -> Tensor:
    """Features that are exactly uncorrelated: columns of a Hadamard matrix."""
    h = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    return torch.kron(h, torch.kron(h, h))[:, 1:]


@pytest.mark.parametrize(("clips", "features"), [(2, 1), (2, 3), (8, 3), (5, 6)])
def test_correlation_agrees_with_numpy_one_pair_at_a_time(clips: int, features: int) -> None:
    z_a, z_b = views(clips, features)
    expected = torch.from_numpy(correlations_by_hand(z_a, z_b))
    assert_close(cross_correlation(z_a, z_b), expected)


@pytest.mark.parametrize("trade_off", [0.0, 0.0051, 1.0, 3.0])
def test_the_loss_agrees_with_a_loop_over_the_pairs_of_features(trade_off: float) -> None:
    z_a, z_b = views(9, 5)
    expected = loss_by_hand(z_a, z_b, trade_off)
    assert float(barlow_twins(z_a, z_b, trade_off)) == pytest.approx(expected)


def test_lambda_is_the_published_one_unless_it_is_given() -> None:
    z_a, z_b = views()
    assert TRADE_OFF == 0.0051
    assert torch.equal(barlow_twins(z_a, z_b), barlow_twins(z_a, z_b, 0.0051))


@few_examples
@given(trade_off=st.floats(0, 10), seed=st.integers(0, 99))
def test_lambda_weighs_the_terms_off_the_diagonal_alone(trade_off: float, seed: int) -> None:
    z_a, z_b = views(6, 4, seed)
    c = correlations_by_hand(z_a, z_b)
    off_diagonal = float((c[~np.eye(4, dtype=bool)] ** 2).sum())
    grown = float(barlow_twins(z_a, z_b, trade_off) - barlow_twins(z_a, z_b, 0.0))
    assert grown == pytest.approx(trade_off * off_diagonal, abs=1e-9)


@few_examples
@given(order=st.permutations(range(8)))
def test_the_order_of_the_clips_does_not_matter(order: list[int]) -> None:
    z_a, z_b = views()
    assert_close(barlow_twins(z_a[order], z_b[order]), barlow_twins(z_a, z_b))


def test_which_clips_are_paired_does_matter() -> None:
    z_a, z_b = views()
    assert barlow_twins(z_a, z_b.roll(1, dims=0)) > 1.5 * barlow_twins(z_a, z_b)


@few_examples
@given(
    scales=st.lists(st.floats(1e-2, 1e2), min_size=6, max_size=6),
    shifts=st.lists(st.floats(-10, 10), min_size=6, max_size=6),
)
def test_scale_and_place_of_a_feature_do_not_matter(
    scales: list[float], shifts: list[float]
) -> None:
    z_a, z_b = views()
    scale, shift = (torch.tensor(v, dtype=torch.float64).reshape(2, 3) for v in (scales, shifts))
    moved = barlow_twins(z_a * scale[0] + shift[0], z_b * scale[1] + shift[1])
    assert_close(moved, barlow_twins(z_a, z_b), rtol=1e-6, atol=1e-6)


def test_a_feature_with_its_sign_turned_is_correlated_the_other_way() -> None:
    z_a, z_b = views()
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
    assert_close(cross_correlation(z_a * sign, z_b), sign[:, None] * cross_correlation(z_a, z_b))


def test_swapping_the_views_transposes_the_correlation_and_keeps_the_loss() -> None:
    z_a, z_b = views()
    assert_close(cross_correlation(z_b, z_a), cross_correlation(z_a, z_b).T)
    assert_close(barlow_twins(z_b, z_a), barlow_twins(z_a, z_b))
    assert not torch.allclose(cross_correlation(z_a, z_b), cross_correlation(z_a, z_b).T)


def test_identical_views_of_uncorrelated_features_cost_nothing() -> None:
    z = decorrelated()
    assert_close(cross_correlation(z, z), torch.eye(7, dtype=torch.float64))
    assert float(barlow_twins(z, z, 1.0)) == pytest.approx(0, abs=1e-12)


def test_views_of_opposite_sign_cost_four_a_feature() -> None:
    z = decorrelated()
    assert float(barlow_twins(z, -z, 1.0)) == pytest.approx(7 * 4)


def test_features_that_all_tell_the_same_cost_lambda_a_pair() -> None:
    z = decorrelated()[:, :1].expand(-1, 5)
    assert float(barlow_twins(z, z, 0.1)) == pytest.approx(0.1 * 5 * 4)


@few_examples
@given(seed=st.integers(0, 999), clips=st.integers(2, 9))
def test_every_correlation_lies_between_minus_one_and_one(seed: int, clips: int) -> None:
    c = cross_correlation(*views(clips, 4, seed))
    assert c.abs().max() <= 1 + 1e-9


CONSTANTS = [0.0, 1.0, 3.3, -13.8155]  # the mean of eight times 3.3 is not 3.3 in float32


@pytest.mark.parametrize("value", CONSTANTS)
@pytest.mark.parametrize("clips", [8, 300])
def test_a_feature_that_is_constant_in_both_views_correlates_with_none(
    value: float, clips: int
) -> None:
    z_a, z_b = (z.float() for z in views(clips, 4))
    plain = cross_correlation(z_a, z_b)
    z_a[:, 1] = z_b[:, 1] = value
    c = cross_correlation(z_a, z_b)
    expected = plain.clone()
    expected[1] = expected[:, 1] = 0
    assert_close(c, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("value", CONSTANTS)
def test_a_feature_that_is_constant_in_both_views_leaves_the_others_their_gradient(
    value: float,
) -> None:
    z_a, z_b = (z.float() for z in views(8, 4))
    others = [0, 2, 3]
    alone = z_a[:, others].requires_grad_()
    barlow_twins(alone, z_b[:, others]).backward()
    z_a[:, 1] = z_b[:, 1] = value
    z_a.requires_grad_()
    barlow_twins(z_a, z_b).backward()
    assert_close(z_a.grad[:, others], alone.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", CONSTANTS)
def test_a_feature_that_is_constant_in_one_view_has_a_gradient_of_the_size_of_others(
    value: float,
) -> None:
    z_a, z_b = (z.float() for z in views(8, 4))
    z_a[:, 1] = value
    z_a.requires_grad_()
    loss = barlow_twins(z_a, z_b)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z_a.grad).all()
    assert z_a.grad[:, 1].abs().max() < 1e4


def test_gradients_reach_both_views_and_agree_with_differences() -> None:
    z_a, z_b = (z.clone().requires_grad_() for z in views(5, 3))
    assert torch.autograd.gradcheck(lambda a, b: barlow_twins(a, b, 0.3), (z_a, z_b))


@pytest.mark.parametrize(
    ("shape_a", "shape_b"), [((1, 3), (1, 3)), ((4, 3), (4, 2)), ((4, 3), (5, 3)), ((0, 3), (0, 3))]
)
def test_a_batch_of_one_clip_or_of_two_shapes_is_refused(
    shape_a: tuple[int, int], shape_b: tuple[int, int]
) -> None:
    with pytest.raises(ValueError, match=r"need one shape and at least 2 clips"):
        barlow_twins(torch.ones(shape_a), torch.ones(shape_b))
