import codecs
from collections.abc import Callable
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.data.catalog import load_card
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
HEAD = "slice_file_name,fsID,start,end,salience,fold,classID,class"
ROWS = (
    "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark",
    "100263-2-0-117.wav,100263,58.5,62.5,1,5,2,children_playing",
    "100263-2-0-121.wav,100263,60.5,64.5,1,5,2,children_playing",
    "100648-1-0-0.wav,100648,4.823402,5.471927,2,10,1,car_horn",
    "99812-1-2-0.wav,99812,159.522205,163.522205,2,7,1,car_horn",
    "7061-6-0-0.wav,7061,0.0,4.0,2,1,6,gun_shot",
)
FILES = [f"audio/fold{row.split(',')[5]}/{row.split(',')[0]}" for row in ROWS]
STRAY = (
    "audio/fold5/._100032-3-0-0.wav",
    "audio/fold5/.DS_Store",
    "audio/fold5/999999-9-9-9.wav",  # in no row
    "FREESOUNDCREDITS.txt",
    "UrbanSound8K_README.txt",
)
TABLE = "metadata/UrbanSound8K.csv"


def place_slices(root: Path) -> Path:
    place(root, *FILES, *STRAY)
    (root / "audio" / "fold2").mkdir()
    write_lines(root / TABLE, HEAD, *ROWS)
    return root


@wrapped
def test_sounds_stand_in_the_official_folds_by_recording(above: str, tmp_path: Path) -> None:
    place_slices(tmp_path / "given" / above)
    assert facts(listed(tmp_path / "given", "us8k")) == {
        "fold5/100032-3-0-0": ("dog_bark", None, 5, "100032"),
        "fold5/100263-2-0-117": ("children_playing", None, 5, "100263"),
        "fold5/100263-2-0-121": ("children_playing", None, 5, "100263"),
        "fold10/100648-1-0-0": ("car_horn", None, 10, "100648"),
        "fold7/99812-1-2-0": ("car_horn", None, 7, "99812"),
        "fold1/7061-6-0-0": ("gun_shot", None, 1, "7061"),
    }


def test_the_cards_classes_are_the_tables_in_order_of_their_numbers() -> None:
    for row in ROWS:
        *_, number, label = row.split(",")
        assert load_card("us8k").classes[int(number)] == label


def test_the_archive_is_prepared(tmp_path: Path, write_clip: WriteClip, progress: Progress) -> None:
    root = place_slices(tmp_path / "in" / "UrbanSound8K")
    for seed, name in enumerate(FILES):
        write_clip(root / name, seed)
    archive = pack(tmp_path / "in", tmp_path / "UrbanSound8K.tar.gz")
    [manifest] = prepare(without_checksums("us8k"), archive, progress)
    folds = {path: int(path.split("/")[1].removeprefix("fold")) for path in FILES}
    found = zip(manifest.clips["path"], manifest.clips["fold"], strict=True)
    assert {path.removeprefix("UrbanSound8K/"): fold for path, fold in found} == folds


def test_spoiled_and_absent_slices_are_named_and_can_be_left_out(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    root = place_slices(tmp_path / "given")
    for seed, name in enumerate(FILES):
        write_clip(root / name, seed)
    spoiled = spoil(*(root / name for name in FILES[:3]))
    assert set(left_out("us8k", root, spoiled, progress)) == {
        "fold5/100032-3-0-0",
        "fold5/100263-2-0-117",
        "fold5/100263-2-0-121",
    }


def test_a_slice_in_two_rows_is_refused(tmp_path: Path, progress: Progress) -> None:
    write_lines(place_slices(tmp_path) / TABLE, HEAD, *ROWS, ROWS[0])
    with pytest.raises(UserError, match="same clip ID 'fold5/100032-3-0-0'"):
        prepare(without_checksums("us8k"), tmp_path, progress)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("x.wav,1,0.0,4.0,1,11,1,car_horn", "the split has no side for it"),
        ("x.wav,1,0.0,4.0,1,3,1,car_horns", "did you mean 'car_horn'?"),
    ],
)
def test_a_row_that_does_not_fit_the_card_is_told(
    row: str, reason: str, tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    write_lines(tmp_path / TABLE, HEAD, row)
    write_clip(tmp_path / "audio" / f"fold{row.split(',')[5]}" / "x.wav")
    with pytest.raises(UserError) as caught:
        prepare(without_checksums("us8k"), tmp_path, progress)
    assert reason in str(caught.value)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = place_slices(tmp_path) / TABLE
    before = facts(listed(tmp_path, "us8k"))
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert facts(listed(tmp_path, "us8k")) == before


def test_slices_without_their_table_are_refused(tmp_path: Path) -> None:
    (place_slices(tmp_path) / TABLE).unlink()
    assert f"no {TABLE} in it" in refusal(tmp_path, "us8k")


@pytest.mark.parametrize(
    "text",
    [
        b"<html></html>\n<body>\n",
        f"{ROWS[0]}\n{ROWS[1]}\n".encode(),
        f"{HEAD}\n{ROWS[0]}\n{ROWS[1].removesuffix(',children_playing')}".encode(),
        f"{HEAD}\nx.wav,1,0.0,4.0,1,five,1,car_horn".encode(),
        f"{HEAD}\n".encode() + b"\xff.wav,1,0.0,4.0,1,5,1,car_horn",
    ],
    ids=["a web page", "no header", "cut off", "no number", "no text"],
)
def test_a_table_of_another_form_is_refused(text: bytes, tmp_path: Path) -> None:
    path = place_slices(tmp_path) / TABLE
    path.write_bytes(text)
    said = refusal(tmp_path, "us8k")
    assert f"{path} is not the list of slices" in said
    assert "columns slice_file_name, fsID, fold and class" in said


def test_a_folder_in_the_place_of_the_table_is_named(tmp_path: Path) -> None:
    (tmp_path / TABLE).mkdir(parents=True)
    assert "UrbanSound8K.csv is not a regular file" in refusal(tmp_path, "us8k")
