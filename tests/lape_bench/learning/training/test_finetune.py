"""The supervised loop: what it learns, what it keeps, and that a kill changes nothing."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.testing import assert_close

from lape_bench.core.errors import UserError
from lape_bench.data.audio_store import Clips
from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.training.finetune import (
    STAGE,
    Classifier,
    FinetuneConfig,
    FineTuning,
    HeldOut,
    StandardizedHead,
)
from lape_bench.learning.training.inference import class_log_probabilities, embed
from lape_bench.learning.training.linear_probe import LinearConfig
from lape_bench.learning.training.probe_selection import EmbeddedWindows
from lape_bench.system import LabeledClips, RunContext, TargetTask, TrainingData, TrainingSummary

TARGET = TargetTask(classes=("low", "high"), window_seconds=0.4, metric="accuracy")
RATE = 200
FEW = FinetuneConfig(epochs=6, min_steps=1, batch_size=8, learning_rates=(0.01,), gain_db=0)


def replace_with(**settings: Any) -> FinetuneConfig:
    return FinetuneConfig.model_validate(FEW.model_dump() | settings)


class Stopped(Exception):
    """Stands for a kill."""


class Spectrum(Encoder):
    """A tiny encoder: size of the spectrum, one linear layer, batch norm and dropout."""

    sample_rate = RATE
    embedding_size = 6

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.linear = nn.Linear(20, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.2)

    def features(self, waveforms: Tensor) -> Tensor:
        self.batches.append(len(waveforms))
        return torch.fft.rfft(waveforms).abs()[:, 1:21]

    def forward(self, features: Tensor) -> Tensor:
        embeddings: Tensor = self.drop(self.norm(self.linear(features)).relu())
        return embeddings


def tones(count: int, seed: int, rate: int = RATE) -> LabeledClips:
    """Low tones and high tones in noise, of 0.2 to 0.8 s, in turn."""
    random = np.random.default_rng(seed)
    waveforms = []
    for index in range(count):
        time = np.arange(random.integers(round(0.2 * rate), round(0.8 * rate))) / rate
        hz = rate * (0.05, 0.15)[index % 2]
        tone = np.sin(2 * np.pi * hz * time + random.uniform(0, 6))
        waveforms.append((tone + random.normal(0, 0.3, len(time))).astype(np.float32))
    clips = Clips.pack([f"{seed}-{index}" for index in range(count)], waveforms, rate)
    return LabeledClips(clips, torch.arange(count) % 2, torch.arange(count))


def wrong(clips: LabeledClips) -> LabeledClips:
    return LabeledClips(clips.clips, 1 - clips.labels, clips.groups)


def data(train: int = 24, validation: LabeledClips | None = None, rate: int = RATE) -> TrainingData:
    labeled = tones(train, seed=0, rate=rate)
    return TrainingData(labeled.clips, labeled, validation)


def tiny(state: int = 0) -> tuple[Classifier, None]:
    torch.manual_seed(state)
    return Classifier(Spectrum(), nn.Linear(6, 2)), None


def audio_ntt() -> tuple[Classifier, Views]:
    torch.manual_seed(0)
    return Classifier(AudioNTT(8), nn.Linear(8, 2)), Views((64, 41), clips=10)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def encoder_of(model: Classifier) -> dict[str, Tensor]:
    return weights(model.encoder)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def fresh(context: RunContext, name: str) -> RunContext:
    """Return a context with a work folder of its own."""
    work = context.work_folder / name
    work.mkdir()
    return replace(context, work_folder=work, on_epoch=None)


def fit(
    model: Classifier,
    views: nn.Module | None,
    given: TrainingData,
    context: RunContext,
    config: FinetuneConfig = FEW,
) -> TrainingSummary:
    """Fine-tune the encoder of a model, and give the model the head that was trained."""

    def embedded() -> EmbeddedWindows:
        clips = given.labeled.clips
        windows = embed(model.encoder, clips, TARGET.window_seconds, context)
        return EmbeddedWindows(*windows, given.labeled.labels, given.labeled.groups)

    tuning = FineTuning(
        model.encoder, lambda clips: views, embedded, TARGET, config, LinearConfig(), context
    )
    model.head, summary = tuning.run(given)
    return summary


# --- what is learned ---------------------------------------------------------------------------------------


def test_a_separable_problem_is_learned(context: RunContext) -> None:
    model, views = tiny()
    test = tones(40, seed=2)
    summary = fit(model, views, data(40, tones(20, seed=1)), context, replace_with(epochs=12))
    scores = class_log_probabilities(
        model.encoder, model.head, test.clips, TARGET.window_seconds, context
    )
    assert (scores.argmax(dim=1) == test.labels).double().mean() > 0.9
    assert summary.curves[STAGE][-1]["loss"] < summary.curves[STAGE][0]["loss"] / 2
    assert [row["epoch"] for row in summary.curves[STAGE]] == list(range(1, 13))


def snapshots(context: RunContext, model: Classifier) -> dict[int, dict[str, Tensor]]:
    """Collect the tensors of the model's encoder after each epoch."""
    kept: dict[int, dict[str, Tensor]] = {}
    context.on_epoch = lambda epoch, score: kept.__setitem__(epoch, encoder_of(model))
    return kept


def test_the_last_step_is_kept_even_if_validation_was_better_before(context: RunContext) -> None:
    # Validation labels are wrong, so the more is learned of train the worse it gets.
    model, views = tiny()
    kept = snapshots(context, model)
    summary = fit(model, views, data(24, wrong(tones(24, seed=1))), context, replace_with(epochs=9))
    scores = [row["validation"] for row in summary.curves[STAGE]]
    assert scores[0] > scores[-1] == summary.validation
    assert summary.selection == {}
    assert same(encoder_of(model), kept[9])


def test_the_scores_of_the_curve_are_those_of_the_model_of_that_epoch(context: RunContext) -> None:
    model, views = tiny()
    validation = tones(15, seed=1)
    expected: list[tuple[float, float]] = []

    def score_by_hand(epoch: int, score: Callable[[Clips], Tensor]) -> None:
        rows = score(validation.clips).double().numpy()
        labels = validation.labels.numpy()
        hits = float(np.mean(rows.argmax(axis=1) == labels))
        expected.append((hits, -float(np.mean(rows[np.arange(len(labels)), labels]))))

    context.on_epoch = score_by_hand
    summary = fit(model, views, data(24, validation), context)
    found = [(row["validation"], row["validation_loss"]) for row in summary.curves[STAGE]]
    assert_close(torch.tensor(found), torch.tensor(expected))


def test_without_validation_the_last_epoch_is_kept_and_nothing_was_decided(
    context: RunContext,
) -> None:
    model, views = tiny()
    kept = snapshots(context, model)
    summary = fit(model, views, data(24), context)
    assert summary.selection == {}
    assert all(row.keys() == {"epoch", "loss"} for row in summary.curves[STAGE])
    assert same(encoder_of(model), kept[6])


@pytest.mark.parametrize(
    ("epochs", "evaluations", "expected"),
    [
        (12, 12, list(range(1, 13))),
        (4, 12, [1, 2, 3, 4]),
        (12, 3, [4, 8, 12]),
        (10, 4, [2, 5, 8, 10]),  # 2.5 and 7.5 are rounded to even
        (7, 1, [7]),
    ],
)
def test_validation_is_scored_at_even_distances_and_at_the_end(
    context: RunContext, epochs: int, evaluations: int, expected: list[int]
) -> None:
    model, views = tiny()
    config = replace_with(epochs=epochs, evaluations=evaluations)
    summary = fit(model, views, data(8, tones(4, seed=1)), context, config)
    assert [row["epoch"] for row in summary.curves[STAGE] if "validation" in row] == expected


# --- steps ------------------------------------------------------------------------------------------------


@pytest.fixture
def rates() -> Iterator[list[float]]:
    """Learning rates of the steps that are taken."""
    taken: list[float] = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: taken.append(optimizer.param_groups[-1]["lr"])
    )
    yield taken
    hook.remove()


def test_the_learning_rate_falls_by_a_cosine_from_its_start_to_nearly_zero(
    context: RunContext, rates: list[float]
) -> None:
    fit(*tiny(), data(24), context, replace_with(epochs=20, learning_rates=(0.03,)))
    steps = 20 * 3
    assert rates == pytest.approx(
        [0.03 * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
    )
    assert rates[0] == 0.03
    assert 0 < rates[-1] < 0.03 / 1000


@pytest.mark.parametrize(
    ("clips", "batch_size", "min_steps", "epochs"),
    [(24, 8, 1, 6), (24, 8, 18, 6), (24, 8, 19, 7), (3, 8, 20, 20), (9, 8, 20, 10)],
)
def test_few_labels_are_passed_more_often_until_the_least_number_of_steps(
    context: RunContext,
    rates: list[float],
    clips: int,
    batch_size: int,
    min_steps: int,
    epochs: int,
) -> None:
    config = replace_with(batch_size=batch_size, min_steps=min_steps)
    summary = fit(*tiny(), data(clips), context, config)
    assert len(summary.curves[STAGE]) == epochs
    assert len(rates) >= min_steps


@pytest.mark.parametrize(
    ("clips", "batch_size"),
    [(24, 8), (25, 8), (9, 8), (17, 16), (4, 3), (7, 3), (10, 3), (5, 4), (2, 3), (5, 3)],
)
def test_no_batch_is_of_one_clip_nor_larger_than_asked_and_every_clip_is_in_one(
    context: RunContext, clips: int, batch_size: int
) -> None:
    model, views = tiny()
    fit(model, views, data(clips), context, replace_with(epochs=1, batch_size=batch_size))
    assert sum(model.encoder.batches) == clips
    assert min(model.encoder.batches) >= 2
    assert max(model.encoder.batches) <= batch_size


class Watched(Spectrum):
    """Notes what each epoch of one batch drew: first samples of the windows, and dropped numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.firsts: list[list[float]] = []
        self.dropped: list[Tensor] = []
        self.drop.register_forward_hook(lambda drop, given, kept: self.dropped.append(kept == 0))

    def features(self, waveforms: Tensor) -> Tensor:
        self.firsts.append(waveforms[:, 0].tolist())
        return super().features(waveforms)

    def forward(self, features: Tensor) -> Tensor:
        embeddings: Tensor = self.drop(0 * self.linear(features) + 1)
        return embeddings


def test_every_epoch_draws_a_new_order_new_windows_and_a_new_dropout(context: RunContext) -> None:
    # A sample's value tells its clip and its place there.
    waveforms = [1000 * clip + np.arange(900, dtype=np.float32) for clip in range(6)]
    clips = Clips.pack(list("abcdef"), waveforms, RATE)
    given = TrainingData(clips, LabeledClips(clips, torch.arange(6) % 2, torch.arange(6)), None)
    encoder = Watched()
    fit(Classifier(encoder, nn.Linear(6, 2)), None, given, context, replace_with(epochs=4))
    drawn = np.array(encoder.firsts, dtype=int)
    orders, places = drawn // 1000, drawn % 1000
    assert np.sort(orders).tolist() == [list(range(6))] * 4
    for one in range(4):
        for other in range(one):
            assert orders[one].tolist() != orders[other].tolist()
            assert places[one].tolist() != places[other].tolist()
            assert not torch.equal(encoder.dropped[one], encoder.dropped[other])


# --- a kill -----------------------------------------------------------------------------------------------


def stop_once_at(epochs: set[int]) -> Callable[[int, object], None]:
    """Stop at each of these epochs, the first time it ends."""
    left = set(epochs)

    def stop(epoch: int, score: object) -> None:
        if epoch in left:
            left.remove(epoch)
            raise Stopped

    return stop


Build = Callable[[], tuple[Classifier, nn.Module | None]]


def run_with_stops(
    build: Build, given: TrainingData, context: RunContext, stops: set[int]
) -> tuple[dict[str, Tensor], TrainingSummary]:
    """Start again with a new model after every stop, as a new process would."""
    context.on_epoch = stop_once_at(stops)
    for _ in range(len(stops)):
        model, views = build()
        with pytest.raises(Stopped):
            fit(model, views, given, context)
    model, views = build()
    summary = fit(model, views, given, context)
    return weights(model), summary


@pytest.mark.parametrize(
    ("every_seconds", "stops"),
    [
        *((0.0, {epoch}) for epoch in range(1, 7)),
        (0.0, {*range(1, 7)}),
        (None, {3}),  # as usual: few checkpoints
        (None, {*range(1, 7)}),
    ],
    ids=str,
)
def test_a_run_stopped_after_any_epoch_and_resumed_ends_with_the_same_bytes(
    context: RunContext,
    monkeypatch: pytest.MonkeyPatch,
    stops: set[int],
    every_seconds: float | None,
) -> None:
    if every_seconds is not None:
        context.checkpoint_seconds = every_seconds
    given = data(20, tones(10, seed=1))
    expected, curve = run_with_stops(tiny, given, fresh(context, "straight"), set())
    found, resumed_curve = run_with_stops(tiny, given, fresh(context, "stopped"), stops)
    assert same(found, expected)
    assert resumed_curve == curve


@pytest.mark.parametrize("validation", [None, wrong(tones(6, 1, 16_000))], ids=["without", "with"])
def test_audio_ntt_with_views_ends_with_the_same_bytes_after_every_stop(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, validation: LabeledClips | None
) -> None:
    context.checkpoint_seconds = 0.0
    given = data(9, validation, rate=16_000)
    expected, curve = run_with_stops(audio_ntt, given, fresh(context, "straight"), set())
    stops = {1, 2, 4, 6}
    found, resumed_curve = run_with_stops(audio_ntt, given, fresh(context, "stopped"), stops)
    assert same(found, expected)
    assert resumed_curve == curve


def test_a_resumed_run_goes_on_from_its_checkpoint(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.checkpoint_seconds = 0.0
    context.on_epoch = stop_once_at({5})
    with pytest.raises(Stopped):
        fit(*tiny(), data(24), context)
    passed: list[int] = []
    context.on_epoch = lambda epoch, score: passed.append(epoch)
    # A model of other weights shows that those of the checkpoint are taken.
    fit(*(other := tiny(state=1)), data(24), context)
    assert passed == [5, 6]
    expected, _ = run_with_stops(tiny, data(24), fresh(context, "straight"), set())
    assert same(weights(other[0]), expected)


@pytest.mark.parametrize("step", [1, 8, 17])
def test_a_run_killed_in_the_middle_of_an_epoch_ends_with_the_same_bytes(
    context: RunContext, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    context.checkpoint_seconds = 0.0
    expected, curve = run_with_stops(tiny, data(24), fresh(context, "straight"), set())
    model, views = tiny()
    plain = model.encoder.features

    def killed(waveforms: Tensor) -> Tensor:
        if len(model.encoder.batches) == step:
            raise Stopped
        return plain(waveforms)

    model.encoder.features = killed
    with pytest.raises(Stopped):
        fit(model, views, data(24), context)
    found, resumed_curve = run_with_stops(tiny, data(24), context, set())
    assert same(found, expected)
    assert resumed_curve == curve


def test_a_finished_run_is_not_trained_again(context: RunContext, rates: list[float]) -> None:
    given = data(24, tones(10, seed=1))
    expected, curve = run_with_stops(tiny, given, context, set())
    rates.clear()
    found, again = run_with_stops(tiny, given, context, set())
    assert rates == []
    assert same(found, expected)
    assert again == curve


# --- seeds and the audit ----------------------------------------------------------------------------------


def test_the_same_seed_learns_the_same_bytes_whatever_the_global_generator(
    context: RunContext,
) -> None:
    results = []
    for name, state in (("one", 1), ("two", 2)):
        model, views = tiny()
        torch.manual_seed(state)
        np.random.seed(state)
        fit(model, views, data(24), fresh(context, name))
        results.append(weights(model))
    assert same(*results)


def test_another_seed_learns_other_weights(context: RunContext) -> None:
    first, second = fresh(context, "one"), fresh(context, "two")
    second = replace(second, seeds=type(context.seeds)(1, "test"))
    assert not same(
        run_with_stops(tiny, data(24), first, set())[0],
        run_with_stops(tiny, data(24), second, set())[0],
    )


def test_training_leaves_the_global_generator_alone(context: RunContext) -> None:
    model, views = tiny()
    before = torch.get_rng_state()
    fit(model, views, data(24, tones(10, seed=1)), context)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("build", [tiny, audio_ntt])
def test_an_audit_that_scores_clips_after_each_epoch_does_not_change_what_is_learned(
    context: RunContext, build: Build
) -> None:
    rate = RATE if build is tiny else 16_000
    given, test = data(9, rate=rate), tones(5, seed=2, rate=rate)
    seen: list[Tensor] = []
    results = []
    for name in ("plain", "audited"):
        model, views = build()
        aside = fresh(context, name)
        if name == "audited":
            aside.on_epoch = lambda epoch, score: seen.append(score(test.clips))
        fit(model, views, given, aside, replace_with(epochs=4))
        results.append(weights(model))
    assert same(*results)
    assert [tuple(scores.shape) for scores in seen] == [(5, 2)] * 4
    assert not torch.equal(seen[0], seen[-1])


def test_a_random_level_reaches_the_features_and_not_the_validation_clips(
    context: RunContext,
) -> None:
    model, views = tiny()
    levels: dict[bool, list[float]] = {True: [], False: []}
    plain = model.encoder.features

    def noted(waveforms: Tensor) -> Tensor:
        levels[model.encoder.training] += waveforms.square().mean(dim=1).sqrt().tolist()
        return plain(waveforms)

    model.encoder.features = noted
    fit(model, views, data(8, tones(6, seed=1)), context, replace_with(gain_db=20.0))
    spread = {mode: max(seen) / min(seen) for mode, seen in levels.items()}
    assert spread[True] > 2 * spread[False]


# --- learning rates, and the probe ------------------------------------------------------------------------

SEVERAL = (1e-4, 1e-2, 0.03)


def test_a_hold_out_of_the_labels_selects_the_learning_rate_and_all_labels_are_trained_on(
    context: RunContext,
) -> None:
    model, views = tiny()
    config = replace_with(learning_rates=SEVERAL, epochs=12)
    summary = fit(model, views, data(40), context, config)
    candidates = {rate: summary.curves[f"{STAGE} at {rate:g}"][-1] for rate in SEVERAL}
    best = max(
        SEVERAL, key=lambda r: (candidates[r]["validation"], -candidates[r]["validation_loss"])
    )
    assert summary.selection == {
        f"learning rate = {best:g}": "a hold-out of 8 of the 40 labeled clips"
    }
    assert (summary.selection_clips, summary.validation) == (8, candidates[best]["validation"])
    # The result is that of a run that was given this rate alone.
    other, _ = tiny()
    fit(
        other,
        views,
        data(40),
        fresh(context, "alone"),
        replace_with(learning_rates=(best,), epochs=12),
    )
    assert same(weights(model), weights(other))


def test_too_few_labels_for_a_hold_out_take_the_middle_rate(context: RunContext) -> None:
    model, views = tiny()
    summary = fit(model, views, data(2), context, replace_with(learning_rates=SEVERAL))
    ((rate, how),) = summary.selection.items()
    assert rate == "learning rate = 0.01"
    assert how.startswith("a default, since there are too few labeled clips")
    assert (summary.selection_clips, summary.validation) == (0, None)
    other, _ = tiny()
    fit(other, views, data(2), fresh(context, "alone"), replace_with(learning_rates=(1e-2,)))
    assert same(weights(model), weights(other))


def test_validation_labels_select_in_place_of_a_hold_out(context: RunContext) -> None:
    model, views = tiny()
    given = data(24, tones(10, seed=1))
    summary = fit(model, views, given, context, replace_with(learning_rates=SEVERAL))
    assert list(summary.selection.values()) == ["validation"]
    assert summary.selection_clips == 10


def test_a_kill_between_two_rates_changes_nothing(context: RunContext) -> None:
    config = replace_with(learning_rates=SEVERAL)
    expected, _ = tiny()
    fit(expected, None, data(20), fresh(context, "straight"), config)
    stopped, own = tiny()[0], fresh(context, "stopped")
    own.on_epoch = stop_once_at({3})
    with pytest.raises(Stopped):
        fit(stopped, None, data(20), own, config)
    again, _ = tiny()
    fit(again, None, data(20), own, config)
    assert same(weights(again), weights(expected))


def test_a_head_that_starts_from_the_probe_first_scores_as_the_probe(context: RunContext) -> None:
    model, views = tiny()
    given = data(40)
    model.eval()
    with torch.no_grad():
        embeddings = model.encoder(model.encoder.features(torch.randn(30, 80)))
        probe = nn.Linear(6, 2)
        head = StandardizedHead(embeddings, probe)
        assert_close(head(embeddings), probe(embeddings), rtol=1e-4, atol=1e-5)
        assert_close(head.folded()(embeddings), probe(embeddings), rtol=1e-4, atol=1e-5)
    config = replace_with(head_start="probe", learning_rates=(1e-30,), epochs=1)
    model.encoder.norm.momentum = 0.0
    fit(model, views, given, context, config)
    scores = class_log_probabilities(model.encoder, model.head, given.labeled.clips, 0.4, context)
    assert (scores.argmax(dim=1) == given.labeled.labels).double().mean() > 0.9


def held_out(probe: float, clips: int = 100) -> HeldOut:
    return HeldOut(np.arange(400), tones(clips, seed=1), "a hold-out", probe)


def curve(*scores: float) -> list[dict[str, float]]:
    return [{"epoch": float(k), "validation": score} for k, score in enumerate(scores, 1)]


@pytest.mark.parametrize(
    ("probe", "scores", "said"),
    [
        (0.8, (0.5, 0.7, 0.78, 0.79), []),  # within a standard error of 4 points
        (0.9, (0.5, 0.7, 0.78, 0.79), ["scores 79.0 % on held-out clips, a linear probe"]),
        (0.5, (0.3, 0.5, 0.7, 0.79), ["still rose in the last quarter, from 70.0 to 79.0 %"]),
        (0.9, (0.3, 0.5, 0.7, 0.79), ["a linear probe of the same encoder 90.0 %", "still rose"]),
        (0.9, (0.79,), ["a linear probe of the same encoder 90.0 %"]),
        (1.0, (1.0, 1.0), []),
    ],
)
def test_a_training_that_ends_below_the_probe_or_still_rises_is_warned_of(
    probe: float, scores: tuple[float, ...], said: list[str]
) -> None:
    warnings = held_out(probe).warnings(curve(*scores))
    assert len(warnings) == len(said)
    assert all(part in warning for part, warning in zip(said, warnings, strict=True))


def test_layers_have_rates_of_their_own_and_the_first_can_be_frozen(context: RunContext) -> None:
    torch.manual_seed(0)
    encoder = AudioNTT(8)
    before = weights(encoder)
    model = Classifier(encoder, nn.Linear(8, 2))
    seen: list[list[float]] = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: seen.append([group["lr"] for group in optimizer.param_groups])
    )
    config = replace_with(layer_decay=0.5, frozen_layers=1, head_rate=3.0, epochs=1)
    fit(model, None, data(6, rate=16_000), context, config)
    hook.remove()
    # Matrices, then the rest, of blocks 2 and 3, of the linear layers, and of the head.
    factors = [1 / 8, 1 / 8, 1 / 4, 1 / 4, 1 / 2, 1 / 2, 3, 3]
    assert seen[0] == pytest.approx([0.01 * factor for factor in factors])
    after = weights(encoder)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any(
        name.startswith("blocks.0") and "running" not in name and "num_batches" not in name
        for name in moved
    )
    assert {"blocks.1.0.weight", "steps.3.weight"} <= moved


def test_a_number_of_frozen_layers_that_leaves_nothing_to_train_is_refused(
    context: RunContext,
) -> None:
    model = Classifier(AudioNTT(8), nn.Linear(8, 2))
    with pytest.raises(UserError, match="freezes the whole encoder; 0 to 3, fewer than its layers"):
        fit(model, None, data(6, rate=16_000), context, replace_with(frozen_layers=4))


class Cut(Spectrum):
    """No gradient reaches its parameters."""

    def forward(self, features: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(features)


@pytest.mark.parametrize("kind", [Cut, lambda: Spectrum().requires_grad_(False)])
def test_an_encoder_that_no_gradient_reaches_is_refused(
    context: RunContext, kind: Callable[[], Encoder]
) -> None:
    with pytest.raises(UserError, match="would train only the classifier"):
        fit(Classifier(kind(), nn.Linear(6, 2)), None, data(), context, replace_with(epochs=1))


def test_a_parameter_that_belongs_to_no_layer_is_refused(context: RunContext) -> None:
    encoder = AudioNTT(8)
    encoder.layers_of_parameters = lambda: [[*encoder.blocks.parameters()]]  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"leaves out 4 parameters, such as steps\.0\.weight"):
        fit(
            Classifier(encoder, nn.Linear(8, 2)),
            None,
            data(6, rate=16_000),
            context,
            replace_with(epochs=1),
        )
