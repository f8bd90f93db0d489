"""What an upstream learns from: train clips of tasks and folders, and never what validates or tests."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from lape_bench.core.errors import UserError
from lape_bench.core.paths import home, manifest_path
from lape_bench.core.progress import Progress
from lape_bench.data import audio, decoded_before
from lape_bench.data import prepare as prepare_module
from lape_bench.data.audio_store import Clips
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import INFO, Manifest, load_manifest
from lape_bench.data.prepare import ensure_prepared, prepare
from lape_bench.data.splits import make_split
from lape_bench.evaluation import corpus
from lape_bench.evaluation.corpus import EvaluatedTask, corpus_state, load_corpus, open_corpus

WriteClip = Callable[..., Path]
RATE = 16_000
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")  # two a fold, in order


@pytest.fixture
def digits(tmp_path: Path, write_clip: WriteClip, progress: Progress) -> Manifest:
    """Six speakers say 0; takes 0 are for test and takes 5 for train of the official split."""
    folder = tmp_path / "fsdd" / "recordings"
    for seed, name in enumerate(f"0_{who}_{take}" for who in SPEAKERS for take in (0, 5)):
        write_clip(folder / f"{name}.wav", seed, seconds=0.15)
    manifest, *_ = prepare(load_card("fsdd-digits"), folder.parent, progress)
    return manifest


@pytest.fixture
def official(digits: Manifest, progress: Progress) -> Manifest:
    """The same clips under the official split."""
    return ensure_prepared(load_card("fsdd-digits@official"), progress)


@pytest.fixture
def folder(tmp_path: Path, write_clip: WriteClip) -> Path:
    """Three recordings of other rates and kinds, some below others, beside what is no audio."""
    root = tmp_path / "recordings of mine"
    write_clip(root / "b" / "1.wav", 101, rate=44_100)
    write_clip(root / "b-2.flac", 102)
    write_clip(root / "a" / "deep" / "3.OGG", 103, rate=RATE, format="OGG", subtype="VORBIS")
    (root / "notes.txt").write_text("no audio")
    return root


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded, as it happens."""
    names: list[str] = []
    decode = audio.decode

    def noted(path: Path, *how: Any) -> Iterator[audio.Samples]:
        names.append(path.name)
        return decode(path, *how)

    monkeypatch.setattr(audio, "decode", noted)
    return names


def load(
    progress: Progress,
    entries: Iterable[str],
    manifest: Manifest | None = None,
    held: Callable[[Manifest], np.ndarray] | None = None,
    rate: int = RATE,
) -> Clips:
    """Load a corpus for a cell of this manifest, whose train split is all that is not held."""
    if manifest is None or held is None:
        return open_corpus(list(entries), None, rate, None, progress)
    rows = held(manifest)
    train = manifest.open_clips(rate, progress)
    train = train.select(np.setdiff1d(np.arange(len(manifest)), rows))
    evaluated = EvaluatedTask.from_manifest(manifest, rows, progress)
    return open_corpus(list(entries), train, rate, evaluated, progress)


def fold_1(manifest: Manifest) -> np.ndarray:
    return np.flatnonzero(manifest.clips["fold"] == 1)


def not_train(manifest: Manifest) -> np.ndarray:
    return np.flatnonzero(manifest.clips["split"] != "train")


def refusal(progress: Progress, *arguments: object, **how: object) -> str:
    with pytest.raises(UserError) as caught:
        load(progress, *arguments, **how)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def waveforms(clips: Clips) -> dict[str, list[float]]:
    return {clip_id: clips[index].tolist() for index, clip_id in enumerate(clips.ids)}


@pytest.mark.parametrize("entry", ["target", "synthetic-sounds"])
def test_the_task_under_evaluation_gives_the_very_clips_of_its_train_split(
    entry: str, synthetic: Path, progress: Progress
) -> None:
    card = load_card("synthetic-sounds")
    manifest = ensure_prepared(card, progress)
    split = make_split(manifest, card, 0, 0)
    train = manifest.open_clips(RATE, progress).select(split.train)
    evaluation = EvaluatedTask.from_manifest(
        manifest, np.concatenate([split.validation, split.test]), progress
    )
    clips = open_corpus([entry], train, RATE, evaluation, progress)
    assert clips.key == train.key
    assert clips.ids == train.ids
    assert np.array_equal(clips.samples, train.samples)


def test_a_system_gets_the_clips_of_a_corpus_under_numbers(
    folder: Path, digits: Manifest, progress: Progress
) -> None:
    named = open_corpus(["fsdd-digits", str(folder)], None, RATE, None, progress)
    clips = load_corpus(["fsdd-digits", str(folder)], None, RATE, None, progress)
    assert clips.ids == tuple(str(number) for number in range(len(digits) + 3))
    assert clips.key == named.key
    assert np.array_equal(clips.samples, named.samples)


def test_the_own_fold_s_train_split_is_meant_where_a_task_with_folds_names_itself(
    digits: Manifest, progress: Progress
) -> None:
    clips = load(progress, ["fsdd-digits"], digits, fold_1)
    assert {clip_id.split("_")[1] for clip_id in clips.ids} == set(SPEAKERS[2:])
    assert clips.key == load(progress, ["target"], digits, fold_1).key


def test_a_task_with_official_sides_gives_its_train_split_alone(
    official: Manifest, progress: Progress
) -> None:
    clips = load(progress, ["fsdd-digits@official"])
    assert sorted(clips.ids) == [f"0_{who}_5" for who in SPEAKERS]
    everything = official.open_clips(RATE, progress)
    for index, clip_id in enumerate(clips.ids):
        assert np.array_equal(clips[index], everything[everything.ids.index(clip_id)])


def test_a_task_with_folds_gives_everything_and_one_with_official_sides_no_validation_clip(
    digits: Manifest, synthetic: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:  # fmt: skip
    sources = {clip_id.split("/")[1][:2] for clip_id in load(progress, ["synthetic-sounds"]).ids}
    assert sources == {f"{source:02d}" for source in range(12)}
    monkeypatch.setenv("LAPE_BENCH_HOME", str(cache))
    assert sorted(load(progress, ["fsdd-digits"]).ids) == list(digits.clips["clip_id"])


def test_a_variant_that_learns_from_test_clips_is_refused_in_one_sentence(
    official: Manifest, progress: Progress
) -> None:
    said = refusal(progress, ["fsdd-digits"], official, not_train)
    assert (
        "the corpus entry 'fsdd-digits' holds 6 validation or test clips of fsdd-digits@official" in said
    )  # fmt: skip
    assert "0_george_0, 0_jackson_0, 0_lucas_0, ..." in said
    assert "leave the entry out, or name 'fsdd-digits@official'" in said


def test_a_variant_that_learns_from_the_held_fold_is_refused_for_these_clips_alone(
    official: Manifest, digits: Manifest, progress: Progress
) -> None:
    said = refusal(progress, ["target", "fsdd-digits@official"], digits, fold_1)
    assert "holds 2 validation or test clips of fsdd-digits: 0_george_5, 0_jackson_5;" in said


def test_clips_that_only_validate_are_refused_too(digits: Manifest, progress: Progress) -> None:
    clip = int(np.flatnonzero(digits.clips["clip_id"] == "0_theo_5")[0])
    ensure_prepared(load_card("fsdd-digits@official"), progress)
    said = refusal(progress, ["fsdd-digits@official"], digits, lambda _: np.array([clip]))
    assert "holds 1 validation or test clips of fsdd-digits: 0_theo_5;" in said


def test_another_task_that_shares_no_held_clip_is_taken(
    official: Manifest, digits: Manifest, progress: Progress
) -> None:
    takes = np.flatnonzero(digits.clips["clip_id"].str.endswith("_0"))
    clips = load(progress, ["fsdd-digits@official"], digits, lambda _: takes)
    assert sorted(clips.ids) == [f"0_{who}_5" for who in SPEAKERS]


@pytest.mark.parametrize("name", ["copy.wav", "below/copy.flac"])
def test_a_folder_with_a_copy_of_a_test_clip_is_refused_whatever_its_name_and_format(
    name: str, folder: Path, digits: Manifest, progress: Progress
) -> None:
    recording = digits.recordings()[fold_1(digits)[0]]
    samples, rate = soundfile.read(recording.path, dtype="int16")
    (folder / name).parent.mkdir(exist_ok=True)
    soundfile.write(folder / name, samples, rate)
    said = refusal(progress, [str(folder)], digits, fold_1)
    assert f"holds 1 validation or test clips of fsdd-digits: {name}" in said
    assert refusal(progress, [str(folder)], digits, fold_1) == said
    assert len(load(progress, [str(folder)])) == 4


@pytest.fixture
def older(
    tmp_path: Path, write_clip: WriteClip, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> Manifest:
    """The clips of `digits`, prepared by a decoder that returns other samples."""
    with monkeypatch.context() as patch:
        decode = audio.decode

        def decoded_otherwise(*arguments: Any) -> Iterator[audio.Samples]:
            for samples in decode(*arguments):
                yield samples / 2

        patch.setattr(audio, "decode", decoded_otherwise)
        patch.setattr(prepare_module, "decoder_version", lambda: "older")
        patch.setattr(decoded_before, "decoder_version", lambda: "older")
        folder = tmp_path / "fsdd" / "recordings"
        for seed, name in enumerate(f"0_{who}_{take}" for who in SPEAKERS for take in (0, 5)):
            write_clip(folder / f"{name}.wav", seed, seconds=0.15)
        manifest, *_ = prepare(load_card("fsdd-digits"), folder.parent, progress)
    return manifest


def test_a_copy_of_a_test_clip_is_refused_if_another_decoder_prepared_the_task(
    folder: Path, older: Manifest, progress: Progress, decoded: list[str]
) -> None:
    recording = older.recordings()[fold_1(older)[0]]
    shutil.copy(recording.path, folder / "copy.wav")
    assert recording.content_hash() != recording.content
    text = refusal(progress, [str(folder)], older, fold_1)
    assert "holds 1 validation or test clips of fsdd-digits: copy.wav" in text
    decoded.clear()
    assert refusal(progress, [str(folder)], older, fold_1) == text
    assert decoded == []
    text = refusal(progress, ["fsdd-digits@official"], older, fold_1)
    assert "holds 2 validation or test clips of fsdd-digits: 0_george_5, 0_jackson_5;" in text


def test_a_task_that_is_prepared_again_is_compared_without_decoding_it_once_more(
    folder: Path, older: Manifest, progress: Progress, decoded: list[str]
) -> None:
    again, *_ = prepare(load_card("fsdd-digits"), older.root, progress)
    assert len(decoded) == len(older)
    assert again.hash != older.hash
    load(progress, [str(folder)], again, fold_1)
    assert len(decoded) == len(older) + 3


def test_a_task_of_another_decoder_without_its_recordings_is_compared_with_no_corpus(
    folder: Path, older: Manifest, progress: Progress
) -> None:
    older.recordings()[3].path.unlink()
    text = refusal(progress, [str(folder)], older, fold_1)
    assert "'fsdd-digits' was prepared by another version of the decoders, and " in text
    assert "0_jackson_5.wav cannot be read" in text
    assert text.endswith("prepare it again: 'bench data prepare fsdd-digits'.")


def test_a_manifest_of_before_decoders_had_versions_is_intact_and_its_clips_are_decoded_again(
    digits: Manifest, folder: Path, progress: Progress, decoded: list[str]
) -> None:
    card, path = load_card("fsdd-digits"), manifest_path("fsdd-digits")
    before = Manifest(digits.info.model_copy(update={"decoder": ""}), digits.clips)
    before.save()
    table = pq.read_table(path)
    info = json.loads(table.schema.metadata[INFO])
    assert info.pop("decoder") == ""
    pq.write_table(table.replace_schema_metadata({INFO: json.dumps(info)}), path)
    manifest = load_manifest(card)
    assert manifest.hash == digits.hash
    load(progress, [str(folder)], manifest, fold_1)
    load(progress, [str(folder)], manifest, fold_1)
    assert len(decoded) == len(manifest) + 3


def test_a_system_is_given_no_corpus_that_it_does_not_declare(
    folder: Path, digits: Manifest, progress: Progress
) -> None:
    evaluated = EvaluatedTask("fsdd-digits", frozenset())
    train = digits.open_clips(RATE, progress)
    arguments = (train, RATE, evaluated, progress)
    planned = corpus_state([str(folder)], "fsdd-digits", progress)
    for entries in (["target"], ["fsdd-digits"], [str(folder)]):
        assert len(load_corpus(entries, *arguments, planned=planned)) > 0
    with pytest.raises(
        UserError, match="which its property `corpus` does not name; it may learn from target;"
    ):
        load_corpus(["target", str(folder)], *arguments, planned={})


def test_a_system_is_given_no_corpus_that_has_changed_since_its_cell_was_planned(
    folder: Path, progress: Progress
) -> None:
    evaluated = EvaluatedTask("synthetic-sounds", frozenset())
    planned = corpus_state([str(folder)], evaluated.reference, progress)
    shutil.copy(next(folder.rglob("*.wav")), folder / "one-more.wav")
    with pytest.raises(UserError, match="has changed since the cell was planned; run the same"):
        load_corpus([str(folder)], None, RATE, evaluated, progress, planned)


def test_a_folder_with_a_copy_of_a_train_clip_is_taken(
    folder: Path, digits: Manifest, progress: Progress
) -> None:
    shutil.copy(digits.recordings()[-1].path, folder / "copy.wav")
    assert len(load(progress, [str(folder)], digits, fold_1)) == 4


def test_a_folder_gives_every_audio_file_below_it(folder: Path, progress: Progress) -> None:
    clips = load(progress, [str(folder)])
    assert set(clips.ids) == {"b/1.wav", "b-2.flac", "a/deep/3.OGG"}
    for index, clip_id in enumerate(clips.ids):
        samples, rate = audio.read(folder / clip_id)
        assert np.array_equal(clips[index], audio.resample(samples, rate, RATE))


def test_the_clips_of_a_folder_lie_in_memory_where_they_fit(
    folder: Path, progress: Progress
) -> None:
    samples = load(progress, [str(folder)]).samples
    assert not isinstance(samples, np.memmap)
    assert samples.flags.writeable  # torch warns of what is not


def test_a_folder_gives_the_same_clips_at_another_rate(folder: Path, progress: Progress) -> None:
    first, again = (load(progress, [str(folder)], rate=rate) for rate in (RATE, 8000))
    assert first.ids == again.ids
    assert (again.lengths * 2).tolist() == first.lengths.tolist()
    assert first.key != again.key


def test_a_folder_whose_store_was_deleted_is_decoded_again(
    folder: Path, progress: Progress, decoded: list[str]
) -> None:
    before = waveforms(load(progress, [str(folder)]))
    shutil.rmtree(home() / "store")
    assert waveforms(load(progress, [str(folder)])) == before
    assert len(decoded) == 6


def test_a_folder_is_decoded_once_as_long_as_nothing_changes(
    folder: Path, progress: Progress, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(progress, [str(folder)])
    monkeypatch.chdir(folder.parent)
    (folder / "notes.txt").write_text("other notes")
    for path in (str(folder), folder.name, f"./{folder.name}/"):
        assert load(progress, [path]).key == first.key
    assert sorted(decoded) == ["1.wav", "3.OGG", "b-2.flac"]


def test_another_version_of_a_decoder_compares_the_audio_of_a_folder_again(
    folder: Path, progress: Progress, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load(progress, [str(folder)])
    monkeypatch.setattr(corpus, "decoder_version", lambda: "another")
    monkeypatch.setattr(decoded_before, "_decoders", lambda: {"soundfile": "another"})
    load(progress, [str(folder)])
    assert len(decoded) == 6


@pytest.mark.parametrize(
    "change", ["other audio", "as long", "one more", "one less", "another name"]
)
def test_a_folder_is_decoded_anew_when_a_file_changes(
    change: str, folder: Path, progress: Progress, write_clip: WriteClip
) -> None:
    before = load(progress, [str(folder)])
    if change == "other audio":
        write_clip(folder / "b-2.flac", 9)
    elif change == "as long":
        write_clip(folder / "b" / "1.wav", 9, rate=44_100)
    elif change == "one more":
        write_clip(folder / "more.wav", 9)
    elif change == "one less":
        (folder / "b-2.flac").unlink()
    else:
        (folder / "b-2.flac").rename(folder / "other.flac")
    after = load(progress, [str(folder)])
    files = (path for path in folder.rglob("*") if path.suffix.lower() in audio.SUFFIXES)
    assert set(after.ids) == {path.relative_to(folder).as_posix() for path in files}
    assert after.key != before.key
    assert waveforms(after) != waveforms(before)


def test_a_folder_that_changes_while_it_is_decoded_is_not_remembered(
    folder: Path, progress: Progress, write_clip: WriteClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / "b-2.flac").read_bytes()
    with monkeypatch.context() as patch:
        decode_folder = corpus._decode_folder

        def changed(*arguments: Any) -> dict[str, Any]:
            write_clip(folder / "b-2.flac", 9)
            return decode_folder(*arguments)

        patch.setattr(corpus, "_decode_folder", changed)
        with pytest.raises(
            UserError, match="has changed while its audio was decoded; run the same"
        ):
            load(progress, [str(folder)])
    (folder / "b-2.flac").write_bytes(before)
    expected = audio.resample(*audio.read(folder / "b-2.flac"), RATE)
    clips = open_corpus([str(folder)], None, RATE, None, progress)
    assert isinstance(clips, Clips)
    np.testing.assert_array_equal(clips[clips.ids.index("b-2.flac")], expected)


def test_unreadable_files_are_left_out_and_said(
    folder: Path, progress: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(5):
        (folder / f"bad-{index}.wav").write_text("no audio")
    clips = load(progress, [str(folder)])
    assert len(clips) == 3
    (warning,) = caplog.messages
    assert warning.startswith(f"left out of the corpus {folder}: 5 files, such as ")
    assert [f"bad-{index}.wav" in warning for index in range(5)] == [True] * 3 + [False] * 2
    assert "looks like text" in warning
    assert load(progress, [str(folder)]).key == clips.key  # found, and said again
    assert caplog.messages == [warning, warning]


def test_unreadable_files_are_left_out_at_another_rate_too(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    root = tmp_path / "flat"
    write_clip(root / "1.wav")
    (root / "2.wav").write_text("no audio")
    assert load(progress, [str(root)]).ids == ("1.wav",)
    assert load(progress, [str(root)], rate=8000).ids == ("1.wav",)


def test_several_entries_are_joined_with_ids_under_the_name_of_their_entry(
    folder: Path, digits: Manifest, progress: Progress
) -> None:
    alone = load(progress, [str(folder)])
    train = load(progress, ["target"], digits, fold_1)
    both = load(progress, ["target", str(folder)], digits, fold_1)
    assert both.ids == tuple(
        [f"fsdd-digits/{each}" for each in train.ids] + [f"{folder}/{each}" for each in alone.ids]
    )
    assert both.samples.tolist() == train.samples.tolist() + alone.samples.tolist()
    assert both.key == load(progress, ["fsdd-digits", str(folder)], digits, fold_1).key
    assert both.key != load(progress, [str(folder), "target"], digits, fold_1).key


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (["target"], "names 'target', the train audio of the task under evaluation, and no task is"),
        (["esc10"], "the task 'esc10' is not prepared; run 'bench data prepare esc10"),
        (["synthetic-sound"], "neither a task nor a folder nor a shard: did you mean 'synthetic-sounds'?"),
        (["nowhere/at all"], "names 'nowhere/at all', which is neither a task nor a folder nor a shard; names of tasks, folders"),
        (["synthetic-sounds@odd"], "no variant 'odd' in the task synthetic-sounds"),
        (["empty"], "empty holds no audio; .aac"),
        (["text"], "text can be read"),
        (["text/a.wav"], "neither a task nor a folder"),
        ([], "the corpus is empty; names of tasks, folders of audio, or shards"),
        ([""], "the corpus"),
    ],
    ids=str,
)  # fmt: skip
def test_a_corpus_that_cannot_be_found_is_refused_in_one_sentence(
    entries: list[str],
    said: str,
    progress: Progress,
    tmp_path: Path,
    write_clip: WriteClip,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.wav").write_text("no audio")
    write_clip(tmp_path / "unasked.wav")
    for _ in range(2):  # what was noted of the folder must not hide the mistake
        assert said in refusal(progress, entries)


def test_a_folder_may_be_given_from_the_home_folder(
    folder: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(load(progress, [f"~/{folder.name}"])) == 3


def state(progress: Progress, *entries: str) -> dict[str, str]:
    return corpus_state(entries, "fsdd-digits", progress)


def test_the_state_of_a_folder_follows_its_audio_and_nothing_else(
    folder: Path, tmp_path: Path, progress: Progress, write_clip: WriteClip
) -> None:
    before = state(progress, str(folder))[str(folder)]
    (folder / "notes.txt").write_text("other notes")
    for path in folder.rglob("*.wav"):
        path.touch()
    assert state(progress, str(folder)) == {str(folder): before}
    copy = shutil.copytree(folder, tmp_path / "on another machine")
    assert state(progress, str(copy)) == {str(copy): before}
    write_clip(folder / "b-2.flac", 9)
    assert state(progress, str(folder)) != {str(folder): before}


def test_other_audio_of_the_same_size_and_time_is_another_state(
    folder: Path, progress: Progress
) -> None:
    path = folder / "b" / "1.wav"
    before, times = state(progress, str(folder)), path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert state(progress, str(folder)) != before


def test_the_state_of_a_task_is_its_manifest_and_the_evaluated_task_has_none(
    synthetic: Path, progress: Progress
) -> None:
    manifest = ensure_prepared(load_card("synthetic-sounds"), progress)
    entries = ["target", "fsdd-digits", "synthetic-sounds"]
    assert state(progress, *entries) == {"synthetic-sounds": manifest.hash}


def test_a_fifo_in_a_corpus_is_not_waited_for(folder: Path, progress: Progress) -> None:
    os.mkfifo(folder / "pipe.wav")
    assert len(load(progress, [str(folder)])) == 3


def test_damaged_notes_on_a_folder_are_made_again(
    folder: Path, cache: Path, progress: Progress
) -> None:
    whole = waveforms(load(progress, [str(folder)]))
    state = corpus_state([str(folder)], "none", progress)
    notes = list((cache / "corpora").iterdir())
    assert len(notes) == 2
    for note in notes:
        content = note.read_bytes()
        note.write_bytes(content.replace(b'"content": {', b'"content": {"x": 1, ', 1))
        assert note.read_bytes() != content
    assert waveforms(load(progress, [str(folder)])) == whole
    assert corpus_state([str(folder)], "none", progress) == state
