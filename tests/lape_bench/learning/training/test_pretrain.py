"""Upstream learning on a tiny corpus, and what is watched of its embeddings, by hand."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.testing import assert_close

from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.encoders.heads import mlp
from lape_bench.learning.losses.barlow_twins import barlow_twins
from lape_bench.learning.losses.contrast import info_nce
from lape_bench.learning.training.loop import EpochPlan, OptimizerConfig
from lape_bench.learning.training.momentum_encoder import Queue, momentum_copy, momentum_update
from lape_bench.learning.training.pretrain import (
    Objective,
    PretrainConfig,
    UnlabeledClips,
    effective_rank,
    feature_spread,
    pretrain,
)
from lape_bench.runtime.batch_random import BatchRandom
from lape_bench.system import Curve, RunContext
from tests.tiny_encoder import RATE, SHAPE, WINDOW_SECONDS, Tiny

few_examples = settings(max_examples=40)
CONFIG = PretrainConfig(
    optimizer=OptimizerConfig(name="adam", learning_rate=0.01, schedule="constant"),
    batch_size=8,
    epochs=4,
    min_steps=1,
    window_seconds=WINDOW_SECONDS,
)


class Stopped(Exception):
    """Stands for a kill."""


class Twins(Objective):
    """Barlow Twins on two views."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Tiny()
        self.projector = mlp([8, 8, 6])
        self.losses = 0
        self.stop_at: int | None = None

    def forward_views(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        return self.projector(self.encoder(view_a)), self.projector(self.encoder(view_b))

    def loss(self, *projected: Tensor) -> Tensor:
        self.losses += 1
        if self.losses == self.stop_at:
            raise Stopped
        return barlow_twins(*projected)


class TwoWindows(Twins):
    """Barlow Twins on two windows of a clip."""

    windows_per_clip = 2


class Contrast(Twins):
    """InfoNCE against a momentum teacher and a queue."""

    def __init__(self) -> None:
        super().__init__()
        self.teacher = momentum_copy(self.encoder)
        self.queue = Queue(12, 8)

    def forward_views(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            keys = self.teacher(view_b)
        return self.encoder(view_a), keys

    def loss(self, *projected: Tensor) -> Tensor:
        self.losses += 1
        if self.losses == self.stop_at:
            raise Stopped
        queries, keys, clips = projected
        loss = info_nce(queries, keys, self.queue.keys, 0.2, self.queue.negatives_mask(clips))
        self.queue.enqueue(keys, clips)
        return loss

    def targets(self, batch: Tensor) -> tuple[Tensor, ...]:
        return (batch,)

    def after_step(self) -> None:
        momentum_update(self.teacher, self.encoder, 0.9)


class Grouped(Twins):
    """A classifier with new weights every other epoch, of groups that are dealt anew by what the encoder then makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(8, 3)
        self.register_buffer("groups", torch.full((20,), -1))
        self.dealt = False
        self.seen: list[Tensor] = []

    def before_epoch(self, epoch: int, corpus: UnlabeledClips, seeds: Seeds) -> Tensor | None:
        self.dealt = epoch % 2 == 1
        if self.dealt:
            embeddings = corpus.embeddings(seeds.torch("windows"))
            self.groups.copy_(embeddings.sum(dim=1).argsort().argsort() % 3)
            with torch.no_grad():
                draw = seeds.torch("weights")
                for parameter in self.reinitialized_parameters():
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
        return torch.randint(20, (20,), generator=seeds.torch("some"))

    def reinitialized_parameters(self) -> list[nn.Parameter]:
        return list(self.classifier.parameters()) if self.dealt else []

    def targets(self, batch: Tensor) -> tuple[Tensor, ...]:
        self.seen.append(batch)
        return (self.groups[batch],)

    def forward_views(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        return self.classifier(self.encoder(view_a)), self.classifier(self.encoder(view_b))

    def loss(self, *compared: Tensor) -> Tensor:
        self.losses += 1
        if self.losses == self.stop_at:
            raise Stopped
        logits_a, logits_b, groups = compared
        assert groups.dtype == torch.int64
        return nn.functional.cross_entropy(logits_a + logits_b, groups)

    def epoch_metrics(self) -> dict[str, float]:
        return {"first_group": float(self.groups[0])} if self.dealt else {}


def corpus(count: int = 20, seed: int = 0) -> Clips:
    """Tones of as many heights as there are clips, in noise."""
    random = np.random.default_rng(seed)
    waveforms = []
    for index in range(count):
        time = np.arange(random.integers(80, 200)) / RATE
        tone = np.sin(2 * np.pi * 45 * (index + 1) / (count + 1) * time + random.uniform(0, 6))
        waveforms.append((tone + random.normal(0, 0.2, len(time))).astype(np.float32))
    return Clips.pack([f"clip {index}" for index in range(count)], waveforms, RATE)


def build(kind: type[Twins], seed: int = 0) -> Twins:
    torch.manual_seed(seed)
    return kind()


def learn(
    objective: Objective,
    context: RunContext,
    config: PretrainConfig = CONFIG,
    clips: Clips | None = None,
    views: Any = None,
) -> Curve:
    given = clips or corpus()
    return pretrain(objective, views or Views(SHAPE, len(given)), given, config, context)


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def apart(context: RunContext, name: str) -> RunContext:
    work = context.work_folder / name
    work.mkdir()
    return replace(context, work_folder=work, checkpoint_seconds=0.0)


each = pytest.mark.parametrize("kind", [Twins, TwoWindows, Contrast, Grouped])


# --- what is learned ---------------------------------------------------------------------------------------


def test_the_loss_falls_on_a_tiny_corpus(context: RunContext) -> None:
    curve = learn(build(Twins), context, CONFIG.model_copy(update={"epochs": 30}))
    losses = [row["loss"] for row in curve]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert [row["epoch"] for row in curve] == list(range(1, 31))


class Marked(nn.Module):
    """Views that tell whether they are the first or the second of a clip."""

    def forward(self, log_mels: Tensor, random: BatchRandom) -> Tensor:
        first, second = log_mels.chunk(2)
        return torch.cat([first, second + 1000])


def test_an_objective_gets_two_views_of_the_same_clips_in_one_order(context: RunContext) -> None:
    objective, seen = build(Twins), []
    plain = objective.forward_views

    def forward_views(view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        seen.append((view_a, view_b))
        return plain(view_a, view_b)

    objective.forward_views = forward_views
    learn(objective, context, CONFIG.model_copy(update={"gain_db": 0.0}), views=Marked())
    assert [len(view_a) for view_a, _ in seen] == [7, 7, 6] * 4
    for view_a, view_b in seen:
        assert view_a.abs().max() < 100
        assert_close(view_b - 1000, view_a, rtol=0, atol=1e-3)


def test_an_objective_may_ask_for_a_window_of_its_own_for_each_view(context: RunContext) -> None:
    objective, heard = build(TwoWindows), []
    plain = objective.encoder.features

    def features(waveforms: Tensor) -> Tensor:
        if objective.encoder.training:
            heard.append(waveforms.chunk(2))
        return plain(waveforms)

    objective.encoder.features = features
    # Clip k is 1000 k, 1000 k + 1, ...; the first three are no longer than the window of 96.
    lengths = [60, 95, 96, 200, 300, 400]
    waveforms = [
        1000 * (clip + 1) + np.arange(length, dtype=np.float32)
        for clip, length in enumerate(lengths)
    ]
    given = Clips.pack([str(length) for length in lengths], waveforms, RATE)
    learn(objective, context, CONFIG.model_copy(update={"gain_db": 0.0}), clips=given)
    differ = np.zeros(6)
    for first, second in heard:
        clip = (first.amax(dim=1) // 1000).long() - 1
        assert torch.equal((second.amax(dim=1) // 1000).long() - 1, clip)
        differ[clip] += (first != second).any(dim=1).numpy()
    assert differ[:3].tolist() == [0, 0, 0]
    assert (differ[3:] > 0).all()


def test_each_view_has_a_level_of_its_own_within_the_decibels(context: RunContext) -> None:
    objective, moved = build(Twins), []
    plain = objective.encoder.features

    def features(waveforms: Tensor) -> Tensor:
        if objective.encoder.training:
            first, second = waveforms.chunk(2)
            ratio = second / first
            decibels = 20 * torch.log10(ratio.nanmedian(dim=1).values)
            assert_close(first * ratio.nanmedian(dim=1, keepdim=True).values, second)
            moved.extend(decibels.tolist())
        return plain(waveforms)

    objective.encoder.features = features
    learn(objective, context, CONFIG.model_copy(update={"gain_db": 6.0}))
    # The difference of two levels that are each uniform in [-6, 6].
    assert len(set(moved)) == 80
    assert 6 < max(abs(difference) for difference in moved) <= 12.001


def test_windows_have_the_configured_length(context: RunContext) -> None:
    objective, seen = build(Twins), []
    plain = objective.encoder.features

    def features(waveforms: Tensor) -> Tensor:
        seen.append(tuple(waveforms.shape))
        return plain(waveforms)

    objective.encoder.features = features
    learn(objective, context, CONFIG.model_copy(update={"epochs": 1}))
    assert {length for _, length in seen} == {96}


def test_a_small_corpus_is_passed_until_the_least_number_of_steps(context: RunContext) -> None:
    objective = build(Twins)
    curve = learn(objective, context, CONFIG.model_copy(update={"min_steps": 14}))
    assert len(curve) == 5
    assert objective.losses == 15


def test_steps_have_the_rate_and_the_schedule_of_the_settings(context: RunContext) -> None:
    taken: list[float] = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: taken.extend(group["lr"] for group in optimizer.param_groups)
    )
    rising = OptimizerConfig(learning_rate=0.02, warm_up=0.5, schedule="constant")
    try:
        learn(build(Twins), context, CONFIG.model_copy(update={"optimizer": rising}))
    finally:
        hook.remove()
    assert taken == pytest.approx([0.02 * step / 6 for step in range(6)] + [0.02] * 6)


def test_in_bf16_the_projection_is_in_bf16_and_the_loss_in_float32(context: RunContext) -> None:
    objective, seen = build(Twins), []
    forward_views, loss = objective.forward_views, objective.loss

    def noted_project(view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        projected = forward_views(view_a, view_b)
        seen.append((view_a.dtype, *(z.dtype for z in projected)))
        return projected

    def noted_loss(*projected: Tensor) -> Tensor:
        value = loss(*projected)
        seen.append((*(z.dtype for z in projected), value.dtype))
        return value

    objective.forward_views, objective.loss = noted_project, noted_loss
    learn(objective, replace(context, precision="bf16"))
    assert set(seen) == {
        (torch.float32, torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.float32, torch.float32),
    }


def test_the_momentum_teacher_has_followed_every_step(context: RunContext) -> None:
    objective = build(Contrast)
    teacher = {name: value.clone() for name, value in objective.teacher.named_parameters()}
    plain = objective.after_step

    def by_hand() -> None:
        plain()
        for name, value in objective.encoder.named_parameters():
            teacher[name] = 0.9 * teacher[name] + 0.1 * value.detach()

    objective.after_step = by_hand
    learn(objective, context)
    found = {name: value.detach() for name, value in objective.teacher.named_parameters()}
    assert_close(found, teacher, rtol=1e-4, atol=1e-5)
    for name, value in build(Contrast).teacher.named_parameters():
        assert not torch.equal(found[name], value)
    # The last keys of the last epoch.
    assert len(set(objective.queue.clips.tolist())) == 12


# --- between epochs ---------------------------------------------------------------------------------------


def test_an_objective_is_told_the_clips_of_each_step_in_the_order_it_asked_for(
    context: RunContext,
) -> None:
    objective, levels = build(Grouped), []
    plain = objective.encoder.features

    def features(waveforms: Tensor) -> Tensor:
        if objective.encoder.training:
            levels.append(waveforms[:, 0].chunk(2))
        return plain(waveforms)

    objective.encoder.features = features
    waveforms = [np.full(96, clip + 1, np.float32) for clip in range(20)]
    given = Clips.pack([str(clip) for clip in range(20)], waveforms, RATE)
    learn(objective, context, CONFIG.model_copy(update={"gain_db": 0.0}), given)
    for epoch in range(1, 5):
        seeds = context.seeds.within("epoch", epoch)
        asked = torch.randint(20, (20,), generator=seeds.torch("some"))
        assert torch.equal(torch.cat(objective.seen[3 * epoch - 3 : 3 * epoch]), asked)
    for batch, (first, second) in zip(objective.seen, levels, strict=True):
        assert torch.equal(first, batch + 1.0)
        assert torch.equal(second, batch + 1.0)


def adam_steps(objective: Objective, context: RunContext, epochs: int) -> dict[str, float]:
    """How many steps Adam has made with each parameter since it last forgot."""
    learn(objective, context, CONFIG.model_copy(update={"epochs": epochs}))
    content = torch.load(context.work_folder / "pre-training.pt", weights_only=True)
    state = content["optimizer"]["state"]
    names = [name for name, _ in objective.named_parameters()]
    return {names[index]: float(values["step"]) for index, values in state.items()}


@pytest.mark.parametrize(("epochs", "since"), [(1, 3), (2, 6), (3, 3), (4, 6)])
def test_the_optimizer_forgets_what_it_knew_of_renewed_parameters_alone(
    context: RunContext, epochs: int, since: int
) -> None:
    steps = adam_steps(build(Grouped), context, epochs)
    for name, made in steps.items():
        if name.startswith("classifier"):
            assert made == since
        elif name.startswith("encoder"):
            assert made == 3 * epochs


def test_the_optimizer_forgets_nothing_by_default(context: RunContext) -> None:
    steps = adam_steps(build(Twins), context, 4)
    assert len(steps) == len(list(build(Twins).parameters()))
    assert set(steps.values()) == {12}


def test_a_renewed_parameter_is_moved_as_adam_moves_one_for_the_first_time(
    context: RunContext,
) -> None:
    objective, moved = build(Grouped), []
    plain = objective.loss

    def loss(*compared: Tensor) -> Tensor:
        moved.append(objective.classifier.weight.detach().clone())
        return plain(*compared)

    objective.loss = loss
    learn(objective, context)
    # The first step of Adam is the learning rate times the gradient's sign; three steps an epoch, new in 1 and 3.
    for first in (0, 6):
        assert_close(
            (moved[first + 1] - moved[first]).abs(), torch.full((3, 8), 0.01), rtol=1e-2, atol=1e-5
        )
    assert ((moved[4] - moved[3]).abs() - 0.01).abs().max() > 1e-3


def test_what_an_objective_notes_stands_in_the_curve_of_the_epochs_it_notes_it_in(
    context: RunContext,
) -> None:
    curve = learn(build(Grouped), context)
    assert ["first_group" in row for row in curve] == [True, False, True, False]
    assert all(row.keys() >= {"epoch", "loss", "spread", "rank"} for row in curve)
    assert all(
        row.keys() == {"epoch", "loss", "spread", "rank"}
        for row in learn(build(Twins), apart(context, "twins"))
    )


def seen_by(encoder: Encoder, clips: Clips, context: RunContext) -> UnlabeledClips:
    return UnlabeledClips(encoder, EpochPlan(clips, round(WINDOW_SECONDS * RATE), 8, 4), context)


def test_the_corpus_is_embedded_clip_by_clip_without_views_or_dropout(context: RunContext) -> None:
    encoder, exact = build(Twins).encoder, [60, 95, 96] * 30  # of windows of 96: one place for each
    random = np.random.default_rng(0)
    given = Clips.pack(
        [str(index) for index in range(90)],
        [random.normal(0, 1, length).astype(np.float32) for length in exact],
        RATE,
    )
    encoder.norm.running_mean.fill_(0.3)
    encoder.train()
    found = seen_by(encoder, given, context).embeddings(torch.Generator())
    assert found.shape == (90, 8)
    assert not found.requires_grad
    assert_close(found, middle_embeddings(encoder, given))


def test_of_a_longer_clip_a_window_is_embedded_that_the_draw_decides(context: RunContext) -> None:
    encoder, given = build(Twins).encoder, corpus(70)
    place = seen_by(encoder, given, context)
    first, again, other = (
        place.embeddings(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    longer = torch.from_numpy(given.lengths > 96)
    assert (first != other).any(dim=1)[longer].float().mean() > 0.8
    assert_close(first[~longer], other[~longer], rtol=0, atol=0)


def test_in_bf16_the_corpus_is_embedded_in_float32(context: RunContext) -> None:
    encoder, given = build(Twins).encoder, corpus()
    exact, rounded = (
        seen_by(encoder, given, replace(context, precision=precision)).embeddings(torch.Generator())
        for precision in ("float32", "bf16")
    )
    assert exact.dtype == rounded.dtype == torch.float32
    assert torch.equal(exact, rounded)


# --- seeds and kills --------------------------------------------------------------------------------------


@each
def test_the_same_seed_learns_the_same_bytes_and_another_learns_others(
    context: RunContext, kind: type[Twins]
) -> None:
    one, two, other = build(kind), build(kind), build(kind)
    curve = learn(one, apart(context, "one"))
    torch.manual_seed(7)  # the global generator has no part in it
    assert learn(two, apart(context, "two")) == curve
    assert same(one, two)
    learn(other, replace(apart(context, "other"), seeds=type(context.seeds)(1, "test")))
    assert not same(one, other)


@each
@pytest.mark.parametrize("step", [1, 4, 6, 12])
def test_a_run_stopped_and_resumed_ends_with_the_same_bytes(
    context: RunContext, kind: type[Twins], step: int
) -> None:
    straight, stopped, resumed = build(kind), build(kind), build(kind)
    curve = learn(straight, apart(context, "straight"))
    stopped.stop_at = step
    aside = apart(context, "stopped")
    with pytest.raises(Stopped):
        learn(stopped, aside)
    assert learn(resumed, aside) == curve
    assert same(resumed, straight)
    assert resumed.losses == 12 - (step - 1) // 3 * 3


def test_what_is_watched_does_not_change_what_is_learned(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, unwatched = build(Twins), build(Twins)
    learn(watched, apart(context, "watched"))
    monkeypatch.setattr("lape_bench.learning.training.pretrain.N_MONITORED_CLIPS", 2)
    learn(unwatched, apart(context, "unwatched"))
    assert same(watched, unwatched)


# --- spread and rank --------------------------------------------------------------------------------------


def middle_embeddings(encoder: Encoder, clips: Clips) -> Tensor:
    """Embed the middle window of each clip, one at a time; a shorter clip between zeros."""
    window, rows = round(WINDOW_SECONDS * RATE), []
    for clip in (clips[index] for index in range(len(clips))):
        start = (len(clip) - window) // 2
        padded = np.pad(clip, window)[window + start :][:window]
        with torch.no_grad():
            rows.append(encoder.eval()(encoder.features(torch.from_numpy(padded)[None]))[0])
    return torch.stack(rows)


def test_the_curve_tells_spread_and_rank_of_the_corpus_under_the_encoder_of_that_epoch(
    context: RunContext,
) -> None:
    objective = build(Twins)
    curve = learn(objective, context)
    embeddings = middle_embeddings(objective.encoder, corpus())
    assert curve[-1]["spread"] == pytest.approx(spread_by_hand(embeddings), abs=1e-6)
    assert curve[-1]["rank"] == pytest.approx(rank_by_hand(embeddings), rel=1e-6)
    assert len({row["spread"] for row in curve}) == 4


def test_of_a_large_corpus_128_clips_from_first_to_last_are_watched(context: RunContext) -> None:
    objective, seen = build(Twins), []
    plain = objective.encoder.features

    def features(waveforms: Tensor) -> Tensor:
        if not objective.encoder.training:
            seen.extend(waveforms[:, 0].tolist())
        return plain(waveforms)

    objective.encoder.features = features
    waveforms = [np.full(96, float(clip), np.float32) for clip in range(300)]
    clips = Clips.pack([str(clip) for clip in range(300)], waveforms, RATE)
    config = CONFIG.model_copy(update={"epochs": 1, "batch_size": 100})
    learn(objective, context, config, clips)
    assert len(seen) == 128
    assert (seen[0], seen[-1]) == (0, 299)
    assert set(np.diff(seen)) == {2, 3}


def spread_by_hand(embeddings: Tensor) -> float:
    rows = embeddings.double().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return float(np.sqrt(rows.var(axis=0).sum()))


def rank_by_hand(embeddings: Tensor) -> float:
    rows = embeddings.double().numpy()
    rows = rows - rows.mean(axis=0)
    variances = np.linalg.eigvalsh(rows.T @ rows).clip(min=0)
    share = np.sqrt(variances) / np.sqrt(variances).sum()
    share = share[share > 1e-9]
    return float(np.exp(-(share * np.log(share)).sum()))


@pytest.mark.parametrize(
    ("rows", "spread"),
    [
        ([[1, 2], [1, 2], [1, 2]], 0.0),
        ([[1, 0], [5, 0], [0.1, 0]], 0.0),  # lengths do not matter
        ([[1, 0], [0, 1]], math.sqrt(1 / 2)),
        ([[1, 0, 0], [0, 7, 0], [0, 0, 3]], math.sqrt(2 / 3)),
        ([[2, 0], [-1, 0]], 1.0),
        ([[1, 0], [-1, 0], [0, 1], [0, -1]], 1.0),
        ([[1, 0], [1, 0], [1, 0], [0, 1]], math.sqrt(1 - 10 / 16)),
    ],
)
def test_the_spread_of_some_directions(rows: list[list[float]], spread: float) -> None:
    assert feature_spread(torch.tensor(rows).float()) == pytest.approx(spread, abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "rank"),
    [
        ([[0, 0], [1, 2], [2, 4]], 1.0),
        ([[5, 5, 5], [6, 6, 7]], 1.0),
        ([[1, 0], [-1, 0], [0, 1], [0, -1]], 2.0),
        ([[9, 0], [-9, 0], [0, 9], [0, -9]], 2.0),
        ([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], 3.0),
        # Singular values 3 and 1 in ratio: shares of 3/4 and 1/4.
        ([[3, 0], [-3, 0], [0, 1], [0, -1]], 4 / 3**0.75),
        ([[4, 4]] * 3, 1.0),
    ],
)
def test_the_rank_of_some_directions(rows: list[list[float]], rank: float) -> None:
    assert effective_rank(torch.tensor(rows).float()) == pytest.approx(rank, abs=1e-6)


@few_examples
@given(seed=st.integers(0, 999), clips=st.integers(2, 9), features=st.integers(1, 6))
def test_spread_and_rank_agree_with_numpy_and_stay_in_their_range(
    seed: int, clips: int, features: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(clips, features, generator=generator) + 1
    spread, rank = feature_spread(rows), effective_rank(rows)
    assert spread == pytest.approx(spread_by_hand(rows), abs=1e-6)
    assert rank == pytest.approx(rank_by_hand(rows), rel=1e-5)
    assert 0 <= spread <= 1
    assert 1 - 1e-9 <= rank <= min(clips - 1, features) + 1e-6


def test_moving_all_embeddings_leaves_their_rank() -> None:
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    assert effective_rank(rows + 100) == pytest.approx(effective_rank(rows), rel=1e-4)


def test_collapsed_features_are_said_with_the_epoch_and_advice(
    context: RunContext, caplog: pytest.LogCaptureFixture
) -> None:
    objective = build(Twins)
    with torch.no_grad():
        objective.encoder.norm.weight.mul_(1e-3)
        objective.encoder.norm.bias.fill_(1.0)
    still = OptimizerConfig(learning_rate=1e-30)
    config = CONFIG.model_copy(update={"optimizer": still, "epochs": 2})
    curve = learn(objective, context, config)
    assert max(row["spread"] for row in curve) < 0.05
    said = [line for line in caplog.messages if "collapsed" in line]
    assert len(said) == 1  # of two epochs
    assert "after epoch 1)" in said[0]
    assert "lower the learning rate" in said[0]


def test_healthy_features_are_passed_over_in_silence(
    context: RunContext, caplog: pytest.LogCaptureFixture
) -> None:
    curve = learn(build(Twins), context)
    assert min(row["spread"] for row in curve) > 0.05
    assert caplog.messages == []


def test_embeddings_are_watched_without_a_bar_of_their_own(context: RunContext) -> None:
    titles: list[str] = []

    class Titled(Progress):
        def task(self, title: str, *arguments: Any) -> Any:
            titles.append(title)
            return super().task(title, *arguments)

    learn(build(Twins), replace(context, progress=Titled(quiet=True)))
    assert titles == ["pre-training"]
