"""What holds of every upstream whose views share an encoder and a projector: DeLoRes-S, SimCLR and COLA."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.systems.pretrained_system import load_upstream
from lape_bench.learning.training.pretrain import Siamese

D, BATCH = 8, 3
SMALL: dict[str, dict[str, Any]] = {
    "cola": {"projector_features": 6},
    "delores-s": {"projector": 6},
    "simclr": {"projector_hidden": 6, "projector_features": 5},
}
every_siamese = pytest.mark.parametrize("name", SMALL)


def build(name: str) -> Siamese:
    torch.manual_seed(0)
    kind = load_upstream(name)
    settings = kind.Settings.model_validate({"width": D} | SMALL[name])
    objective = kind.build_objective(AudioNTT(D, dropout=0.0), settings, clips=100)
    assert isinstance(objective, Siamese)
    return objective.train()


def two_views(batch: int = BATCH) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, batch, 64, 16, generator=torch.Generator().manual_seed(0))
    return a, 2 * b + 1  # views whose statistics differ


@every_siamese
def test_each_view_is_projected_by_the_same_parts_with_its_own_batch_statistics(name: str) -> None:
    objective, apart = build(name), build(name)
    a, b = two_views()
    z_a, z_b = objective.forward_views(a, b)
    assert z_a.shape == z_b.shape
    assert_close(z_a, apart.projector(apart.encoder(a)))
    assert_close(z_b, apart.projector(apart.encoder(b)))


@every_siamese
@pytest.mark.parametrize("batch", [2, BATCH])
@pytest.mark.parametrize("blocked", [None, 0, 1])
def test_both_views_teach_every_parameter(name: str, batch: int, blocked: int | None) -> None:
    objective = build(name)
    views = [view.requires_grad_() for view in two_views(batch)]
    projected = [
        z.detach() if place == blocked else z
        for place, z in enumerate(objective.forward_views(*views))
    ]
    objective.loss(*projected).backward()
    reached = [view.grad is not None and bool(view.grad.abs().sum() > 0) for view in views]
    assert reached == [place != blocked for place in (0, 1)]
    assert all(torch.isfinite(p.grad).all() for p in objective.parameters())
