"""Systems end to end on small generated audio: against the plain computation, saved and loaded, kept from test."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchaudio
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.baselines.log_mel_statistics import LogMelStatistics
from lape_bench.baselines.supervised import Supervised
from lape_bench.core.errors import UserError
from lape_bench.data import audio_store
from lape_bench.data.audio_store import Clips
from lape_bench.data.splits import Split
from lape_bench.evaluation import evaluation_data
from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.systems.encoder_system import EncoderSystem
from lape_bench.system import ProtocolName, RunContext, TargetTask, TrainingData

RATE = 16_000
TARGET = TargetTask(classes=("low", "middle", "high"), window_seconds=0.3, metric="accuracy")
SMALL = {"width": 8, "finetune": {"epochs": 4, "min_steps": 4, "batch_size": 8}}
TRAIN, LABELED = np.arange(0, 12), np.arange(0, 9)
VALIDATION, TEST = np.arange(12, 18), np.arange(18, 24)
SPLIT = Split(TRAIN, LABELED, VALIDATION, TEST, "official")

Run = tuple[type[EncoderSystem], ProtocolName]
RUNS: list[Run] = [
    (Supervised, "finetune"),
    (Supervised, "linear"),
    (Supervised, "mlp"),
    (Supervised, "knn"),
    (LogMelStatistics, "linear"),
    (LogMelStatistics, "knn"),
]
every_run = pytest.mark.parametrize(
    "run", RUNS, ids=[f"{kind.__name__} {protocol}" for kind, protocol in RUNS]
)


def tones(count: int, seed: int = 0) -> tuple[list[str], list[NDArray[np.float32]]]:
    """Tones of three heights in noise, in turn, of 0.1 to 0.9 s."""
    random = np.random.default_rng(seed)
    waveforms = []
    for index in range(count):
        time = np.arange(random.integers(RATE // 10, RATE * 9 // 10)) / RATE
        hz = (300, 900, 2_700)[index % 3] * random.uniform(0.9, 1.1)
        tone = 0.1 * np.sin(2 * np.pi * hz * time) + random.normal(0, 0.05, len(time))
        waveforms.append(tone.astype(np.float32))
    return [f"clip {index}" for index in range(count)], waveforms


def labels_of(count: int) -> NDArray[np.int64]:
    return np.arange(count) % 3


def build(run: Run) -> EncoderSystem:
    kind, protocol = run
    given: dict[str, Any] = SMALL if kind is Supervised else {}
    return kind(kind.Settings.model_validate(given), TARGET, protocol)


def training_data(clips: Clips, split: Split = SPLIT) -> TrainingData:
    return evaluation_data.training_data(clips, labels_of(len(clips)), np.arange(len(clips)), split)


def tensors(system: EncoderSystem) -> dict[str, Tensor]:
    parts = {"encoder": system.encoder, "head": system.head}
    return {
        f"{part}.{name}": tensor.clone()
        for part, module in parts.items()
        for name, tensor in module.state_dict().items()
    }


def fresh(context: RunContext, name: str) -> RunContext:
    work = context.work_folder / name
    work.mkdir()
    return replace(context, work_folder=work, artifact_folder=work / "artifacts")


@pytest.fixture
def clips() -> Clips:
    return Clips.pack(*tones(24), RATE)


# --- log-mel statistics -----------------------------------------------------------------------------------


def statistics_by_hand(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    mel = torchaudio.transforms.MelSpectrogram(
        16_000, n_fft=1024, hop_length=160, f_min=60, f_max=7_800, n_mels=64
    )
    log_mel = np.log(mel(torch.from_numpy(waveform)).numpy() + 1e-6)
    return np.concatenate([log_mel.mean(axis=1), log_mel.std(axis=1)])


def plain_model(clips: Clips, rows: NDArray[np.int64]) -> Pipeline:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1, max_iter=5000))
    statistics = np.stack([statistics_by_hand(clips[index]) for index in rows])
    return model.fit(statistics, labels_of(len(clips))[rows])


def test_log_mel_statistics_is_the_plain_computation(clips: Clips, context: RunContext) -> None:
    system = build((LogMelStatistics, "linear"))
    system.train(training_data(clips), context)
    found = system.score(clips.select(TEST), context)
    model = plain_model(clips, LABELED)
    statistics = np.stack([statistics_by_hand(clips[index]) for index in TEST])
    expected = model.predict_log_proba(statistics)
    assert_close(found.double(), torch.from_numpy(expected).double(), rtol=5e-3, atol=5e-3)


def test_log_mel_statistics_chooses_nothing_and_holds_no_parameters_but_the_classifier(
    clips: Clips, context: RunContext
) -> None:
    system = build((LogMelStatistics, "linear"))
    assert system.train(training_data(clips), context).selection == {}
    counts = system.count_parameters()
    assert (counts.encoder, counts.inference) == (0, 128 * 3 + 3)


# --- every system -----------------------------------------------------------------------------------------


@every_run
def test_a_system_trains_saves_loads_and_scores_the_same(
    clips: Clips, context: RunContext, tmp_path: Path, run: Run
) -> None:
    system, test = build(run), clips.select(TEST)
    system.train(training_data(clips), context)
    scores = system.score(test, context)
    assert (scores.shape, scores.dtype) == ((6, 3), torch.float32)
    assert_close(scores.exp().sum(dim=1), torch.ones(6))
    folder = tmp_path / "model"
    folder.mkdir()
    system.save(folder)
    state = torch.get_rng_state()
    loaded = build(run)
    assert loaded.load(folder, fresh(context, "load")) is loaded
    assert torch.equal(loaded.score(test, context), scores)
    assert loaded.count_parameters() == system.count_parameters()
    assert loaded.count_macs() == system.count_macs()
    assert torch.equal(torch.get_rng_state(), state)


@every_run
def test_the_same_seed_trains_the_same_bytes_and_leaves_the_global_generator_alone(
    clips: Clips, context: RunContext, run: Run
) -> None:
    results = []
    for name in ("one", "two"):
        torch.rand(3)
        system, state = build(run), torch.get_rng_state()
        system.train(training_data(clips), fresh(context, name))
        assert torch.equal(torch.get_rng_state(), state)
        results.append(tensors(system))
    assert_close(*results, rtol=0, atol=0)


@every_run
def test_a_model_of_other_settings_is_refused_by_what_does_not_fit(
    clips: Clips, context: RunContext, tmp_path: Path, run: Run
) -> None:
    system = build(run)
    system.train(training_data(clips), context)
    system.save(tmp_path)
    kind, protocol = run
    other_protocol = "knn" if protocol != "knn" else "linear"
    with pytest.raises(UserError, match=r"weights\.pt does not match the model"):
        build((kind, other_protocol)).load(tmp_path, fresh(context, "protocol"))
    more = TargetTask(classes=("a", "b", "c", "d"), window_seconds=0.3, metric="accuracy")
    if protocol != "knn":
        wider = kind(system.settings, more, protocol)
        with pytest.raises(UserError, match=r"the classifier in .*weight has shape"):
            wider.load(tmp_path, fresh(context, "classes"))


@every_run
def test_a_clip_shorter_than_a_frame_of_the_log_mel_is_trained_on_and_scored(
    context: RunContext, run: Run
) -> None:
    ids, waveforms = tones(24)
    for index in (2, 13, 20):  # of train, validation and test
        waveforms[index] = waveforms[index][:300]
    clips, system = Clips.pack(ids, waveforms, RATE), build(run)
    system.train(training_data(clips), context)
    assert torch.isfinite(system.score(clips.select(TEST), context)).all()


@every_run
def test_silent_clips_are_trained_on_and_scored(context: RunContext, run: Run) -> None:
    ids, waveforms = tones(24)
    for index in (2, 13, 20):
        waveforms[index] = np.zeros_like(waveforms[index])
    clips, system = Clips.pack(ids, waveforms, RATE), build(run)
    system.train(training_data(clips), context)
    assert torch.isfinite(system.score(clips.select(TEST), context)).all()


# --- supervised -------------------------------------------------------------------------------------------


def test_fine_tuning_notes_every_epoch_and_selects_nothing_from_one_rate(
    clips: Clips, context: RunContext
) -> None:
    summary = build((Supervised, "finetune")).train(training_data(clips), context)
    assert [row["epoch"] for row in summary.curves["fine-tuning"]] == [1, 2, 3, 4]
    assert (summary.selection, summary.selection_clips) == ({}, 0)


@pytest.mark.parametrize("augment", [True, False])
def test_fine_tuning_sees_views_unless_a_setting_says_otherwise(augment: bool) -> None:
    settings = Supervised.Settings.model_validate({"finetune": {"augment": augment}})
    views = Supervised(settings, TARGET, "finetune").build_views((64, 96), 10)
    assert isinstance(views, Views) if augment else views is None


def test_linear_evaluation_leaves_the_encoder_as_it_started(
    clips: Clips, context: RunContext
) -> None:
    system = build((Supervised, "linear"))
    system.train(training_data(clips), context)
    with context.seeds.globally("initial weights"):
        started = system.build_encoder()
    assert_close(
        dict(system.encoder.named_parameters()),
        dict(started.named_parameters()),
        rtol=0,
        atol=0,
    )


def test_log_mels_are_normalized_by_windows_as_the_encoder_hears_them(context: RunContext) -> None:
    # Clips of half a window: the zeros beside them count, too.
    random = np.random.default_rng(0)
    window = round(TARGET.window_seconds * RATE)
    waveforms = [random.normal(0, 0.1, window // 2).astype(np.float32) for _ in range(24)]
    clips = Clips.pack([f"clip {index}" for index in range(24)], waveforms, RATE)
    system = build((Supervised, "linear"))
    system.train(training_data(clips), context)
    mel = torchaudio.transforms.MelSpectrogram(
        RATE, n_fft=1024, hop_length=160, f_min=60, f_max=7_800, n_mels=64
    )
    padding = window - window // 2
    sides = ((padding + 1) // 2, padding // 2)
    padded = [nn.functional.pad(torch.from_numpy(waveforms[index]), sides) for index in TRAIN]
    values = np.concatenate([np.log(mel(one).numpy() + 1e-6).ravel() for one in padded])
    assert float(system.encoder.log_mel.mean) == pytest.approx(values.mean(), rel=1e-4)
    assert float(system.encoder.log_mel.std) == pytest.approx(values.std(), rel=1e-4)


def test_a_second_run_finds_the_embeddings_of_the_first_and_learns_the_same(
    clips: Clips, context: RunContext
) -> None:
    found = []
    for name in ("first", "second"):
        aside = replace(fresh(context, name), artifacts=[], artifact_folder=context.artifact_folder)
        system = build((Supervised, "linear"))
        system.train(training_data(clips), aside)
        found.append((tensors(system), [artifact.computed for artifact in aside.artifacts]))
    (first, computed), (second, computed_again) = found
    assert (computed, computed_again) == ([True] * 3, [False] * 3)
    assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("protocol", ["finetune", "linear"])
def test_parameters_and_operations_are_those_by_hand(
    clips: Clips, context: RunContext, protocol: ProtocolName
) -> None:
    system = build((Supervised, protocol))
    system.train(training_data(clips), context)
    d, classes = 8, 3
    convolutions = sum(64 * (9 * inputs + 1) + 2 * 64 for inputs in (1, 64, 64))
    encoder = convolutions + (512 * d + d) + (d * d + d)
    counts = system.count_parameters()
    assert (counts.encoder, counts.inference) == (encoder, encoder + d * classes + classes)
    frames = 31  # of 0.3 s
    window = (
        513 * 64 * frames  # the mel filter bank
        + 9 * 64 * (64 * 31)
        + 9 * 64 * 64 * (32 * 15)
        + 9 * 64 * 64 * (16 * 7)
        + 3 * (512 * d + d * d)  # time steps
        + d * classes
    )
    assert system.count_macs() == round(window / 0.3)


# --- what training may see --------------------------------------------------------------------------------


def with_test_of(waveforms: list[NDArray[np.float32]], value: float) -> list[NDArray[np.float32]]:
    return [
        np.full_like(waveform, value) if index in TEST else waveform
        for index, waveform in enumerate(waveforms)
    ]


def mapped(clips: Clips, path: Path) -> Clips:
    """Return the same clips over a file, as a store is opened."""
    clips.samples.tofile(path)
    samples = np.memmap(path, np.float32, mode="r")
    return Clips(clips.ids, samples, clips.starts, clips.lengths, clips.rate, clips.key)


@pytest.mark.parametrize("where", ["resident", "mapped"])
@every_run
def test_training_with_nothing_but_nan_in_test_learns_the_same_bytes(
    context: RunContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run, where: str
) -> None:
    if where == "mapped":
        monkeypatch.setattr(audio_store, "RESIDENT_BYTES", 0)
    ids, waveforms = tones(24)
    # The test clips lie between the others, where a window that is too long would meet them.
    rows = np.random.default_rng(0).permutation(24)
    to_row = np.argsort(rows)
    split = Split(
        *(np.sort(to_row[side]) for side in (TRAIN, LABELED, VALIDATION, TEST)), "official"
    )
    results = []
    for name, given in (("plain", waveforms), ("nan", with_test_of(waveforms, float("nan")))):
        clips = Clips.pack(ids, [given[row] for row in rows], RATE)
        if where == "mapped":
            clips = mapped(clips, tmp_path / f"{name}.f32")
        system = build(run)
        data = evaluation_data.training_data(clips, labels_of(24)[rows], np.arange(24), split)
        assert isinstance(data.train.samples, np.memmap) == (where == "mapped")
        system.train(data, fresh(context, name))
        results.append(tensors(system))
    assert all(torch.isfinite(tensor).all() for tensor in results[0].values())
    assert_close(*results, rtol=0, atol=0)


def arrays_within(thing: object) -> Iterator[NDArray[Any]]:
    """Walk everything reachable from a thing but types and modules; arrays through their bases too."""
    seen: set[int] = set()
    waiting = [thing]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type) or type(item).__name__ == "module":
            continue
        seen.add(id(item))
        if isinstance(item, np.ndarray):
            yield item
            waiting.append(item.base)
        elif isinstance(item, Tensor):
            yield item.numpy()
        waiting += gc.get_referents(item)


def test_no_sample_of_test_is_reachable_from_what_training_is_given() -> None:
    mark = 0.777
    ids, waveforms = tones(24)
    clips = Clips.pack(ids, with_test_of(waveforms, mark), RATE)

    def marked(thing: object) -> bool:
        return any((array == np.float32(mark)).any() for array in arrays_within(thing))

    assert marked({"inside": [clips]})
    data = training_data(clips)
    assert len(list(arrays_within(data))) > 8
    assert not marked(data)


def test_labels_are_given_for_the_labeled_share_and_validation_alone(clips: Clips) -> None:
    data = training_data(clips)
    assert data.train.ids == tuple(str(index) for index in range(len(TRAIN)))
    assert data.labeled.clips.ids == data.train.ids[: len(LABELED)]
    for index, row in enumerate(LABELED):
        assert np.array_equal(data.labeled.clips[index], clips[row])
    assert data.labeled.labels.tolist() == [index % 3 for index in LABELED]
    assert data.validation is not None
    assert data.validation.clips.ids == tuple(str(index) for index in range(len(VALIDATION)))
    assert data.validation.labels.tolist() == [index % 3 for index in VALIDATION]
    for index, row in enumerate(VALIDATION):
        assert np.array_equal(data.validation.clips[index], clips[row])
