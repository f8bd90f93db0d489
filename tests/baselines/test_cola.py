"""COLA: two windows of a clip, the projector by hand, and the similarity that is learned with it."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lape_bench.baselines.cola import Cola, ColaConfig, ColaObjective
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.losses.contrast import bilinear_contrast

D, FEATURES, BATCH = 8, 6, 3


def build(**settings: Any) -> ColaObjective:
    torch.manual_seed(0)
    config = ColaConfig.model_validate({"width": D, "projector_features": FEATURES} | settings)
    return Cola.build_objective(AudioNTT(D, dropout=0.0), config, clips=100).train()


def test_it_asks_for_two_windows_of_a_clip() -> None:
    assert build().windows_per_clip == 2


def test_a_projection_is_linear_then_layer_norm_then_tanh() -> None:
    objective = build()
    embeddings = 5 * torch.randn(7, D, generator=torch.Generator().manual_seed(1))
    linear = objective.projector[0]
    assert isinstance(linear, nn.Linear)
    z = embeddings @ linear.weight.T + linear.bias
    z = (z - z.mean(dim=1, keepdim=True)) / (z.var(dim=1, correction=0, keepdim=True) + 1e-5).sqrt()
    assert_close(objective.projector(embeddings), z.tanh())


def test_its_loss_is_the_bilinear_contrast_by_its_own_weight() -> None:
    objective = build()
    z_a, z_b = torch.randn(2, BATCH, FEATURES, generator=torch.Generator().manual_seed(0))
    expected = bilinear_contrast(z_a, z_b, objective.similarity)
    assert_close(objective.loss(z_a, z_b), expected, rtol=0, atol=0)


@pytest.mark.parametrize("deviation", [0.01, 0.05])
def test_the_similarity_starts_normal_with_the_deviation_of_the_settings(deviation: float) -> None:
    weight = build(projector_features=300, similarity_std=deviation).similarity.detach()
    assert float(weight.mean()) == pytest.approx(0, abs=0.02 * deviation)
    assert float(weight.std()) == pytest.approx(deviation, rel=0.02)


def test_the_similarity_is_learned() -> None:
    objective = build()
    z_a, z_b = torch.randn(2, BATCH, FEATURES, generator=torch.Generator().manual_seed(0))
    objective.loss(z_a, z_b).backward()
    assert float(objective.similarity.grad.abs().sum()) > 0
