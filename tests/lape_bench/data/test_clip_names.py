"""A name is found however its letters are written."""

import os
import unicodedata
from pathlib import Path

import pytest

from lape_bench.data.clip_names import find_spelled_alike, spelled

NAME = "käuze/Ünter 1.wav"


def place(root: Path, name: str | bytes) -> None:
    path = os.path.join(os.fsencode(root), os.fsencode(name))  # noqa: PTH118  # pathlib takes no bytes
    os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120  # the same
    try:
        with open(path, "wb"):  # noqa: PTH123  # the same
            pass
    except OSError:
        pytest.skip("this file system takes no such name")


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_table", ["NFC", "NFD"])
def test_composed_and_decomposed_letters_are_one(
    on_disk: str, in_table: str, tmp_path: Path
) -> None:
    place(tmp_path, unicodedata.normalize(on_disk, NAME))
    path = find_spelled_alike(tmp_path / unicodedata.normalize(in_table, NAME), tmp_path)
    assert path.exists()


def test_a_name_in_latin_1_is_found(tmp_path: Path) -> None:
    place(tmp_path, NAME.encode("latin-1"))
    path = find_spelled_alike(tmp_path / NAME, tmp_path)
    assert path.exists()
    assert spelled(path.name) == r"\udcdcnter 1.wav"


def test_a_name_of_other_letters_is_not_found(tmp_path: Path) -> None:
    place(tmp_path, "kauze/Unter 1.wav")
    assert find_spelled_alike(tmp_path / NAME, tmp_path) == tmp_path / NAME


def test_of_two_files_that_a_name_may_mean_none_is_taken(tmp_path: Path) -> None:
    place(tmp_path, unicodedata.normalize("NFD", "ä.wav"))
    place(tmp_path, "ä.wav".encode("latin-1"))
    assert not find_spelled_alike(tmp_path / "ä.wav", tmp_path).exists()


def test_a_file_that_came_after_the_folder_was_listed_is_found(tmp_path: Path) -> None:
    assert not find_spelled_alike(tmp_path / "ä.wav", tmp_path).exists()
    os.utime(tmp_path, ns=(0, 0))
    place(tmp_path, unicodedata.normalize("NFD", "ä.wav"))
    assert find_spelled_alike(tmp_path / "ä.wav", tmp_path).exists()
