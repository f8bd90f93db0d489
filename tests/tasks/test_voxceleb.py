from collections.abc import Callable
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.data.prepare import prepare
from tests.tasks.layouts import (
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
DEV = {
    "id10001/1zcIwhmdeo4/00001": "train",
    "id10001/7gWzIy6yIIk/00001": "val",
    "id10001/_-RQUMzc2f8/00012": "test",
    "id11251/s4R4hvqrhFw/00009": "train",
}
TEST = {"id10270/5r0dWxy17C8/00001": "train", "id10270/x6uYqmx31kE/00003": "test"}
DIGITS = {"train": 1, "val": 2, "test": 3}
STRAY = (
    "wav/id10001/1zcIwhmdeo4/._00001.wav",
    "wav/id10001/1zcIwhmdeo4/00099.wav",  # on no list
    "wav/.DS_Store",
    "wav/id_notes.txt",
    "vox1_meta.csv",
    "vox1_dev_wav_partaa",
)


def write_list(root: Path) -> Path:
    lines = [f"{DIGITS[side]} {name}.wav" for name, side in (DEV | TEST).items()]
    return write_lines(root / "iden_split.txt", *lines)


def place_utterances(root: Path, names: dict[str, str]) -> Path:
    (root / "wav" / "id10002").mkdir(parents=True)
    return place(root, *(f"wav/{name}.wav" for name in names), *STRAY)


def expected() -> dict[str, tuple[str, str, None, str]]:
    return {
        name: (name.split("/")[0], side, None, name.rpartition("/")[0])
        for name, side in (DEV | TEST).items()
    }


@wrapped
def test_speakers_follow_the_official_list_and_groups_are_videos(
    above: str, tmp_path: Path
) -> None:
    root = place_utterances(tmp_path / "given" / above, DEV | TEST)
    write_list(root)
    assert facts(listed(tmp_path / "given", "voxceleb1")) == expected()


@pytest.mark.parametrize("beside", ["", "meta"])
def test_dev_and_test_may_lie_apart_as_their_archives_do(beside: str, tmp_path: Path) -> None:
    place_utterances(tmp_path / "vox1" / "dev", DEV)
    place_utterances(tmp_path / "vox1" / "test", TEST)
    write_list(tmp_path / "vox1" / beside)
    assert facts(listed(tmp_path, "voxceleb1")) == expected()


@pytest.mark.parametrize("one_folder", [True, False])
def test_both_archives_are_prepared_with_the_list(
    one_folder: bool, tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    downloads = tmp_path / "downloads"
    for seed, (side, names) in enumerate({"dev": DEV, "test": TEST}.items()):
        for number, name in enumerate(names):
            write_clip(tmp_path / side / "wav" / f"{name}.wav", 10 * seed + number)
        pack(tmp_path / side, downloads / f"vox1_{side}_wav.zip")
    write_list(downloads)
    given = [downloads] if one_folder else sorted(downloads.iterdir())
    [manifest] = prepare(without_checksums("voxceleb1"), given, progress)
    sides = dict(zip(manifest.clips["clip_id"], manifest.clips["split"], strict=True))
    assert sides == DEV | TEST


def test_spoiled_and_absent_utterances_are_named_and_can_be_left_out(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    write_list(tmp_path / "given")
    for seed, name in enumerate(DEV | TEST):
        write_clip(tmp_path / "given" / "wav" / f"{name}.wav", seed)
    bad = list(DEV)[:3]
    spoiled = spoil(*(tmp_path / "given" / "wav" / f"{name}.wav" for name in bad))
    assert set(left_out("voxceleb1", tmp_path / "given", spoiled, progress)) == set(bad)


def test_speakers_that_are_not_there_at_all_are_left_out(tmp_path: Path) -> None:
    write_list(place_utterances(tmp_path, DEV))
    assert set(listed(tmp_path, "voxceleb1")) == set(DEV)


@pytest.mark.parametrize(
    "line",
    [
        "<!DOCTYPE html>",
        "4 id10001/1zcIwhmdeo4/00001.wav",
        "1 id10001/00001.wav",
        "1,id10001/1zcIwhmdeo4/00001.wav",
        "1",
    ],
)
def test_a_list_of_another_form_is_refused(line: str, tmp_path: Path) -> None:
    place_utterances(tmp_path, DEV)
    first = "1 id10001/1zcIwhmdeo4/00001.wav"
    path = write_lines(tmp_path / "iden_split.txt", first, "", line)
    assert f"{path}: line 3 is not of the form" in refusal(tmp_path, "voxceleb1")


def test_a_list_in_no_text_encoding_is_refused(tmp_path: Path) -> None:
    path = place_utterances(tmp_path, DEV) / "iden_split.txt"
    path.write_bytes(b"\xff\xfe\x00")
    assert f"{path}: line 1" in refusal(tmp_path, "voxceleb1")


def test_an_utterance_listed_twice_is_refused(tmp_path: Path, progress: Progress) -> None:
    place_utterances(tmp_path, DEV)
    write_lines(tmp_path / "iden_split.txt", *(f"{n} id10001/1zcIwhmdeo4/00001.wav" for n in "13"))
    with pytest.raises(UserError, match="same clip ID 'id10001/1zcIwhmdeo4/00001'"):
        prepare(without_checksums("voxceleb1"), tmp_path, progress)


def test_audio_without_the_list_is_refused(tmp_path: Path) -> None:
    place_utterances(tmp_path, DEV)
    assert "no iden_split.txt in it" in refusal(tmp_path, "voxceleb1")


def test_the_list_without_audio_is_refused(tmp_path: Path) -> None:
    write_list(tmp_path)
    assert "no wav/id* in it" in refusal(tmp_path, "voxceleb1")
