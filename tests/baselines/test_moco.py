"""MoCo: DeLoRes-M without its Barlow heads, to the bit; the student's query, the teacher's key, and the queue."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lape_bench.baselines.delores_m import DeloresM, DeloresMConfig
from lape_bench.baselines.moco import MoCo
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.systems.momentum_contrast import MomentumContrast, MomentumContrastConfig
from lape_bench.learning.training.loop import OptimizerConfig

D, KEY, QUEUE, BATCH = 8, 5, 7, 3
TINY: dict[str, Any] = {"width": D, "key_features": KEY, "key_hidden": 6, "queue": QUEUE}


def build(clips: int = 1000, **settings: Any) -> MomentumContrast:
    torch.manual_seed(0)
    config = MomentumContrastConfig.model_validate(TINY | settings)
    return MoCo.build_objective(AudioNTT(D, dropout=0.0), config, clips).train()


def two_views(seed: int = 0, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, batch, 64, 16, generator=torch.Generator().manual_seed(seed))
    return a, 2 * b + 1


def clips_of(seed: int) -> Tensor:
    """Clips of a batch; those of another seed are others."""
    return BATCH * seed + torch.arange(BATCH)


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other) / float(np.linalg.norm(one) * np.linalg.norm(other))


def test_it_is_delores_m_without_barlow_heads_to_the_bit() -> None:
    torch.manual_seed(0)
    config = DeloresMConfig.model_validate(TINY | {"projector": 4, "barlow_weight": 0.0})
    layered = DeloresM.build_objective(AudioNTT(D, dropout=0.0), config, 1000).train()
    plain = build()
    optimizers = [OptimizerConfig().build(objective) for objective in (layered, plain)]
    for seed in range(4):
        for objective, optimizer in zip((layered, plain), optimizers, strict=True):
            loss = objective.loss(*objective.forward_views(*two_views(seed)), clips_of(seed % 2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            objective.after_step()
    theirs = layered.state_dict()
    assert_close(
        dict(plain.state_dict()), {k: theirs[k] for k in plain.state_dict()}, rtol=0, atol=0
    )


def test_its_defaults_are_those_of_delores_m() -> None:
    ours, theirs = MomentumContrastConfig().model_dump(), DeloresMConfig().model_dump()
    assert ours == {name: theirs[name] for name in ours}


def test_the_student_sees_the_first_view_and_the_teacher_the_second() -> None:
    objective, apart = build(), build()
    with torch.no_grad():
        for parameter in (*objective.teacher.parameters(), *apart.teacher.parameters()):
            parameter.mul_(1.5)  # so that the two can be told apart
    a, b = two_views()
    query, key = objective.forward_views(a, b)
    assert_close(query, apart.student.key(apart.student.encoder(a)))
    assert_close(key, apart.teacher.key(apart.teacher.encoder(b)))
    assert (query.requires_grad, key.requires_grad) == (True, False)


def test_the_loss_over_some_batches_agrees_with_a_loop_over_clips_and_the_last_keys() -> None:
    objective = build(temperature=0.3).double()
    held: list[tuple[int, Tensor]] = []
    for seed in range(5):
        clips = torch.tensor([0, seed, 5 + seed % 2])  # some are in the queue already, some twice
        query, key = torch.randn(
            2, BATCH, KEY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
        terms = []
        for q, k, clip in zip(query, key, clips.tolist(), strict=True):
            negatives = [older for its_clip, older in held if its_clip != clip]
            own, *others = (np.exp(1 / 0.3 * cosine(q, each)) for each in (k, *negatives))
            terms.append(-np.log(own / (own + sum(others))))
        assert float(objective.loss(query, key, clips)) == pytest.approx(np.mean(terms))
        held = [*held, *zip(clips.tolist(), key, strict=True)][-QUEUE:]
        assert sorted(objective.queue.keys[objective.queue.clips >= 0].tolist()) == sorted(
            torch.stack([older for _, older in held]).tolist()
        )


def test_no_gradient_reaches_the_teacher_or_the_queue_and_every_parameter_of_the_student_gets_one() -> (
    None
):
    objective = build()
    objective.loss(*objective.forward_views(*two_views(0, batch=2)), clips_of(0)[:2])
    view_a, view_b = (view.requires_grad_() for view in two_views(1, batch=2))
    objective.loss(*objective.forward_views(view_a, view_b), clips_of(1)[:2]).backward()
    assert (view_a.grad is None, view_b.grad is None) == (False, True)
    assert not objective.queue.keys[objective.queue.clips >= 0].requires_grad
    assert all(p.grad is None for p in objective.teacher.parameters())
    assert all(torch.isfinite(p.grad).all() for p in objective.student.parameters())


def test_the_queue_is_shorter_than_the_other_batches() -> None:
    objective = build(clips=MomentumContrastConfig().pretrain.batch_size + 4)
    assert len(objective.queue.keys) == 4
