"""Nothing that a system is handed leads to the label of a test clip, or of a train clip that is not labeled."""

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import Tensor

from lape_bench import metrics
from lape_bench.core.progress import Progress
from lape_bench.data.audio_store import Clips
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import Manifest, load_manifest
from lape_bench.data.stored_samples import unpack
from lape_bench.evaluation.audit import EpochScores, best_epoch
from lape_bench.evaluation.corpus import EvaluatedTask, load_corpus
from lape_bench.evaluation.plan import load_system, resolve
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_cell
from lape_bench.records.record import Cell
from lape_bench.runtime.device import Compute
from lape_bench.system import RunContext, System, TrainingData, TrainingSummary

Scorer = Callable[[Clips], Tensor]


def reachable(thing: object) -> Iterator[object]:
    """Walk all that a thing leads to: attributes, members, arguments, closures, and arrays through their bases.

    Types, modules, frames and the globals of functions lead anywhere, whatever is handed over, so they are left out.
    """
    seen: dict[int, object] = {}
    waiting = [thing]
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type | ModuleType | FrameType | CodeType):
            continue
        seen[id(item)] = item
        yield item
        if isinstance(item, FunctionType):
            waiting += [item.__closure__, item.__defaults__, item.__kwdefaults__, item.__dict__]
        elif isinstance(item, np.ndarray):
            waiting += [item.base, *(item.ravel().tolist() if item.dtype == object else [])]
        else:
            # The collector passes over keys that are strings.
            waiting += [*gc.get_referents(item), *(item if isinstance(item, dict) else ())]


@dataclass
class Secret:
    """What a system must not come to: the test clips of the synthetic task."""

    clip_ids: list[str]
    labels: list[str]
    classes: tuple[str, ...]
    waveforms: list[bytes]
    numbers: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.numbers = [self.classes.index(label) for label in self.labels]

    def leaks(self, thing: object, audio: bool = True) -> list[str]:
        """Name what a thing leads to that tells labels, ids or, if asked for, the audio of test clips."""
        return [leak for item in reachable(thing) if (leak := self._leak(item, audio))]

    def _leak(self, item: object, audio: bool) -> str:
        if isinstance(item, Manifest | pd.DataFrame | pd.Series | pd.Index):
            return f"a {type(item).__name__}"
        if isinstance(item, str) and item in self.clip_ids:
            return f"the id {item}"
        if isinstance(item, np.ndarray | Tensor) and item.ndim == 1:
            if len(item) == len(self.labels) and np.asarray(item).tolist() == self.numbers:
                return "an array of test labels"
            if audio and isinstance(item, np.ndarray) and item.dtype in (np.int16, np.float32):
                content = unpack(item).tobytes()
                if any(waveform in content for waveform in self.waveforms):
                    return "test audio"
        if isinstance(item, list | tuple) and len(item) == len(self.labels):
            return "test labels" if [*item] in (self.labels, self.numbers) else ""
        return ""


@pytest.fixture
def secret(synthetic: Path) -> Secret:
    card = load_card("synthetic-sounds")
    manifest = load_manifest(card)
    rows = np.flatnonzero(manifest.clips["split"] == "test")
    table, clips = manifest.clips.iloc[rows], manifest.open_clips(16_000)
    waveforms = [clips[row].tobytes() for row in rows[::7]]
    return Secret([*table["clip_id"]], [*table["label"]], card.classes, waveforms)


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """All that `log-mel-statistics` is handed, by the name of the method, as it happens."""
    kind, calls = load_system("log-mel-statistics"), []
    train, score = kind.train, kind.score

    def noted_train(self: System, data: TrainingData, context: RunContext) -> TrainingSummary:
        calls.append(("train", (data, context, self)))
        return train(self, data, context)

    def noted_score(self: System, clips: Clips, context: RunContext) -> Tensor:
        calls.append(("score", (clips, context, self)))
        return score(self, clips, context)

    monkeypatch.setattr(kind, "train", noted_train)
    monkeypatch.setattr(kind, "score", noted_score)
    return calls


def cell(**how: object) -> Cell:
    values = {"system": "log-mel-statistics", "task": "synthetic-sounds", "protocol": "linear"}
    return Cell.model_validate(values | how)


def run(out: Path, progress: Progress, audit: bool = False, **how: object) -> None:
    compute = Compute(device="cpu", precision="float32")
    record = run_cell(cell(**how), RunOptions(out=out, compute=compute, audit=audit), progress)
    assert record.status == "finished", record.error


def test_the_walk_finds_labels_wherever_an_object_holds_them(
    secret: Secret, progress: Progress
) -> None:
    manifest = resolve(cell(), progress).manifest
    numbers = np.array(secret.numbers)

    class Slotted:
        __slots__ = ("labels",)

        def __init__(self) -> None:
            self.labels = numbers

        def method(self) -> None:
            """Do nothing."""

    def closure() -> object:
        return numbers

    holders: list[object] = [
        {"inside": [numbers]},
        partial(print, labels=numbers),
        partial(print, [*secret.labels]),
        partial(print, manifest),
        Slotted(),
        Slotted().method,
        closure,
        numbers[:],
        {manifest.clips["clip_id"].iloc[k]: 0 for k in range(len(manifest))},
        manifest.open_clips(16_000),
    ]
    for holder in holders:
        assert secret.leaks(holder), holder
    assert not secret.leaks([np.arange(len(numbers)), ("a", "b"), closure.__name__])


def test_nothing_that_a_system_is_handed_in_training_leads_to_test_clips_or_labels(
    secret: Secret, handed: list[tuple[str, Any]], tmp_path: Path, progress: Progress
) -> None:
    leaks: list[str] = []
    kind = load_system("log-mel-statistics")
    train = kind.train

    def walked(self: System, data: TrainingData, context: RunContext) -> TrainingSummary:
        leaks.extend(secret.leaks([self, data, context]))
        return train(self, data, context)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "train", walked)
        run(tmp_path, progress)
    assert [name for name, _ in handed] == ["train", "score"]
    assert leaks == []


@pytest.mark.parametrize("audit", [False, True])
def test_the_train_audio_at_a_further_rate_is_that_of_the_same_clips_and_no_others(
    audit: bool,
    secret: Secret,
    handed: list[tuple[str, Any]],
    tmp_path: Path,
    progress: Progress,
) -> None:
    kind, leaks = load_system("log-mel-statistics"), []
    train = kind.train

    def walked(self: System, data: TrainingData, context: RunContext) -> TrainingSummary:
        leaks.extend(secret.leaks([self, data, context], audio=not audit))
        return train(self, data, context)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "further_rates", (8_000,))
        patched.setattr(kind, "train", walked)
        run(tmp_path, progress, labels="10%", audit=audit)
    assert leaks == []
    for data, context, _ in [arguments for name, arguments in handed if name == "train"]:
        clips = context.train_at(8_000, data.train)
        assert clips.ids == data.train.ids
        assert 2 * clips.lengths == pytest.approx(data.train.lengths, abs=1)
        for index in range(
            0, len(clips), 40
        ):  # band-limited, and so alike after every second sample
            pair = clips[index], data.train[index][: 2 * len(clips[index]) : 2]
            assert np.corrcoef(*pair)[0, 1] > 0.6
        assert len(clips) == 192


def test_clips_are_scored_under_numbers(
    secret: Secret, handed: list[tuple[str, Any]], tmp_path: Path, progress: Progress
) -> None:
    run(tmp_path, progress)
    name, arguments = handed[-1]
    assert name == "score"
    assert arguments[0].ids == tuple(str(number) for number in range(len(secret.labels)))
    assert secret.leaks(arguments, audio=False) == []


def test_the_clips_of_an_audit_lead_to_no_labels_either(
    secret: Secret, handed: list[tuple[str, Any]], tmp_path: Path, progress: Progress
) -> None:
    listeners = []
    kind = load_system("log-mel-statistics")
    train = kind.train

    def listening(self: System, data: TrainingData, context: RunContext) -> TrainingSummary:
        listeners.append((context.on_epoch, secret.leaks([self, data, context], audio=False)))
        return train(self, data, context)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kind, "train", listening)
        run(tmp_path, progress, audit=True)
    (listener, leaks), (none_later, _) = listeners  # the second training is that of a random split
    assert isinstance(listener, EpochScores)
    assert leaks == []
    assert none_later is None
    scored = [arguments[0] for name, arguments in handed if name == "score"]
    assert len(scored) == 3
    assert all(clips.ids == tuple(map(str, range(len(clips)))) for clips in scored)


def test_unlabeled_train_clips_have_no_names_either(
    handed: list[tuple[str, Any]], secret: Secret, tmp_path: Path, progress: Progress
) -> None:
    run(tmp_path, progress, labels="10%")
    data = handed[0][1][0]
    assert data.train.ids == tuple(str(number) for number in range(192))
    assert set(data.labeled.clips.ids) < set(data.train.ids)
    for index, number in enumerate(data.labeled.clips.ids):
        assert np.array_equal(data.labeled.clips[index], data.train[int(number)])


def test_the_loader_of_corpora_holds_hashes_of_the_held_out_audio_alone(
    synthetic: Path, secret: Secret, progress: Progress
) -> None:
    manifest = load_manifest(load_card("synthetic-sounds"))
    rows = np.flatnonzero(manifest.clips["split"] != "train")
    evaluated = EvaluatedTask.from_manifest(manifest, rows, progress)
    loader = partial(load_corpus, rate=16_000, evaluated=evaluated, progress=progress)
    assert secret.leaks(loader) == []
    assert evaluated.held_out == set(manifest.clips["content"].iloc[rows])


def clips_and_scores(random: np.random.Generator) -> tuple[Clips, list[np.ndarray]]:
    clips = Clips.pack(["ape/1", "bee/1", "bee/2"], [np.ones(4, np.float32)] * 3, 10)
    return clips, [random.normal(size=(3, 2)).astype(np.float32) for _ in range(12)]


def test_the_best_epoch_is_found_from_kept_scores_after_training(tmp_path: Path) -> None:
    clips, scores = clips_and_scores(np.random.default_rng(0))
    labels = np.array([0, 1, 1])
    given: list[Clips] = []

    def scorer(epoch: int) -> Scorer:
        def score(clips: Clips) -> Tensor:
            given.append(clips)
            return Tensor(scores[epoch - 1])

        return score

    folder = tmp_path / "scores"
    for epoch in range(1, 7):
        EpochScores(clips, folder)(epoch, scorer(epoch))
    resumed = EpochScores(clips, folder)  # epoch 6 is done once more, and more follow
    for epoch in range(6, 13):
        resumed(epoch, scorer(epoch))
    assert all(each.ids == ("0", "1", "2") and each.key == clips.key for each in given)
    accuracies = [metrics.score(each, labels)["accuracy"] for each in scores]
    best = int(np.argmax(accuracies))
    expected = {**metrics.score(scores[best], labels), "epoch": float(best + 1)}
    assert best_epoch(folder, labels, "accuracy") == expected


def test_without_epochs_there_is_no_best_one(tmp_path: Path) -> None:
    assert best_epoch(tmp_path / "none", np.array([0]), "accuracy") is None
