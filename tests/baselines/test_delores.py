"""DeLoRes-S and -M: what is projected from which view, what is compared, and what no gradient reaches."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.baselines.delores_m import DeloresM, DeloresMConfig, DeloresMObjective
from lape_bench.baselines.delores_s import BarlowTwins, DeloresS, DeloresSConfig
from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.losses.barlow_twins import barlow_twins
from lape_bench.learning.losses.contrast import info_nce
from lape_bench.learning.systems.pretrained_system import UpstreamSystem
from lape_bench.learning.training.loop import OptimizerConfig
from lape_bench.system import RunContext

D, PROJECTOR, KEY, QUEUE = 8, 6, 5, 7
BATCH = 3
LAYERS = (2048, 1024, 512)
TINY: dict[str, Any] = {"width": D, "projector": PROJECTOR}
TINY_M = TINY | {
    "key_features": KEY,
    "key_hidden": 0,
    "queue": QUEUE,
    "temperature": 0.07,
    "momentum": 0.999,
    "barlow_weight": 1.0,
}


def encoder() -> AudioNTT:
    return AudioNTT(D, dropout=0.0)


def siamese(**settings: Any) -> BarlowTwins:
    torch.manual_seed(0)
    return DeloresS.build_objective(
        encoder(), DeloresSConfig.model_validate(TINY | settings), clips=100
    ).train()


def momentum(clips: int = 1000, **settings: Any) -> DeloresMObjective:
    torch.manual_seed(0)
    return DeloresM.build_objective(
        encoder(), DeloresMConfig.model_validate(TINY_M | settings), clips
    ).train()


def test_a_queue_is_shorter_than_the_other_batches_of_an_epoch() -> None:
    config = DeloresMConfig(queue=50)
    batch = config.pretrain.batch_size
    for clips, expected in (
        (batch + 1000, 50),
        (batch + 50, 50),
        (batch + 20, 20),
        (batch, 1),
        (2, 1),
    ):
        assert len(momentum(clips, queue=50).queue.keys) == expected


def clips_of(seed: int) -> Tensor:
    """Clips of a batch; those of another seed are others."""
    return BATCH * seed + torch.arange(BATCH)


def two_views(seed: int = 0) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, BATCH, 64, 16, generator=torch.Generator().manual_seed(seed))
    return a, 2 * b + 1  # views whose statistics differ


def projections(seed: int = 0) -> list[Tensor]:
    """What `DeloresMObjective.forward_views` returns: a key and three layers, of student and of teacher."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [KEY, PROJECTOR, PROJECTOR, PROJECTOR] * 2
    return [torch.randn(BATCH, size, generator=generator, dtype=torch.float64) for size in sizes]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def projector_by_hand(inputs: int) -> int:
    """Three layers without biases, and two batch norms."""
    return inputs * PROJECTOR + 2 * PROJECTOR * PROJECTOR + 2 * 2 * PROJECTOR


def barlow_by_hand(z_a: Tensor, z_b: Tensor, trade_off: float) -> float:
    loss = 0.0
    for i in range(z_a.shape[1]):
        for j in range(z_b.shape[1]):
            c = np.corrcoef(z_a[:, i], z_b[:, j])[0, 1]
            loss += (1 - c) ** 2 if i == j else trade_off * c**2
    return loss


def info_nce_by_hand(
    queries: NDArray[np.float64],
    keys: NDArray[np.float64],
    negatives: NDArray[np.float64],
    temperature: float,
) -> float:
    def similar(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        return float(np.exp(a @ b / np.linalg.norm(a) / np.linalg.norm(b) / temperature))

    losses = []
    for query, key in zip(queries, keys, strict=True):
        positive = similar(query, key)
        others = sum(similar(query, negative) for negative in negatives)
        losses.append(-np.log(positive / (positive + others)))
    return float(np.mean(losses))


# --- DeLoRes-S --------------------------------------------------------------------------------------------


def test_its_loss_is_barlow_twins_of_both_projections() -> None:
    z_a, z_b = projections()[1:3]
    for trade_off in (0.0, 0.0051, 0.5):
        found = siamese(trade_off=trade_off).loss(z_a, z_b)
        assert_close(found, barlow_twins(z_a, z_b, trade_off), rtol=0, atol=0)
        assert float(found) == pytest.approx(barlow_by_hand(z_a, z_b, trade_off))


def test_its_projector_is_three_layers_without_biases_on_the_embedding() -> None:
    objective = siamese()
    sizes = [
        (m.in_features, m.out_features)
        for m in objective.projector
        if hasattr(m, "weight") and isinstance(m, nn.Linear)
    ]
    assert sizes == [(D, PROJECTOR), (PROJECTOR, PROJECTOR), (PROJECTOR, PROJECTOR)]
    assert count(objective) == count(encoder()) + projector_by_hand(D)


def test_nothing_in_it_moves_after_a_step() -> None:
    objective = siamese()
    before = copy.deepcopy(objective.state_dict())
    objective.after_step()
    assert_close(dict(objective.state_dict()), dict(before), rtol=0, atol=0)


# --- DeLoRes-M: projections -------------------------------------------------------------------------------


def test_the_student_sees_the_first_view_and_the_teacher_the_second() -> None:
    objective, apart = momentum(), momentum()
    with torch.no_grad():
        for parameter in (*objective.teacher.parameters(), *apart.teacher.parameters()):
            parameter.mul_(1.5)  # so that the two can be told apart
    a, b = two_views()
    found = objective.forward_views(a, b)
    expected = (*apart.student(a), *apart.teacher(b))
    assert [tuple(z.shape) for z in found] == [(BATCH, KEY), *[(BATCH, PROJECTOR)] * 3] * 2
    for z, z_expected in zip(found, expected, strict=True):
        assert_close(z, z_expected)


def test_a_branch_is_a_key_of_the_embedding_and_a_head_on_each_blocks_time_average() -> None:
    branch, apart = momentum().student, momentum().student
    x, _ = two_views()
    key, *layers = branch(x)
    assert_close(key, apart.key(apart.encoder(x)))
    output = x.unsqueeze(1)
    for block, head, layer in zip(apart.encoder.blocks, apart.layers, layers, strict=True):
        output = block(output)
        assert_close(layer, head(output.mean(dim=-1).flatten(1)))


def test_a_key_head_may_have_a_hidden_layer() -> None:
    branch = momentum(key_hidden=11).student
    into, norm, rectified, out = branch.key
    embeddings = torch.randn(9, D)
    hidden = embeddings @ into.weight.T + into.bias
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + norm.eps).sqrt()
    assert_close(branch.key(embeddings), hidden.clamp(min=0) @ out.weight.T + out.bias)
    assert (into.out_features, out.out_features) == (11, KEY)
    assert isinstance(rectified, nn.ReLU)


def test_its_parameters_are_two_branches_by_hand() -> None:
    objective = momentum()
    branch = count(encoder()) + D * KEY + KEY + sum(map(projector_by_hand, LAYERS))
    assert count(objective) == 2 * branch
    assert objective.encoder is objective.student.encoder


# --- DeLoRes-M: loss --------------------------------------------------------------------------------------


def test_its_loss_is_info_nce_plus_barlow_twins_on_each_layer() -> None:
    objective = momentum(barlow_weight=0.4, trade_off=0.02, temperature=0.3).double()
    query, *layers, key, t_1, t_2, t_3 = projections(0)
    first = projections(1)
    objective.loss(*first, clips_of(1))
    found = objective.loss(query, *layers, key, t_1, t_2, t_3, clips_of(0))
    negatives = first[4].float().double()  # what the queue keeps
    expected = info_nce_by_hand(query.numpy(), key.numpy(), negatives.numpy(), 0.3)
    for ours, theirs in zip(layers, (t_1, t_2, t_3), strict=True):
        expected += 0.4 * barlow_by_hand(ours, theirs, 0.02)
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_without_barlow_weight_it_is_info_nce_alone() -> None:
    objective = momentum(barlow_weight=0.0)
    first, second = ([z.float() for z in projections(seed)] for seed in (0, 1))
    objective.loss(*first, clips_of(1))
    expected = info_nce(second[0], second[4], first[4], 0.07)
    assert_close(objective.loss(*second, clips_of(0)), expected)


def test_of_the_first_batch_nothing_is_negative_and_the_layers_alone_count() -> None:
    projected = [z.float() for z in projections()]
    assert float(momentum(barlow_weight=0.0).loss(*projected, clips_of(0))) == pytest.approx(
        0, abs=1e-6
    )
    expected = sum(
        barlow_twins(ours, theirs)
        for ours, theirs in zip(projected[1:4], projected[5:], strict=True)
    )
    assert_close(momentum().loss(*projected, clips_of(0)), expected)


def test_the_length_of_queries_and_keys_does_not_matter_before_or_in_the_queue() -> None:
    found = []
    for scale in (1.0, 30.0):
        objective = momentum(barlow_weight=0.0)
        losses = []
        for seed in range(3):
            query, *layers, key, t_1, t_2, t_3 = (z.float() for z in projections(seed))
            compared = (scale * query, *layers, scale * key, t_1, t_2, t_3)
            losses.append(objective.loss(*compared, clips_of(seed)))
        found.append(torch.stack(losses))
    assert_close(*found, rtol=1e-4, atol=1e-4)


def test_the_queue_grows_by_the_batch_and_forgets_the_oldest() -> None:
    objective = momentum()
    keys = []
    for seed in range(4):
        projected = [z.float() for z in projections(seed)]
        keys.append(projected[4])
        objective.loss(*projected, clips_of(seed))
        assert len(objective.queue.keys[objective.queue.clips >= 0]) == min(
            BATCH * (seed + 1), QUEUE
        )
    last = torch.cat(keys)[-QUEUE:]
    held = objective.queue.keys[objective.queue.clips >= 0]
    assert sorted(held.tolist()) == sorted(last.tolist())


def test_keys_of_the_teacher_and_not_queries_join_the_queue() -> None:
    objective = momentum()
    projected = objective.forward_views(*two_views())
    objective.loss(*projected, clips_of(0))
    held = objective.queue.keys[objective.queue.clips >= 0]
    assert_close(held, projected[4].detach().flip(0), rtol=0, atol=0)


# --- DeLoRes-M: the teacher -------------------------------------------------------------------------------


def test_the_teacher_and_the_queue_get_no_gradient_and_every_parameter_of_the_student_does() -> (
    None
):
    objective = momentum()
    objective.loss(*objective.forward_views(*two_views(0)), clips_of(0))
    view_a, view_b = (view.requires_grad_() for view in two_views(1))
    projected = objective.forward_views(view_a, view_b)
    assert [z.requires_grad for z in projected] == [True] * 4 + [False] * 4
    objective.loss(*projected, clips_of(1)).backward()
    assert (view_a.grad is None, view_b.grad is None) == (False, True)
    assert all(p.grad is None for p in objective.teacher.parameters())
    assert not objective.queue.keys[objective.queue.clips >= 0].requires_grad
    assert all(p.grad is not None for p in objective.student.parameters())
    assert float(objective.student.key[-1].weight.grad.abs().sum()) > 0


def test_the_optimizer_holds_the_student_alone() -> None:
    objective = momentum()
    (group,) = OptimizerConfig().build(objective).param_groups
    held = {id(parameter) for parameter in group["params"]}
    assert held == {id(parameter) for parameter in objective.student.parameters()}


def test_teacher_and_queue_travel_with_the_state_dict() -> None:
    objective = momentum()
    for seed in range(2):
        objective.loss(*objective.forward_views(*two_views(seed)), clips_of(seed))
        with torch.no_grad():
            for parameter in objective.student.parameters():
                parameter.add_(0.01)
        objective.after_step()
    kept = copy.deepcopy(objective.state_dict())
    assert {name.partition(".")[0] for name in kept} == {"student", "teacher", "queue"}
    other = momentum()
    other.load_state_dict(kept)
    found = [
        each.loss(*each.forward_views(*two_views(9)), clips_of(9)) for each in (objective, other)
    ]
    assert_close(*found, rtol=0, atol=0)
    assert torch.equal(
        other.queue.keys[other.queue.clips >= 0], objective.queue.keys[objective.queue.clips >= 0]
    )


# --- both -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "given", "held"),
    [
        (DeloresS, TINY, count(encoder()) + projector_by_hand(D)),
        (
            DeloresM,
            TINY_M,
            2 * (count(encoder()) + D * KEY + KEY + sum(map(projector_by_hand, LAYERS))),
        ),
    ],
    ids=["delores-s", "delores-m"],
)
def test_an_upstream_learns_from_audio_and_the_same_seed_gives_the_same_bytes(
    kind: type[UpstreamSystem], given: dict[str, Any], held: int, context: RunContext
) -> None:
    random = np.random.default_rng(0)
    noise = [random.normal(size=4_000).astype(np.float32) for _ in range(6)]
    clips = Clips.pack([str(index) for index in range(6)], noise, 16_000)
    pretrain = {"epochs": 2, "min_steps": 1, "batch_size": 3, "window_seconds": 0.1}
    settings = kind.Settings.model_validate(given | {"pretrain": pretrain})
    found = []
    for name in ("one", "two"):
        aside = replace(context, artifact_folder=context.work_folder / name)
        upstream = kind.load_or_pretrain(settings, clips, aside)
        assert upstream.artifact.computed
        assert upstream.n_parameters == held
        assert [row["epoch"] for row in upstream.curve] == [1, 2]
        found.append(upstream)
    one, two = found
    assert one.artifact.metadata.sha256 == two.artifact.metadata.sha256
    assert_close(one.encoder.state_dict(), two.encoder.state_dict(), rtol=0, atol=0)
