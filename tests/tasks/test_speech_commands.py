import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lape_bench.core.progress import Progress
from lape_bench.data.audio_store import open_store
from lape_bench.data.catalog import load_card
from lape_bench.data.prepare import prepare
from lape_bench.data.verify import verify
from tests.tasks.layouts import (
    NO_AUDIO,
    facts,
    left_out,
    listed,
    pack,
    place,
    refusal,
    spoil,
    without_checksums,
    wrapped,
    write_lines,
)

WriteClip = Callable[..., Path]
COMMANDS = {"yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"}
TRAIN = ("yes/0a7c2a8d_nohash_0.wav", "yes/0a7c2a8d_nohash_1.wav", "bed/0a7c2a8d_nohash_0.wav")
VAL = ("stop/105a0eea_nohash_3.wav", "marvin/105a0eea_nohash_0.WAV")
TEST = ("no/43fc47a7_nohash_0.wav", "zero/43fc47a7_nohash_10.WAV")
STRAY = (
    "yes/._0a7c2a8d_nohash_0.wav",
    "yes/.DS_Store",
    "yes/0a7c2a8d_nohash_2.wav.part",
    "yes/0a7c2a8d_nohash_3.txt",
    "no/notes.wav",
    "LICENSE",
)
NOISE = "_background_noise_"
NOISE_SECONDS = {"running_tap": 2.6, "white_noise": 2.0}

TEST_ARCHIVE = {
    "_silence_/842.wav": ("_silence_", "test/_silence_/842"),
    "_silence_/1816.wav": ("_silence_", "test/_silence_/1816"),
    "_unknown_/seven_fb7eb481_nohash_1.wav.wav": ("_unknown_", "fb7eb481"),
    "_unknown_/zero_9d171fee_nohash_0.wav.wav": ("_unknown_", "9d171fee"),
    "go/87070229_nohash_0.wav": ("go", "87070229"),
    "yes/f2e59fea_nohash_0.wav": ("yes", "f2e59fea"),
}
TEST_STRAY = ("yes/._f2e59fea_nohash_0.wav", "_silence_/.DS_Store", "_unknown_/LICENSE.txt")
BY_LIST = ["sc-v1-12", "sc-v2-12@testing-list"]
BY_ARCHIVE = ["sc-v1-12@test-archive", "sc-v2-12"]


def place_words(root: Path) -> Path:
    """The main archive without its noise; its lists also name what this copy lacks."""
    place(root, *TRAIN, *VAL, *TEST, *STRAY)
    (root / "tree").mkdir()
    absent = "tree/{}_nohash_0.wav".format
    write_lines(root / "validation_list.txt", absent("a7a7a7a7"), *map(as_listed, VAL))
    write_lines(root / "testing_list.txt", absent("b8b8b8b8"), *map(as_listed, TEST))
    return root


def as_listed(clip: str) -> str:
    return clip.replace(".WAV", ".wav")


def place_noise(root: Path, write_clip: WriteClip) -> Path:
    for seed, (name, seconds) in enumerate(NOISE_SECONDS.items()):
        write_clip(root / NOISE / f"{name}.wav", seed, seconds, 16_000)
    place(root, f"{NOISE}/README.md", f"{NOISE}/._running_tap.wav")
    return root


def place_test_archive(root: Path) -> Path:
    (root / "up").mkdir(parents=True)
    return place(root, *TEST_ARCHIVE, *TEST_STRAY)


def fill(root: Path, names: Iterable[str], write_clip: WriteClip, first_seed: int = 100) -> Path:
    """Give placed clips audio of their own."""
    for seed, name in enumerate(names, first_seed):
        write_clip(root / name, seed)
    return root


def words(twelve: bool) -> dict[str, tuple[str, str, None, str]]:
    found = {}
    for side, clips in {"train": TRAIN, "val": VAL, "test": TEST}.items():
        for clip in clips:
            word, speaker = clip[: clip.index("/")], clip[clip.index("/") + 1 :][:8]
            label = word if word in COMMANDS or not twelve else "_unknown_"
            found[clip[:-4]] = (label, side, None, speaker)
    return found


def silence() -> dict[str, tuple[str, str, None, str]]:
    # Starts 0, 0.5, 1 and 1.5 s in 2.6 s, and 0 and 0.5 s in 2 s: a stretch ends before its file does.
    tap = [f"_silence_/running_tap-{number:03d}" for number in range(4)]
    white = [f"_silence_/white_noise-{number:03d}" for number in range(2)]
    return dict.fromkeys(tap, ("_silence_", "val", None, f"{NOISE}/running_tap")) | dict.fromkeys(
        white, ("_silence_", "train", None, f"{NOISE}/white_noise")
    )


def archive_clips() -> dict[str, tuple[str, str, None, str]]:
    return {
        f"test/{name.replace('.wav', '')}": (label, "test", None, group)
        for name, (label, group) in TEST_ARCHIVE.items()
    }


@wrapped
def test_the_35_words_follow_the_official_lists_and_need_no_noise(
    above: str, tmp_path: Path
) -> None:
    place_words(tmp_path / "given" / above)
    assert facts(listed(tmp_path / "given", "sc-v2-35")) == words(twelve=False)


@pytest.mark.parametrize("task", BY_LIST)
def test_twelve_classes_by_list_hold_unknown_words_and_silence_that_is_not_tested(
    task: str, tmp_path: Path, write_clip: WriteClip
) -> None:
    place_noise(place_words(tmp_path / "speech_commands"), write_clip)
    place_test_archive(tmp_path / "test_set")  # being there, it still is not read
    assert facts(listed(tmp_path, task)) == words(twelve=True) | silence()


@pytest.mark.parametrize("above", ["", "disk"], ids=["one folder above", "two folders above"])
@pytest.mark.parametrize("task", BY_ARCHIVE)
def test_twelve_classes_by_archive_leave_out_the_testing_list(
    task: str, above: str, tmp_path: Path, write_clip: WriteClip
) -> None:
    place_noise(place_words(tmp_path / "given" / above / "speech_commands"), write_clip)
    place_test_archive(tmp_path / "given" / above / "test_set")
    left = {name: fact for name, fact in words(twelve=True).items() if fact[1] != "test"}
    assert facts(listed(tmp_path / "given", task)) == left | silence() | archive_clips()


def test_the_official_noises_give_668_stretches_to_train_and_121_to_validate(
    tmp_path: Path,
) -> None:
    # Samples at 16 kHz; TensorFlow Datasets cuts at range(0, samples - 16000, 8000).
    samples = {
        "doing_the_dishes": 1_522_930,
        "dude_miaowing": 988_891,
        "exercise_bike": 980_062,
        "pink_noise": 960_000,
        "running_tap": 978_488,
        "white_noise": 960_000,
    }
    place_words(tmp_path)
    (tmp_path / NOISE).mkdir()
    for name, count in samples.items():
        noise = np.zeros(count, np.int16)
        soundfile.write(tmp_path / NOISE / f"{name}.wav", noise, 16_000, subtype="PCM_U8")
    found = [clip for clip in listed(tmp_path, "sc-v1-12").values() if clip.label == "_silence_"]
    cut = {name: len(range(0, count - 16_000, 8_000)) for name, count in samples.items()}
    assert Counter(clip.path.stem for clip in found) == cut
    assert Counter(clip.split for clip in found) == {"train": 668, "val": 121}


def test_two_archives_are_prepared_together_and_silence_sounds_as_its_stretch_of_the_file(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    main = place_noise(place_words(tmp_path / "main"), write_clip)
    fill(main, (*TRAIN, *VAL, *TEST), write_clip)
    test_set = fill(place_test_archive(tmp_path / "test"), TEST_ARCHIVE, write_clip, 200)
    archives = [
        pack(main, tmp_path / "speech_commands_v0.02.tar.gz"),
        pack(test_set, tmp_path / "speech_commands_test_set_v0.02.tar.gz"),
    ]
    base, by_list = prepare(without_checksums("sc-v2-12"), archives, progress)
    assert Counter(base.clips["split"]) == {"train": 5, "val": 6, "test": 6}
    assert Counter(by_list.clips["split"]) == {"train": 5, "val": 6, "test": 2}
    clips = open_store(base.info.store_key, 16_000, base.recordings)
    heard = {clip_id: clips[index] for index, clip_id in enumerate(clips.ids)}
    for name in NOISE_SECONDS:
        noise, _ = soundfile.read(main / NOISE / f"{name}.wav", dtype="float32")
        for number in range(sum(key.startswith(f"_silence_/{name}") for key in heard)):
            stretch = noise[8_000 * number : 8_000 * number + 16_000]
            assert np.array_equal(heard[f"_silence_/{name}-{number:03d}"], stretch)


@pytest.mark.parametrize("noise", [None, "README.md"], ids=["no folder", "no recording in it"])
def test_silence_without_noise_is_refused(noise: str | None, tmp_path: Path) -> None:
    place_words(tmp_path)
    if noise:
        place(tmp_path, f"{NOISE}/{noise}")
    said = refusal(tmp_path, "sc-v1-12")
    assert f"{tmp_path / NOISE} holds no recording" in said
    assert "sc-v2-35" in said


def test_noise_that_is_no_audio_is_refused(tmp_path: Path, write_clip: WriteClip) -> None:
    place_noise(place_words(tmp_path), write_clip)
    noise = tmp_path / NOISE / "white_noise.wav"
    noise.write_bytes(NO_AUDIO)
    assert f"{noise} is not readable as audio" in refusal(tmp_path, "sc-v1-12")


@pytest.mark.parametrize("in_it", [None, "LICENSE", "_unknown_"])
def test_a_missing_test_archive_is_asked_for(
    in_it: str | None, tmp_path: Path, write_clip: WriteClip
) -> None:
    place_noise(place_words(tmp_path / "main"), write_clip)
    if in_it:
        (tmp_path / "test_set" / in_it).mkdir(parents=True)
    said = refusal(tmp_path, "sc-v2-12")
    assert "lacks the test archive" in said
    assert "--from A --from B" in said


def test_two_archives_unpacked_into_one_folder_are_refused(
    tmp_path: Path, write_clip: WriteClip
) -> None:
    # Otherwise every word would count as a test clip, and those to train on as copies of them.
    place_test_archive(place_noise(place_words(tmp_path), write_clip))
    said = refusal(tmp_path, "sc-v2-12")
    assert "both archives were unpacked into" in said
    assert "--from A --from B" in said
    assert {clip.split for clip in listed(tmp_path, "sc-v2-35").values()} == {
        "train",
        "val",
        "test",
    }


@pytest.mark.parametrize("missing", ["validation_list.txt", "testing_list.txt"])
def test_a_missing_list_is_refused(missing: str, tmp_path: Path) -> None:
    (place_words(tmp_path) / missing).unlink()
    assert missing in refusal(tmp_path, "sc-v2-35")


@pytest.mark.parametrize(
    "line", ["<!DOCTYPE html>", "yes/0a7c2a8d.wav", "0a7c2a8d_nohash_0.wav", ".", "a/b/c.wav"]
)
def test_a_list_with_a_line_that_names_no_clip_is_refused(line: str, tmp_path: Path) -> None:
    place_words(tmp_path)
    path = write_lines(tmp_path / "validation_list.txt", VAL[0], "", line)
    assert f"{path}: line 3" in refusal(tmp_path, "sc-v2-35")


def test_a_list_in_no_text_encoding_is_refused(tmp_path: Path) -> None:
    path = place_words(tmp_path) / "testing_list.txt"
    path.write_bytes(b"\xff\xfe\x00")
    assert str(path) in refusal(tmp_path, "sc-v2-35")


def test_a_clip_on_both_lists_is_refused(tmp_path: Path) -> None:
    write_lines(place_words(tmp_path) / "validation_list.txt", TEST[0])
    assert "no/43fc47a7_nohash_0" in refusal(tmp_path, "sc-v2-35")


def test_spoiled_words_are_named_and_can_be_left_out(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    root = fill(place_words(tmp_path / "given"), (*TRAIN, *VAL, *TEST), write_clip)
    spoiled = spoil(root / TRAIN[0], root / TEST[0])
    assert set(left_out("sc-v2-35", root, spoiled, progress)) == {TRAIN[0][:-4], TEST[0][:-4]}


# --- the real recordings ---

REAL_MAIN, REAL_TEST = "speech_commands_v0.02-small.zip", "speech_commands_test_set_v0.02-small.zip"


def wavs(archive: Path) -> list[str]:
    with zipfile.ZipFile(archive) as opened:
        return [name for name in opened.namelist() if name.endswith(".wav")]


def official_sides(archive: Path) -> dict[str, str]:
    """Side of each word of the real sample, by its own lists."""
    with zipfile.ZipFile(archive) as opened:
        val, test = (
            set(opened.read(name).decode().split())
            for name in ("validation_list.txt", "testing_list.txt")
        )
    assert not val & test
    return {
        name: "val" if name in val else "test" if name in test else "train"
        for name in wavs(archive)
        if not name.startswith(NOISE)
    }


@pytest.mark.real_audio
def test_the_real_words_stand_where_the_real_lists_say(
    real_audio: Path, progress: Progress
) -> None:
    [manifest] = prepare(load_card("sc-v2-35"), real_audio / REAL_MAIN, progress)
    sides = official_sides(real_audio / REAL_MAIN)
    assert dict(zip(manifest.clips["path"], manifest.clips["split"], strict=True)) == sides
    assert [name.split("/")[0] for name in manifest.clips["path"]] == list(manifest.clips["label"])
    assert set(manifest.clips["label"]) == set(load_card("sc-v2-35").classes)
    assert set(manifest.clips["rate"]) == {16_000}


@pytest.mark.real_audio
def test_the_real_twelve_classes_come_from_both_archives(
    real_audio: Path, progress: Progress
) -> None:
    card = load_card("sc-v2-12")
    archives = [real_audio / REAL_MAIN, real_audio / REAL_TEST]
    base, by_list = prepare(card, archives, progress)
    sides = Counter(official_sides(real_audio / REAL_MAIN).values())
    # The sample has one noise, running_tap: 978,528 samples.
    tap = len(range(0, 978_528 - 16_000, 8_000))
    own = {"train": sides["train"], "val": sides["val"] + tap}
    assert Counter(base.clips["split"]) == own | {"test": len(wavs(real_audio / REAL_TEST))}
    assert Counter(by_list.clips["split"]) == own | {"test": sides["test"]}
    test = base.clips[base.clips["split"] == "test"]
    assert Counter(test["label"]) == dict.fromkeys(card.classes, 8)
    assert set(base.clips["label"]) == set(card.classes)
    for manifest in (base, by_list):
        own_card = card.with_variant(manifest.info.variant)
        checks = verify(own_card, manifest, True, progress)
        assert all(found.holds for found in checks if not found.what.startswith("clips"))


def test_a_named_pipe_among_the_noises_is_refused_at_once(
    tmp_path: Path, write_clip: WriteClip
) -> None:
    place_noise(place_words(tmp_path), write_clip)
    os.mkfifo(tmp_path / NOISE / "zzz.wav")
    assert "zzz.wav is not a regular file" in refusal(tmp_path, "sc-v1-12")
