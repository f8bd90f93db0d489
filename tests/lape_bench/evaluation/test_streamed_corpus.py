"""A streamed corpus trains the same weights as a decoded one, and may hold no held-out clip either."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import Manifest
from lape_bench.data.prepare import prepare
from lape_bench.data.streams import streamed_clips
from lape_bench.data.streams.streamed_clips import StreamedClips
from lape_bench.evaluation.corpus import EvaluatedTask, corpus_state, load_corpus, open_corpus
from lape_bench.learning.systems import pretrained_system
from lape_bench.learning.systems.pretrained_system import UpstreamSystem, load_upstream
from lape_bench.learning.training import batches
from lape_bench.system import RunContext
from tests.lape_bench.data.streams.shard_files import noise, write_parquet, write_tar

WriteClip = Callable[..., Path]
RATE = 16_000
SETTINGS = {
    "delores-s": {"width": 16, "projector": 16},
    "decar": {"width": 16, "clusters": 3, "restarts": 1},
    "simclr": {"width": 16, "projector_hidden": 16, "projector_features": 8},
}
SECONDS = (0.15, 0.31, 0.4, 0.25, 0.5, 0.22, 0.17)  # shorter and longer than a window


class Killed(Exception):
    """Stands for a kill."""


@pytest.fixture
def recordings(tmp_path: Path) -> list[bytes]:
    return [noise(seed, seconds) for seed, seconds in enumerate(SECONDS)]


@pytest.fixture
def folder(tmp_path: Path, recordings: list[bytes]) -> Path:
    """The recordings as files."""
    root = tmp_path / "folder"
    root.mkdir()
    for number, content in enumerate(recordings):
        (root / f"{number}.wav").write_bytes(content)
    return root


@pytest.fixture
def tars(tmp_path: Path, recordings: list[bytes]) -> Path:
    """The recordings in two tar files."""
    members = [(f"{number}.wav", content) for number, content in enumerate(recordings)]
    write_tar(tmp_path / "tars" / "0.tar", members[:4])
    write_tar(tmp_path / "tars" / "1.tar", members[4:])
    return tmp_path / "tars"


@pytest.fixture
def parquet(tmp_path: Path, recordings: list[bytes]) -> Path:
    """The recordings in row groups of two."""
    return write_parquet(tmp_path / "clips.parquet", recordings)


def weights(
    name: str, entries: tuple[str, ...], context: RunContext, progress: Progress, epochs: int = 2
) -> dict[str, torch.Tensor]:
    """Pre-train an upstream in a cache of its own, and return its weights."""
    kind: type[UpstreamSystem] = load_upstream(name)
    pretrain = {"epochs": epochs, "min_steps": 1, "batch_size": 3, "window_seconds": 0.3}
    settings = SETTINGS[name] | {"pretrain": pretrain, "corpus": entries}
    config = kind.Settings.model_validate(settings)
    load = partial(load_corpus, evaluated=None, progress=progress)
    cache = context.work_folder / f"cache of {'-'.join(entries).replace('/', '_')[-100:]}"
    context = replace(context, load_corpus=load, artifact_folder=cache, checkpoint_seconds=0.0)
    return dict(kind.load_or_pretrain(config, None, context).encoder.state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", [*SETTINGS])
def test_weights_from_shards_are_those_from_the_decoded_folder(
    name: str, folder: Path, tars: Path, parquet: Path, context: RunContext, progress: Progress
) -> None:
    decoded = weights(name, (str(folder),), context, progress)
    assert same(weights(name, (str(tars),), context, progress), decoded)
    assert same(weights(name, (str(parquet),), context, progress), decoded)


def test_several_entries_of_which_one_is_streamed_train_the_same_weights(
    folder: Path, tars: Path, context: RunContext, progress: Progress
) -> None:
    decoded = weights("delores-s", (str(folder), str(folder)), context, progress)
    streamed = weights("delores-s", (str(folder), str(tars)), context, progress)
    assert same(streamed, decoded)


def test_weights_do_not_depend_on_how_much_is_decoded_ahead(
    tars: Path, context: RunContext, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = weights("simclr", (str(tars),), context, progress)
    monkeypatch.setattr(streamed_clips, "AHEAD_SAMPLES", 1)
    again = replace(context, work_folder=context.work_folder / "again")
    again.work_folder.mkdir()
    assert same(weights("simclr", (str(tars),), again, progress), expected)


@pytest.mark.parametrize("pool_bytes", [2**29, 10_000])
def test_a_killed_training_on_shards_ends_with_the_same_weights(
    pool_bytes: int, parquet: Path, context: RunContext, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(batches, "POOL_BYTES", pool_bytes)
    undisturbed, killed = (replace(context, work_folder=context.work_folder / n) for n in "ab")
    for each in (undisturbed, killed):
        each.work_folder.mkdir()
    expected = weights("simclr", (str(parquet),), undisturbed, progress)
    with monkeypatch.context() as patch:
        decode, n_decoded = StreamedClips.batches, 0

        def stopped(self: StreamedClips, asked: object) -> object:
            nonlocal n_decoded
            for waveforms in decode(self, asked):  # type: ignore[arg-type]
                n_decoded += 1
                if n_decoded == 6:  # in the second epoch
                    raise Killed
                yield waveforms

        patch.setattr(StreamedClips, "batches", stopped)
        with pytest.raises(Killed):
            weights("simclr", (str(parquet),), killed, progress)
    assert same(weights("simclr", (str(parquet),), killed, progress), expected)


def test_some_clips_of_a_large_corpus_fit_the_normalization(
    tars: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = load_corpus([str(tars)], None, RATE, None, progress)
    assert pretrained_system._some_clips(corpus, Seeds(0)) is corpus
    monkeypatch.setattr(pretrained_system, "MAX_NORMALIZED", 4)
    some, again = (pretrained_system._some_clips(corpus, Seeds(seed)) for seed in (0, 0))
    assert some.key == again.key
    rows = [corpus.lengths.tolist().index(length) for length in some.lengths]
    assert len(set(rows)) == 4
    assert rows == sorted(rows)


@pytest.fixture
def digits(tmp_path: Path, write_clip: WriteClip, progress: Progress) -> Manifest:
    root = tmp_path / "fsdd" / "recordings"
    speakers = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    for seed, name in enumerate(f"0_{who}_0" for who in speakers):
        write_clip(root / f"{name}.wav", 100 + seed, seconds=0.15)
    manifest, *_ = prepare(load_card("fsdd-digits"), root.parent, progress)
    return manifest


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_shards_with_a_copy_of_a_held_out_clip_are_refused_whatever_its_format(
    kind: str, digits: Manifest, tmp_path: Path, progress: Progress
) -> None:
    samples, rate = soundfile.read(digits.recordings()[2].path, dtype="int16")
    soundfile.write(tmp_path / "copy.flac", samples, rate)
    copy = (tmp_path / "copy.flac").read_bytes()
    if kind == "tar":
        entry, name = (
            write_tar(tmp_path / "a.tar", [("x.wav", noise(0)), ("y.flac", copy)]),
            "y.flac",
        )
    else:
        entry, name = write_parquet(tmp_path / "a.parquet", [noise(0), copy]), "1"
    train = Clips.pack(["t"], [np.zeros(2_000, np.float32)], RATE)
    for held_out, refused in (([2], True), ([3], False), ([], False)):
        evaluated = EvaluatedTask.from_manifest(digits, np.array(held_out, np.int64), progress)
        if not refused:
            assert len(open_corpus([str(entry)], train, RATE, evaluated, progress)) == 2
            continue
        with pytest.raises(UserError) as caught:
            open_corpus([str(entry)], train, RATE, evaluated, progress)
        assert (
            f"the corpus entry '{entry}' holds 1 validation or test clips of fsdd-digits: "
            f"{entry.name}/{name}; leave the entry out"
        ) in str(caught.value)


def test_the_state_of_shards_follows_their_audio(
    tars: Path, recordings: list[bytes], progress: Progress
) -> None:
    entry = str(tars / "*.tar")
    before = corpus_state([entry], "none", progress)
    write_tar(
        tars / "1.tar", [("4.json", b"{}")] + [(f"{n}.wav", recordings[n]) for n in (4, 5, 6)]
    )
    assert corpus_state([entry], "none", progress) == before
    write_tar(tars / "1.tar", [(f"{n}.wav", recordings[n]) for n in (4, 5, 0)])
    assert corpus_state([entry], "none", progress).keys() == before.keys()
    assert corpus_state([entry], "none", progress) != before


def test_files_that_cannot_be_used_are_named_in_one_warning(
    tmp_path: Path, progress: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    bad = [(f"{number}.wav", b"text") for number in range(5)]
    entry = write_tar(tmp_path / "a.tar", [*bad, ("x.wav", noise(0))])
    with caplog.at_level(logging.WARNING):
        assert len(load_corpus([str(entry)], None, RATE, None, progress)) == 1
    (warning,) = caplog.messages
    assert warning.startswith(
        f"left out of the corpus {entry}: 5 files, such as a.tar/0.wav (not audio"
    )
    assert "a.tar/3.wav" not in warning
