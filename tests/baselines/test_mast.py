"""MAST and SS-MAST: the same transformer, which patches are dropped and when, and who is compared with whom."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lape_bench.baselines.mast import Mast, MastConfig
from lape_bench.baselines.moco import MoCo
from lape_bench.baselines.ss_mast import (
    PatchDropBranch,
    SSMast,
    SSMastConfig,
    SSMastObjective,
    random_keep_mask,
)
from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.multiscale_transformer import (
    MultiscaleTransformer,
    MultiscaleTransformerConfig,
)
from lape_bench.learning.systems.momentum_contrast import MomentumConfig
from lape_bench.system import LabeledClips, RunContext, TargetTask, TrainingData

KEY, QUEUE, BATCH = 5, 7, 3
SIZE: dict[str, Any] = {"width": 4, "depths": [1, 1]}
TINY: dict[str, Any] = SIZE | {"key_features": KEY, "key_hidden": 6, "queue": QUEUE}
TARGET = TargetTask(classes=("low", "high"), window_seconds=0.3, metric="accuracy")
RATE = 16_000
CPU = torch.device("cpu")


def build(clips: int = 1000, **settings: Any) -> SSMastObjective:
    torch.manual_seed(0)
    config = SSMastConfig.model_validate(TINY | settings)
    objective = SSMast.build_objective(SSMast.new_encoder(config), config, clips).train()
    with torch.no_grad():
        for parameter in objective.teacher.parameters():
            parameter.mul_(1.5)  # so that it can be told from the student
    return objective


def two_views(seed: int = 0, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, batch, 128, 36, generator=torch.Generator().manual_seed(seed))
    return a, 2 * b + 1


def projections(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(4, BATCH, KEY, generator=generator, dtype=torch.float64))


def cosine(one: Tensor, other: Tensor) -> float:
    return float(one @ other) / float(np.linalg.norm(one) * np.linalg.norm(other))


def noises(count: int = 12) -> Clips:
    """Clips of 0.2 to 0.5 s, every other one duller."""
    random = np.random.default_rng(0)
    waveforms = []
    for index in range(count):
        noise = random.normal(0, 0.1, random.integers(3_200, 8_000))
        dull = np.convolve(noise, np.ones(8) / 8, mode="same")
        waveforms.append((dull if index % 2 else noise).astype(np.float32))
    return Clips.pack([f"clip {index}" for index in range(count)], waveforms, RATE)


# --- the transformer --------------------------------------------------------------------------------------


def test_both_have_the_same_transformer_and_the_same_rate_with_the_labels() -> None:
    ours, theirs = MastConfig(), SSMastConfig()
    sizes = MultiscaleTransformerConfig().model_dump()
    for config in (ours, theirs):
        assert {name: getattr(config, name) for name in sizes} == sizes
    assert ours.finetune == theirs.finetune
    assert ours.finetune.learning_rates == (2.5e-4,)
    alone = Mast(ours, TARGET, "finetune").build_encoder()
    learned = SSMast.new_encoder(theirs)
    shapes = [{n: t.shape for n, t in e.state_dict().items()} for e in (alone, learned)]
    assert shapes[0] == shapes[1]


def test_key_head_queue_and_momentum_are_those_of_moco() -> None:
    ours, theirs = SSMastConfig().model_dump(), MoCo.Settings().model_dump()
    shared = set(MomentumConfig.model_fields) - {"pretrain", "finetune"}
    assert {"temperature", "queue", "momentum", "key_hidden"} < shared
    assert {name: ours[name] for name in shared} == {name: theirs[name] for name in shared}
    assert ours["pretrain"] == theirs["pretrain"] | {
        "optimizer": theirs["pretrain"]["optimizer"] | {"learning_rate": 1e-4}
    }


def test_mast_starts_from_random_weights_and_learns_from_labels_alone(context: RunContext) -> None:
    clips = noises()
    labels = torch.arange(12) % 2
    data = TrainingData(clips, LabeledClips(clips, labels, torch.arange(len(labels))), None)
    few = {"finetune": {"epochs": 2, "min_steps": 1, "batch_size": 6}}
    encoders = []
    for protocol in ("linear", "finetune"):
        run = replace(
            context,
            work_folder=context.work_folder / protocol,
            artifact_folder=context.work_folder / f"{protocol} a",
        )
        run.work_folder.mkdir()
        system = Mast(MastConfig.model_validate(SIZE | few), TARGET, protocol)
        system.train(data, run)
        encoders.append(dict(system.encoder.named_parameters()))
    with context.seeds.globally("initial weights"):
        start = MultiscaleTransformer(MastConfig.model_validate(SIZE))
    frozen, trained = encoders
    assert_close(frozen, dict(start.named_parameters()), rtol=0, atol=0)
    assert all(torch.isfinite(p).all() for p in trained.values())
    assert not torch.equal(trained["patches.weight"], frozen["patches.weight"])


def test_operations_are_those_by_hand_and_attention_is_among_them(context: RunContext) -> None:
    config = MastConfig.model_validate(SIZE)
    system = Mast(config, TARGET, "finetune")
    system.encoder = system.build_encoder()
    system.head = torch.nn.Linear(8, 2)
    frames = 31  # of 0.3 s
    tokens = 13 * 3  # patches of 16 at every 10
    first, second = 4, 8  # channels
    keys, halved = 4 * 1, 7 * 2  # of 13 x 3: 4 times and twice coarser
    window = (
        513 * 128 * frames  # the mel filter bank
        + tokens * 16 * 16 * first
        # first stage: projection, three pools, attention, out, perceptron
        + tokens * first * 3 * first
        + 9 * first * (tokens + 2 * keys)
        + 2 * tokens * keys * first
        + tokens * (first * first + 8 * first * first)
        # second stage: two heads of 4 channels; queries, keys and values twice coarser; the way around it
        + tokens * first * 3 * second
        + tokens * first * second
        + 9 * second * 3 * halved
        + 2 * halved * halved * second
        + halved * (second * second + 8 * second * second)
        + second * 2
    )
    assert system.count_macs() == round(window / 0.3)


# --- dropping patches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "stay"), [(0.0, 52), (0.1, 47), (0.5, 26), (0.98, 1), (0.999, 1)]
)
def test_the_same_number_of_patches_stays_of_every_clip(share: float, stay: int) -> None:
    kept = random_keep_mask(64, (13, 4), share, CPU)
    assert (kept.shape, kept.dtype) == ((64, 13, 4), torch.bool)
    assert kept.sum(dim=(1, 2)).tolist() == [stay] * 64


def test_each_patch_of_each_clip_is_as_likely_to_stay_as_any() -> None:
    torch.manual_seed(0)
    kept = random_keep_mask(4000, (3, 4), 0.25, CPU).double()
    assert_close(kept.mean(dim=0), torch.full((3, 4), 0.75).double(), rtol=0, atol=0.03)
    assert len({tuple(each.flatten().tolist()) for each in kept}) > 150  # of 220 ways


def test_the_global_generator_alone_decides_which() -> None:
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(random_keep_mask(8, (13, 4), 0.5, CPU))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_branch_sees_what_is_left_of_a_view_and_without_a_share_all_of_it() -> None:
    view, _ = two_views()
    for share in (0.0, 0.4):
        branch = build(patch_drop=share).student
        assert isinstance(branch, PatchDropBranch)
        torch.manual_seed(7)
        (found,) = branch(view)
        torch.manual_seed(7)
        kept = random_keep_mask(BATCH, (13, 3), 0.4, CPU) if share else None
        assert_close(found, branch.key(branch.encoder(view, kept)), rtol=0, atol=0)


def test_no_patch_is_dropped_but_in_pre_training(context: RunContext) -> None:
    few = {"epochs": 1, "min_steps": 1, "batch_size": 6, "window_seconds": 0.2}
    config = SSMastConfig.model_validate(TINY | {"patch_drop": 0.5, "pretrain": few})
    encoder = SSMast.load_or_pretrain(config, noises(), context).encoder
    view, _ = two_views()
    assert torch.equal(encoder.train()(view), encoder.eval()(view))
    plain = MultiscaleTransformer(config)
    plain.load_state_dict(encoder.state_dict())
    assert torch.equal(plain(view), encoder(view))


def test_another_share_is_another_upstream(context: RunContext) -> None:
    few = {"epochs": 1, "min_steps": 1, "batch_size": 6, "window_seconds": 0.2}
    found = []
    for share in (0.0, 0.5):
        given = TINY | {"patch_drop": share, "pretrain": few}
        upstream = SSMast.load_or_pretrain(SSMastConfig.model_validate(given), noises(), context)
        assert upstream.artifact.computed
        found.append(upstream.artifact.metadata.sha256)
    assert found[0] != found[1]


# --- the contrast -----------------------------------------------------------------------------------------


def test_student_and_teacher_each_see_both_views() -> None:
    objective = build(patch_drop=0.0)
    apart = copy.deepcopy(objective)
    views = two_views()
    found = objective.forward_views(*views)
    expected = [
        branch.key(branch.encoder(view))
        for branch in (apart.student, apart.teacher)
        for view in views
    ]
    for z, z_expected in zip(found, expected, strict=True):
        assert z.shape == (BATCH, KEY)
        assert_close(z, z_expected)
    assert [z.requires_grad for z in found] == [True, True, False, False]


def test_the_loss_over_some_batches_agrees_with_a_loop_over_clips_directions_and_the_last_keys() -> (
    None
):
    objective = build(temperature=0.3).double()
    held: list[tuple[int, Tensor]] = []
    for seed in range(4):
        clips = torch.tensor([0, 1 + seed, 6 + seed % 2])  # some are in the queue already
        query_a, query_b, key_a, key_b = projections(seed)
        terms = []
        for queries, keys in ((query_a, key_b), (query_b, key_a)):
            for q, k, clip in zip(queries, keys, clips.tolist(), strict=True):
                negatives = [older for its_clip, older in held if its_clip != clip]
                own, *others = (np.exp(cosine(q, each) / 0.3) for each in (k, *negatives))
                terms.append(-np.log(own / (own + sum(others))))
        found = objective.loss(query_a, query_b, key_a, key_b, clips)
        assert float(found) == pytest.approx(sum(terms) / BATCH)
        both = zip([*clips.tolist()] * 2, [*key_a, *key_b], strict=True)
        held = [*held, *both][-QUEUE:]
        assert sorted(objective.queue.keys[objective.queue.clips >= 0].tolist()) == sorted(
            torch.stack([older for _, older in held]).tolist()
        )


def test_the_loss_is_symmetric_in_the_views_and_does_not_depend_on_lengths_or_order() -> None:
    def loss(*projected: Tensor) -> Tensor:
        objective = build().double()
        objective.queue.enqueue(projections(1)[0], torch.arange(BATCH))
        return objective.loss(*projected, BATCH + torch.arange(BATCH))

    query_a, query_b, key_a, key_b = projections()
    expected = loss(query_a, query_b, key_a, key_b)
    assert_close(loss(query_b, query_a, key_b, key_a), expected)
    assert_close(loss(2 * query_a, 3 * query_b, 5 * key_a, 7 * key_b), expected)
    order = torch.tensor([2, 0, 1])
    assert_close(loss(*(z[order] for z in (query_a, query_b, key_a, key_b))), expected)
    assert not torch.isclose(loss(query_a, query_b, key_b, key_a), expected)


@pytest.mark.parametrize("batch", [2, BATCH])
def test_no_gradient_reaches_the_teacher_and_every_parameter_of_the_student_gets_a_finite_one(
    batch: int,
) -> None:
    objective = build(patch_drop=0.5)
    objective.loss(*objective.forward_views(*two_views(0, batch)), torch.arange(batch))
    views = [view.requires_grad_() for view in two_views(1, batch)]
    objective.loss(*objective.forward_views(*views), batch + torch.arange(batch)).backward()
    assert all(view.grad is not None and view.grad.abs().sum() > 0 for view in views)
    assert all(p.grad is None for p in objective.teacher.parameters())
    assert all(torch.isfinite(p.grad).all() for p in objective.student.parameters())
    assert float(objective.encoder.patches.weight.grad.abs().sum()) > 0
