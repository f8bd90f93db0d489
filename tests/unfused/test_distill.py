"""Stage 3: what a step is given, that it teaches, and that a kill changes nothing."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.data.audio_store import Clips
from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.encoders.base import Encoder
from lape_bench.runtime.batch_random import BatchRandom
from lape_bench.system import Curve, RunContext
from lape_bench.unfused import distill as stage_3
from lape_bench.unfused.distill import PAPER, DistillConfig, agreement, distill
from lape_bench.unfused.losses import self_distillation
from lape_bench.unfused.student import Student

RATE, CLUSTERS = 200, 3
N_MELS, FRAMES = 6, 8
SGD = {"name": "sgd", "momentum": 0.9, "weight_decay": 1e-4, "warm_up": 0.0, "schedule": "constant"}
FEW: dict[str, Any] = {
    "epochs": 4,
    "min_steps": 1,
    "batch_size": 8,
    "window_seconds": 0.4,
    "gain_db": 0.0,
    "optimizer": SGD | {"learning_rate": 0.02},
}


class Stopped(Exception):
    """Stands for a kill."""


class Spectra(Encoder):
    """A tiny encoder over log spectra of 0.05 s, with two blocks, batch norm and dropout."""

    sample_rate = RATE
    embedding_size = 7
    layer_sizes = (24, 16)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(N_MELS * FRAMES, 24), nn.Linear(24, 16)
        self.norm, self.drop = nn.BatchNorm1d(16), nn.Dropout(0.2)
        self.last = nn.Linear(16, 7)

    def features(self, waveforms: Tensor) -> Tensor:
        frames = waveforms.reshape(len(waveforms), FRAMES, -1)
        spectra = torch.fft.rfft(frames).abs().transpose(1, 2)
        return (spectra + 1e-2).log()

    def forward(self, features: Tensor) -> Tensor:
        return self.with_layers(features)[0]

    def with_layers(self, features: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        first = self.first(features.flatten(1)).relu()
        second = self.norm(self.second(first)).relu()
        return self.last(self.drop(second)), (first, second)


class Watched(nn.Module):
    """The published views, and how often and for how many clips they were asked for."""

    def __init__(self, clips: int) -> None:
        super().__init__()
        self.views = Views((N_MELS, FRAMES), clips)
        self.seen: list[tuple[int, int]] = []

    def forward(self, log_mels: Tensor, random: BatchRandom) -> Tensor:
        out: Tensor = self.views(log_mels, random)
        self.seen.append((len(log_mels), len(out)))
        return out


class Unchanged(nn.Module):
    """Views that leave everything as it is."""

    def forward(self, log_mels: Tensor, random: BatchRandom) -> Tensor:
        return log_mels


def config(**how: Any) -> DistillConfig:
    return DistillConfig.model_validate(FEW | how)


def student(state: int = 0, shallow_heads: bool = True) -> Student:
    with torch.random.fork_rng():
        torch.manual_seed(state)
        return Student(Spectra(), CLUSTERS, shallow_heads)


def tones(count: int) -> tuple[Clips, Tensor]:
    """Tones of three heights in noise, in turn, of 0.4 to 0.8 s, and which height each has."""
    random = np.random.default_rng(0)
    waveforms: list[NDArray[np.float32]] = []
    for index in range(count):
        time = np.arange(random.integers(round(0.4 * RATE), round(0.8 * RATE))) / RATE
        hz = (20, 50, 80)[index % 3]
        tone = np.sin(2 * np.pi * hz * time + random.uniform(0, 6))
        waveforms.append((tone + random.normal(0, 0.1, len(time))).astype(np.float32))
    ids = [f"clip {index}" for index in range(count)]
    return Clips.pack(ids, waveforms, RATE), torch.arange(count) % 3


def constant_clips(count: int) -> Clips:
    """Clips of one value each, clip i of value i + 1."""
    waveforms = [np.full(90, index + 1, np.float32) for index in range(count)]
    return Clips.pack([str(index) for index in range(count)], waveforms, RATE)


def fresh(context: RunContext, name: str) -> RunContext:
    work = context.work_folder / name
    work.mkdir()
    return replace(context, work_folder=work)


def run(context: RunContext, model: Student | None = None, **how: Any) -> tuple[Student, Curve]:
    clips, clusters = tones(20)
    model = model or student()
    views = Views((N_MELS, FRAMES), len(clips))
    return model, distill(model, views, clips, clusters, config(**how), context)


def same(one: Student, two: Student) -> bool:
    a, b = one.state_dict(), two.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- what is learned ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shallow_heads", [True, False])
@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_loss_falls_and_the_student_comes_to_agree_with_the_pseudo_labels(
    context: RunContext, shallow_heads: bool, stop_gradient: bool
) -> None:
    clips, clusters = tones(30)
    model = student(shallow_heads=shallow_heads)
    before = agreement(model, clips, clusters, 0.4, context)
    how = config(epochs=40, batch_size=15, stop_gradient=stop_gradient)
    curve = distill(model, Unchanged(), clips, clusters, how, context)
    assert [row["epoch"] for row in curve] == [float(epoch) for epoch in range(1, 41)]
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    assert before < 0.7
    assert agreement(model, clips, clusters, 0.4, context) > 0.9


def test_a_student_follows_whatever_pseudo_labels_it_is_given(context: RunContext) -> None:
    clips, clusters = tones(30)
    model = student()
    moved = (clusters + 1) % CLUSTERS
    distill(model, Unchanged(), clips, moved, config(epochs=40, batch_size=15), context)
    assert agreement(model, clips, moved, 0.4, context) > 0.9
    assert agreement(model, clips, clusters, 0.4, context) < 0.1


def test_with_few_clips_passes_are_made_until_the_least_steps_are(context: RunContext) -> None:
    _, curve = run(context, epochs=2, min_steps=13)  # 20 clips in batches of 8: 3 steps an epoch
    assert len(curve) == 5


def test_the_loss_of_an_epoch_is_the_mean_over_its_steps(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []

    def noted(*arguments: Any, **how: Any) -> Tensor:
        loss = self_distillation(*arguments, **how)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(stage_3, "self_distillation", noted)
    _, curve = run(context, epochs=2)
    assert len(losses) == 6
    assert [row["loss"] for row in curve] == pytest.approx(
        [np.mean(losses[:3]), np.mean(losses[3:])]
    )


# --- what a step is given ---------------------------------------------------------------------------------


def test_each_window_has_a_level_of_its_own_within_the_decibels(context: RunContext) -> None:
    clips = constant_clips(11)
    model, levels = student(), []
    plain = model.encoder.features

    def features(waveforms: Tensor) -> Tensor:
        levels.append(waveforms.amax(dim=1))
        return plain(waveforms)

    model.encoder.features = features
    how = config(gain_db=6.0, batch_size=11, epochs=20)
    distill(model, Unchanged(), clips, torch.arange(11) % CLUSTERS, how, context)
    heard = torch.stack(levels).sort(dim=1).values
    # Eleven levels, each moved by up to a factor of two: loudest at most 22, and above 11 now and then.
    assert 11.1 < heard.max() <= 11 * 10 ** (6 / 20) + 1e-3
    assert 1 / 10 ** (6 / 20) - 1e-3 <= heard.min() < 0.9


def test_each_clip_meets_its_own_pseudo_label_wherever_it_stands_in_a_batch(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, clusters = constant_clips(11), torch.tensor([2, 0, 1, 1, 2, 0, 0, 2, 1, 0, 2])
    model = student()
    met: list[tuple[list[int], list[int]]] = []
    heard: list[list[int]] = []
    plain = model.encoder.features

    def features(waveforms: Tensor) -> Tensor:
        heard.append([int(value) - 1 for value in waveforms.amax(dim=1)])
        return plain(waveforms)

    def noted(z: Tensor, shallow: list[Tensor], labels: Tensor, **how: Any) -> Tensor:
        met.append((heard[-1], labels.tolist()))
        return self_distillation(z, shallow, labels, **how)

    monkeypatch.setattr(model.encoder, "features", features)
    monkeypatch.setattr(stage_3, "self_distillation", noted)
    distill(model, Unchanged(), clips, clusters, config(batch_size=4, epochs=3), context)
    assert len(met) == 9
    for batch, labels in met:
        assert labels == clusters[batch].tolist()
    orders = [[c for batch, _ in met[at : at + 3] for c in batch] for at in (0, 3, 6)]
    assert all(sorted(order) == list(range(11)) for order in orders)
    assert orders[0] != orders[1]


def test_a_step_sees_one_view_of_each_clip(context: RunContext) -> None:
    clips, clusters = tones(20)
    views = Watched(len(clips))
    distill(student(), views, clips, clusters, config(epochs=3), context)
    assert len(views.seen) == 3 * 3
    assert all(given == returned for given, returned in views.seen)
    assert [sum(n for n, _ in views.seen[e : e + 3]) for e in (0, 3, 6)] == [20, 20, 20]


def test_views_are_drawn_anew_in_every_step_and_by_the_runs_seed(context: RunContext) -> None:
    class Drawing(nn.Module):
        def forward(self, log_mels: Tensor, random: BatchRandom) -> Tensor:
            drawn.append(float(random.uniform(1)))
            return log_mels

    clips, clusters = tones(20)
    found = []
    for name, scope in (("one", "a"), ("two", "a"), ("three", "b")):
        drawn: list[float] = []
        run = replace(fresh(context, name), seeds=context.seeds.within(scope))
        distill(student(), Drawing(), clips, clusters, config(epochs=3), run)
        assert len(set(drawn)) == 3 * 3
        found.append(drawn)
    assert found[0] == found[1]
    assert not set(found[0]) & set(found[2])


def test_the_student_is_trained_on_the_view_and_not_on_what_it_was_made_from(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silence(nn.Module):
        def forward(self, log_mels: Tensor, random: BatchRandom) -> Tensor:
            return torch.full_like(log_mels, -7.0)

    given: list[Tensor] = []
    model = student()
    forward = model.encoder.with_layers

    def noted(features: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        given.append(features)
        return forward(features)

    monkeypatch.setattr(model.encoder, "with_layers", noted)
    clips, clusters = tones(20)
    distill(model, Silence(), clips, clusters, config(epochs=1), context)
    assert all((features == -7).all() for features in given)


@pytest.mark.parametrize(
    "how",
    [
        {"shallow_weight": 0.21},
        {"kl_weight": 0.22},
        {"feature_weight": 0.23},
        {"label_smoothing": 0.24},
        {"stop_gradient": False},
    ],
    ids=str,
)
def test_the_weights_of_the_loss_are_those_of_the_configuration(
    how: dict[str, Any], context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[dict[str, Any]] = []

    def noted(*arguments: Any, **weights: Any) -> Tensor:
        found.append(weights)
        return self_distillation(*arguments, **weights)

    monkeypatch.setattr(stage_3, "self_distillation", noted)
    run(context, epochs=1, **how)
    published = {
        "shallow_weight": 0.7,
        "kl_weight": 0.3,
        "feature_weight": 0.003,
        "label_smoothing": 0.0,
        "stop_gradient": True,
    }
    assert found == [published | how] * 3


# --- agreement --------------------------------------------------------------------------------------------


def test_agreement_counts_the_clips_whose_highest_logit_is_their_cluster(
    context: RunContext,
) -> None:
    clips, _ = tones(20)
    model = student().eval()
    with torch.no_grad():
        highest = [
            int(model.classifier(model.encoder(model.encoder.features(waveform))).argmax())
            for waveform in (torch.from_numpy(clips[index][None, :80]) for index in range(20))
        ]
    short = Clips.pack(clips.ids, [clips[index][:80] for index in range(20)], RATE)
    right = torch.tensor(highest)
    assert agreement(model, short, right, 0.4, context) == 1
    assert agreement(model, short, (right + 1) % CLUSTERS, 0.4, context) == 0
    half = torch.where(torch.arange(20) < 5, right, (right + 1) % CLUSTERS)
    assert agreement(model, short, half, 0.4, context) == pytest.approx(0.25)


def test_agreement_trains_nothing(context: RunContext) -> None:
    clips, clusters = tones(20)
    model, untouched = student(), student()
    agreement(model, clips, clusters, 0.4, context)
    assert same(model, untouched)


# --- the same bytes ---------------------------------------------------------------------------------------


def test_the_same_seed_trains_the_same_bytes_and_leaves_the_global_generator_alone(
    context: RunContext,
) -> None:
    one, curve = run(fresh(context, "one"))
    torch.rand(5)
    state = torch.get_rng_state()
    two, again = run(fresh(context, "two"))
    assert torch.equal(torch.get_rng_state(), state)
    assert same(one, two)
    assert curve == again


def test_another_seed_trains_other_bytes(context: RunContext) -> None:
    one, _ = run(fresh(context, "one"))
    other = replace(fresh(context, "two"), seeds=context.seeds.within("other"))
    assert not same(one, run(other)[0])


def stop_in(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Stop the next run before so many of its steps are done."""
    done = 0

    def stopping(*arguments: Any, **how: Any) -> Tensor:
        nonlocal done
        done += 1
        if done == step:
            raise Stopped
        return self_distillation(*arguments, **how)

    monkeypatch.setattr(stage_3, "self_distillation", stopping)


@pytest.mark.parametrize("steps", [[1], [4], [5, 4], [12], [2, 3, 4, 5]], ids=str)
def test_a_run_killed_and_taken_up_again_ends_with_the_same_bytes(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, steps: list[int]
) -> None:
    context.checkpoint_seconds = 0.0
    expected, curve = run(fresh(context, "straight"))
    stopped = fresh(context, "stopped")
    for step in steps:
        stop_in(monkeypatch, step)
        with pytest.raises(Stopped):
            run(stopped)
    monkeypatch.setattr(stage_3, "self_distillation", self_distillation)
    # A student of other weights shows that those of a checkpoint are taken.
    begun = student(state=1 if steps[0] > 3 else 0)
    found, resumed = run(stopped, begun)
    assert same(found, expected)
    assert resumed == curve


def test_a_finished_run_is_not_trained_again(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, curve = run(context)
    stop_in(monkeypatch, 1)
    found, again = run(context, student(state=1))
    assert same(found, expected)
    assert again == curve


def test_a_first_step_is_as_long_as_the_configured_learning_rate(context: RunContext) -> None:
    started = dict(student().named_parameters())
    steps = []
    for rate in (0.01, 0.02):
        optimizer = SGD | {"learning_rate": rate, "weight_decay": 0.0}
        how = {"epochs": 1, "batch_size": 20, "optimizer": optimizer}
        model, _ = run(fresh(context, str(rate)), **how)
        steps.append({name: p.detach() - started[name] for name, p in model.named_parameters()})
    assert float(steps[0]["classifier.weight"].detach().norm()) > 0
    assert_close(
        {name: 2 * step for name, step in steps[0].items()}, steps[1], rtol=1e-3, atol=1e-6
    )


def test_while_it_warms_up_a_first_step_moves_nothing(context: RunContext) -> None:
    how = {"epochs": 1, "batch_size": 20, "optimizer": SGD | {"warm_up": 0.5}}
    model, _ = run(context, **how)
    started = dict(student().named_parameters())
    assert_close(dict(model.named_parameters()), started, rtol=0, atol=0)


def test_the_training_of_the_paper_has_one_learning_rate() -> None:
    optimizer = DistillConfig.model_validate(PAPER).optimizer
    assert [optimizer.learning_rate_factor(share) for share in (0.0, 0.3, 0.99)] == [1, 1, 1]
