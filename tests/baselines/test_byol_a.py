"""BYOL-A: who predicts whom, where no gradient goes, and how the target follows."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.baselines.byol_a import ByolA, ByolAConfig, ByolAObjective
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.training.loop import OptimizerConfig

D, HIDDEN, FEATURES, BATCH = 8, 6, 5, 3


def build(**settings: Any) -> ByolAObjective:
    torch.manual_seed(0)
    tiny = {"width": D, "projector_hidden": HIDDEN, "projector_features": FEATURES}
    config = ByolAConfig.model_validate(tiny | settings)
    objective = ByolA.build_objective(AudioNTT(D, dropout=0.0), config, clips=100).train()
    with torch.no_grad():
        for parameter in objective.target.parameters():
            parameter.mul_(1.5)  # so that it can be told from the online network
    return objective


def two_views(seed: int = 0, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, batch, 64, 16, generator=torch.Generator().manual_seed(seed))
    return a, 2 * b + 1


def projections() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(4, BATCH, FEATURES, generator=generator, dtype=torch.float64))


def by_hand(q: Tensor, z: Tensor) -> float:
    """Eq. (2) of arXiv:2006.07733, a clip at a time."""
    pairs = zip(q.detach().numpy(), z.detach().numpy(), strict=True)
    return float(
        np.mean([np.sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2) for a, b in pairs])
    )


def test_both_views_are_predicted_from_and_are_targets_each_with_its_own_statistics() -> None:
    objective, apart = build(), build()
    a, b = two_views()
    found = objective.forward_views(a, b)
    expected = [
        *(apart.predictor(apart.online.projector(apart.online.encoder(view))) for view in (a, b)),
        *(apart.target.projector(apart.target.encoder(view)) for view in (a, b)),
    ]
    for z, z_expected in zip(found, expected, strict=True):
        assert z.shape == (BATCH, FEATURES)
        assert_close(z, z_expected)


def test_each_prediction_is_compared_with_the_target_of_the_other_view() -> None:
    q_a, q_b, target_a, target_b = projections()
    found = build().loss(q_a, q_b, target_a, target_b)
    assert float(found) == pytest.approx(by_hand(q_a, target_b) + by_hand(q_b, target_a))


def test_its_loss_is_symmetric_in_the_views_and_does_not_depend_on_lengths_or_order() -> None:
    q_a, q_b, target_a, target_b = projections()
    loss = build().loss
    expected = loss(q_a, q_b, target_a, target_b)
    assert_close(loss(q_b, q_a, target_b, target_a), expected)
    assert_close(loss(2 * q_a, 3 * q_b, 5 * target_a, 7 * target_b), expected)
    order = torch.tensor([2, 0, 1])
    assert_close(loss(q_a[order], q_b[order], target_a[order], target_b[order]), expected)


def test_its_loss_is_zero_where_predictions_have_the_directions_of_the_targets() -> None:
    q_a, q_b, _, _ = projections()
    assert float(build().loss(q_a, q_b, 2 * q_b, 3 * q_a)) == pytest.approx(0, abs=1e-12)
    assert float(build().loss(q_a, q_b, -q_b, -q_a)) == pytest.approx(8)


@pytest.mark.parametrize("batch", [2, BATCH])
def test_no_gradient_reaches_the_target_and_every_online_parameter_gets_a_finite_one(
    batch: int,
) -> None:
    objective = build()
    projected = objective.forward_views(*two_views(batch=batch))
    assert [z.requires_grad for z in projected] == [True, True, False, False]
    objective.loss(*projected).backward()
    assert all(p.grad is None for p in objective.target.parameters())
    for module in (objective.online, objective.predictor):
        assert all(torch.isfinite(p.grad).all() for p in module.parameters())
    assert float(objective.encoder.blocks[0][0].weight.grad.abs().sum()) > 0


def test_a_view_teaches_through_its_prediction_alone() -> None:
    for blocked, reached in ((0, [False, True]), (1, [True, False])):
        objective = build()
        views = [view.requires_grad_() for view in two_views()]
        projected = [
            z.detach() if place == blocked else z
            for place, z in enumerate(objective.forward_views(*views))
        ]
        objective.loss(*projected).backward()
        assert [view.grad is not None for view in views] == reached


def test_projector_and_predictor_have_one_hidden_layer_with_batch_norm() -> None:
    objective = build()
    for head, inputs in ((objective.online.projector, D), (objective.predictor, FEATURES)):
        into, norm, rectified, out = head
        assert (into.in_features, into.out_features) == (inputs, HIDDEN)
        assert (out.in_features, out.out_features) == (HIDDEN, FEATURES)
        assert isinstance(norm, nn.BatchNorm1d)
        assert isinstance(rectified, nn.ReLU)


def test_the_published_sizes_are_the_defaults() -> None:
    config = ByolAConfig()
    assert (config.projector_hidden, config.projector_features) == (4096, 256)
    assert (config.momentum, config.pretrain.optimizer.learning_rate) == (0.99, 3e-4)
    assert config.pretrain.optimizer.name == "adam"


def test_the_target_starts_as_the_online_network_without_predictor_and_is_not_optimized() -> None:
    torch.manual_seed(0)
    config = ByolAConfig(width=D, projector_hidden=HIDDEN)
    objective = ByolA.build_objective(AudioNTT(D), config, clips=100)
    assert_close(objective.target.state_dict(), objective.online.state_dict(), rtol=0, atol=0)
    (group,) = OptimizerConfig().build(objective).param_groups
    held = {id(parameter) for parameter in group["params"]}
    learned = [*objective.online.parameters(), *objective.predictor.parameters()]
    assert held == {id(parameter) for parameter in learned}


@pytest.mark.parametrize("decay", [0.0, 0.99, 1.0])
def test_the_target_follows_the_online_network_by_an_exponential_average(decay: float) -> None:
    objective = build(momentum=decay)
    ours = dict(objective.online.named_parameters())
    expected = {
        name: decay * theirs + (1 - decay) * ours[name]
        for name, theirs in copy.deepcopy(objective.target).named_parameters()
    }
    objective.after_step()
    assert_close(dict(objective.target.named_parameters()), expected)
