"""Self-distillation against NumPy and SciPy, where its gradients go, and what it does not depend on."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cosine
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from lape_bench.unfused.losses import kl_divergence, self_distillation

BATCH, CLUSTERS = 5, 7
NONE = {"shallow_weight": 0.0, "kl_weight": 0.0, "feature_weight": 0.0}


def logits(heads: int, seed: int = 0, scale: float = 2.0) -> tuple[Tensor, list[Tensor], Tensor]:
    """Logits of the classifier and of shallow heads, and pseudo-labels."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(heads + 1, BATCH, CLUSTERS, generator=generator, dtype=torch.float64)
    labels = torch.randint(CLUSTERS, (BATCH,), generator=generator)
    return scale * drawn[0], [scale * z_i for z_i in drawn[1:]], labels


def cross_entropy(z: NDArray[np.float64], y: NDArray[np.int64]) -> float:
    return float(np.mean([-log_softmax(row)[label] for row, label in zip(z, y, strict=True)]))


def divergence(z: NDArray[np.float64], z_i: NDArray[np.float64]) -> float:
    return float(np.mean([entropy(softmax(p), softmax(q)) for p, q in zip(z, z_i, strict=True)]))


def distance(z_i: NDArray[np.float64], z: NDArray[np.float64]) -> float:
    return float(np.mean([2 * cosine(a, b) for a, b in zip(z_i, z, strict=True)]))


def by_hand(
    z: Tensor, shallow: Sequence[Tensor], labels: Tensor, weights: tuple[float, float, float]
) -> float:
    """L = CE(z, y) + a sum CE(z_i, y) + b sum KL(softmax z || softmax z_i) + c sum (2 - 2 cos(z_i, z))."""
    a, b, c = weights
    deep, y = z.numpy(), labels.numpy()
    loss = cross_entropy(deep, y)
    for z_i in (head.numpy() for head in shallow):
        loss += a * cross_entropy(z_i, y) + b * divergence(deep, z_i) + c * distance(z_i, deep)
    return loss


@pytest.mark.parametrize("stop_gradient", [True, False])
@pytest.mark.parametrize("heads", [0, 1, 3])
def test_the_loss_is_the_published_sum_with_its_weights(heads: int, stop_gradient: bool) -> None:
    z, shallow, labels = logits(heads)
    found = self_distillation(z, shallow, labels, stop_gradient=stop_gradient)
    assert found.shape == ()
    assert float(found) == pytest.approx(by_hand(z, shallow, labels, (0.7, 0.3, 0.003)), abs=1e-12)


@pytest.mark.parametrize("weights", [(1.3, 0.0, 0.0), (0.0, 1.3, 0.0), (0.0, 0.0, 1.3)])
def test_each_weight_scales_its_own_term_alone(weights: tuple[float, float, float]) -> None:
    z, shallow, labels = logits(heads=3)
    names = dict(zip(NONE, weights, strict=True))
    found = self_distillation(z, shallow, labels, **names)
    assert float(found) == pytest.approx(by_hand(z, shallow, labels, weights), abs=1e-12)


@pytest.mark.parametrize("smoothing", [0.1, 0.6])
def test_smoothing_divides_a_share_of_each_label_among_all_clusters(smoothing: float) -> None:
    z, shallow, labels = logits(heads=2)
    weights = NONE | {"shallow_weight": 0.7}
    found = self_distillation(z, shallow, labels, **weights, label_smoothing=smoothing)
    targets = (1 - smoothing) * np.eye(CLUSTERS)[labels.numpy()] + smoothing / CLUSTERS
    entropies = [
        -(targets * log_softmax(head.numpy(), axis=1)).sum(axis=1) for head in (z, *shallow)
    ]
    expected = sum(
        weight * one.mean() for weight, one in zip((1, 0.7, 0.7), entropies, strict=True)
    )
    assert float(found) == pytest.approx(expected, abs=1e-12)


def test_without_shallow_heads_it_is_plain_cross_entropy() -> None:
    z, _, labels = logits(heads=0)
    assert_close(self_distillation(z, [], labels), F.cross_entropy(z, labels), rtol=0, atol=0)


def test_without_weights_shallow_heads_do_not_count() -> None:
    z, shallow, labels = logits(heads=3)
    assert_close(self_distillation(z, shallow, labels, **NONE), F.cross_entropy(z, labels))


@given(order=st.permutations(range(3)))
def test_the_order_of_the_heads_does_not_matter(order: list[int]) -> None:
    z, shallow, labels = logits(heads=3)
    assert_close(
        self_distillation(z, [shallow[place] for place in order], labels),
        self_distillation(z, shallow, labels),
    )


@given(order=st.permutations(range(BATCH)))
def test_the_order_of_the_clips_does_not_matter(order: list[int]) -> None:
    z, shallow, labels = logits(heads=2)
    moved = self_distillation(z[order], [z_i[order] for z_i in shallow], labels[order])
    assert_close(moved, self_distillation(z, shallow, labels))


@given(shift=st.lists(st.floats(-50, 50), min_size=2, max_size=2))
def test_a_constant_on_all_logits_moves_neither_cross_entropy_nor_divergence(
    shift: list[float],
) -> None:
    z, (z_i,), labels = logits(heads=1)
    moved_z, moved_i = z + shift[0], z_i + shift[1]
    assert_close(kl_divergence(moved_z, moved_i), kl_divergence(z, z_i))
    assert_close(
        self_distillation(moved_z, [moved_i], labels, feature_weight=0.0),
        self_distillation(z, [z_i], labels, feature_weight=0.0),
    )


@given(scale=st.floats(0.01, 100))
def test_the_cosine_term_does_not_see_the_length_of_the_logits(scale: float) -> None:
    z, (z_i,), labels = logits(heads=1)
    weights = NONE | {"feature_weight": 1.0}
    scaled = self_distillation(z, [scale * z_i], labels, **weights)
    assert_close(scaled, self_distillation(z, [z_i], labels, **weights))


def test_a_head_opposite_to_the_classifier_costs_four_and_one_along_it_nothing() -> None:
    z, _, labels = logits(heads=0)
    weights = NONE | {"feature_weight": 1.0}
    plain = F.cross_entropy(z, labels)
    assert_close(self_distillation(z, [-z], labels, **weights) - plain, torch.tensor(4.0).double())
    assert_close(self_distillation(z, [3 * z], labels, **weights), plain)


# --- the divergence ---------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 20))
def test_the_divergence_is_never_negative_and_nothing_for_equal_logits(
    seed: int, scale: float
) -> None:
    z, (z_i,), _ = logits(heads=1, seed=seed, scale=scale)
    assert float(kl_divergence(z, z_i)) >= 0
    assert float(kl_divergence(z, z)) == 0


def test_the_divergence_is_taken_from_the_classifier_to_the_head() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): KL(p || q) = 3/4 ln(3/2) + 1/4 ln(1/2); the other way 1/2 ln(2/3) + 1/2 ln 2.
    z = torch.tensor([[np.log(3.0), 0.0]])
    flat = torch.zeros(1, 2, dtype=torch.float64)
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert float(kl_divergence(z, flat)) == pytest.approx(expected)
    other_way = 0.5 * np.log(2 / 3) + 0.5 * np.log(2)
    assert float(kl_divergence(flat, z)) == pytest.approx(other_way)
    labels = torch.zeros(1, dtype=torch.long)
    with_term = self_distillation(z, [flat], labels, **(NONE | {"kl_weight": 1.0}))
    assert float(with_term - F.cross_entropy(z, labels)) == pytest.approx(expected)


def test_logits_that_are_certain_give_finite_losses_and_gradients() -> None:
    z = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    z_i = (-z.detach()).requires_grad_()
    loss = self_distillation(z, [z_i], torch.tensor([0, 1]), stop_gradient=False)
    loss.backward()
    assert torch.isfinite(loss)
    assert z.grad is not None
    assert z_i.grad is not None
    assert torch.isfinite(z.grad).all()
    assert torch.isfinite(z_i.grad).all()


# --- gradients --------------------------------------------------------------------------------------------


def gradient_at_z(stop_gradient: bool, **weights: float) -> Tensor:
    z, shallow, labels = logits(heads=3)
    z.requires_grad_()
    self_distillation(z, shallow, labels, stop_gradient=stop_gradient, **weights).backward()
    assert z.grad is not None
    return z.grad


def test_a_stopped_gradient_leaves_the_classifier_its_cross_entropy_alone() -> None:
    z, _, labels = logits(heads=3)
    one_hot = np.eye(CLUSTERS)[labels.numpy()]
    expected = (softmax(z.numpy(), axis=1) - one_hot) / BATCH
    assert_close(gradient_at_z(stop_gradient=True), torch.from_numpy(expected))


@pytest.mark.parametrize("term", ["kl_weight", "feature_weight"])
def test_as_published_each_of_the_last_two_terms_moves_the_classifier(term: str) -> None:
    stopped = gradient_at_z(stop_gradient=True)
    moved = gradient_at_z(stop_gradient=False, **(NONE | {term: 1.0}))
    assert float((moved - stopped).norm()) > 1e-3


def test_the_shallow_heads_cross_entropy_gives_the_classifier_no_gradient() -> None:
    without = gradient_at_z(stop_gradient=False, **NONE)
    assert_close(gradient_at_z(stop_gradient=False, **(NONE | {"shallow_weight": 5.0})), without)


def test_gradients_as_published_agree_with_finite_differences() -> None:
    z, shallow, labels = logits(heads=2)
    tensors = [tensor.requires_grad_() for tensor in (z, *shallow)]
    assert torch.autograd.gradcheck(
        lambda deep, *heads: self_distillation(deep, heads, labels, stop_gradient=False), tensors
    )


def test_gradients_of_the_shallow_heads_are_the_same_whether_the_target_is_fixed_or_not() -> None:
    found = []
    for stop_gradient in (True, False):
        z, shallow, labels = logits(heads=2)
        heads = [z_i.requires_grad_() for z_i in shallow]
        loss = self_distillation(z.requires_grad_(), heads, labels, stop_gradient=stop_gradient)
        found.append(torch.autograd.grad(loss, heads))
    assert_close(*found)
    z, shallow, labels = logits(heads=2)
    assert torch.autograd.gradcheck(
        lambda *heads: self_distillation(z, heads, labels),
        [z_i.requires_grad_() for z_i in shallow],
    )
