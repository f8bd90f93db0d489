import os
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.data.readers.class_folders import has_sides, list_clips
from lape_bench.task import ClipEntry


def place(root: Path, *names: str) -> Path:
    """Create empty files; names are all that is looked at."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def facts(listing: list[ClipEntry]) -> dict[str, tuple[str, str | None]]:
    return {clip.clip_id: (clip.label, clip.split) for clip in listing}


def test_a_folder_is_a_class_however_deep_its_recordings_lie(tmp_path: Path) -> None:
    place(tmp_path, "wren/1.wav", "wren/garden/june/2.FLAC", "Great tit/3.v2.mp3")
    assert not has_sides(tmp_path)
    listing = list_clips(tmp_path, with_sides=False)
    assert facts(listing) == {
        "wren/1": ("wren", None),
        "wren/garden/june/2": ("wren", None),
        "Great tit/3.v2": ("Great tit", None),
    }
    assert all(clip.path.is_file() for clip in listing)
    assert {(clip.fold, clip.group, clip.segment) for clip in listing} == {(None, None, None)}


def test_hidden_files_and_what_is_no_audio_are_passed_over(tmp_path: Path) -> None:
    place(tmp_path, "wren/1.wav", "wren/._1.wav", "wren/.cache/2.wav", "wren/1.txt", "wren/1.m4a")
    place(
        tmp_path,
        "__MACOSX/wren/1.wav",
        ".git/wren.wav",
        "empty/.keep",
        "stray.wav",
        "wren/x/a.wav/no",
    )
    assert facts(list_clips(tmp_path, with_sides=False)) == {"wren/1": ("wren", None)}


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Training", "dev", "EVAL"), ("train", "", "testing")]
)
def test_folders_for_sides_above_the_classes_are_recognized(
    names: tuple[str, str, str], tmp_path: Path
) -> None:
    expected = {}
    for name, side in zip(names, ("train", "val", "test"), strict=True):
        for label in ("wren", "owl") if name else ():
            place(tmp_path, f"{name}/{label}/1.wav")
            expected[f"{name}/{label}/1"] = (label, side)
    place(tmp_path, "docs/readme.txt", "train/stray.wav")
    assert has_sides(tmp_path)
    assert facts(list_clips(tmp_path, with_sides=True)) == expected


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    place(tmp_path, "train/1.wav", "tram/2.wav", "bus/3.wav")
    assert not has_sides(tmp_path)
    assert {clip.label for clip in list_clips(tmp_path, with_sides=False)} == {
        "train",
        "tram",
        "bus",
    }


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["train/a/1.wav", "test/a/1.wav", "noise/1.wav"], "and also 'noise'"),
        (["train/a/1.wav", "val/a/1.wav"], "has train and val, which are sides, but not both"),
    ],
)
def test_where_sides_are_not_clear_that_is_said(
    names: list[str], said: str, tmp_path: Path
) -> None:
    place(tmp_path, *names)
    with pytest.raises(UserError) as caught:
        has_sides(tmp_path)
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_link_to_a_class_folder_is_followed_and_one_that_leads_back_is_not(
    tmp_path: Path,
) -> None:
    place(tmp_path / "disk", "1.wav")
    place(tmp_path / "mine", "owl/2.wav")
    (tmp_path / "mine" / "wren").symlink_to(tmp_path / "disk")
    (tmp_path / "mine" / "owl" / "loop").symlink_to(tmp_path / "mine")
    assert set(facts(list_clips(tmp_path / "mine", with_sides=False))) == {"owl/2", "wren/1"}


def test_labels_are_spelled_alike_on_every_machine(tmp_path: Path) -> None:
    place(tmp_path, "Ka\u0308uze/1.wav", "owl/2.wav")
    assert {clip.label for clip in list_clips(tmp_path, with_sides=False)} == {"K\u00e4uze", "owl"}


def test_a_folder_whose_name_is_not_utf_8_is_named(tmp_path: Path) -> None:
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/K\xe4uze")  # noqa: PTH102  # pathlib takes no bytes
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    with pytest.raises(UserError, match=r"K\\udce4uze is not UTF-8; rename it"):
        list_clips(tmp_path, with_sides=False)
