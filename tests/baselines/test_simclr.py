"""SimCLR: what is projected from which view, what is compared, and whom it teaches."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lape_bench.baselines.simclr import SimCLR, SimCLRConfig, SimCLRObjective
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.losses.contrast import nt_xent

D, HIDDEN, FEATURES, BATCH = 8, 6, 5, 3


def build(**settings: Any) -> SimCLRObjective:
    torch.manual_seed(0)
    tiny = {"width": D, "projector_hidden": HIDDEN, "projector_features": FEATURES}
    config = SimCLRConfig.model_validate(tiny | settings)
    return SimCLR.build_objective(AudioNTT(D, dropout=0.0), config, clips=100).train()


def test_its_projector_has_one_hidden_layer_with_batch_norm() -> None:
    into, norm, rectified, out = build().projector
    assert (into.in_features, into.out_features) == (D, HIDDEN)
    assert (out.in_features, out.out_features) == (HIDDEN, FEATURES)
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(rectified, nn.ReLU)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_its_loss_is_nt_xent_of_both_projections(temperature: float) -> None:
    z_a, z_b = torch.randn(2, BATCH, FEATURES, generator=torch.Generator().manual_seed(0))
    found = build(temperature=temperature).loss(z_a, z_b)
    assert_close(found, nt_xent(z_a, z_b, temperature), rtol=0, atol=0)
