import codecs
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lape_bench.core.progress import Progress
from lape_bench.data.prepare import prepare
from tests.tasks.layouts import (
    drawn,
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
FREEFIELD = {"64486": 0, "2525": 0, "128406": 1, "10": 1}
WARBLR = {
    "00053d90-e4b9-4045-a2f1-f39efc90cfa9": 1,
    "6f2b1c5a-0b8e-4d3b-9f6c-2f7f0a1b2c3d": 0,
    "fff8a3b4-1f1c-4f3e-8f5e-0a9b8c7d6e5f": 1,
}
SETS = {"ff1010bird": FREEFIELD, "warblrb10k_public": WARBLR}
STRAY = ("wav/._64486.wav", "wav/999999.wav", "wav/.DS_Store", "wav/64486.txt")
OF_2018, OF_2016 = "_2018", ""


def write_metadata(folder: Path, name: str, year: str = OF_2018) -> Path:
    head, between = ("itemid,datasetid,hasbird", f",{name},") if year else ("itemid,hasbird", ",")
    rows = [f"{item}{between}{bird}" for item, bird in SETS[name].items()]
    return write_lines(folder / f"{name}_metadata{year}.csv", head, *rows)


def place_set(folder: Path, name: str) -> Path:
    return place(folder, *(f"wav/{item}.wav" for item in SETS[name]), *STRAY)


def place_both(root: Path) -> Path:
    for name in SETS:
        write_metadata(root, name)
        place_set(root / f"{name}_wav", name)
    return root


def fill(root: Path, write_clip: WriteClip) -> Path:
    for name, items in SETS.items():
        write_metadata(root, name)
        for seed, item in enumerate(items):
            write_clip(root / name / "wav" / f"{item}.wav", 100 * len(name) + seed)
    return root


def expected() -> dict[str, tuple[str, None, None, None]]:
    return {
        f"{name}/{item}": ("bird" if bird else "no bird", None, None, None)
        for name, items in SETS.items()
        for item, bird in items.items()
    }


@pytest.mark.parametrize("above", ["", "disk"], ids=["one folder above", "two folders above"])
@pytest.mark.parametrize("year", [OF_2018, OF_2016], ids=["labels of 2018", "labels of 2016"])
@pytest.mark.parametrize("beside", [True, False], ids=["labels inside", "labels outside"])
def test_both_sets_are_labeled_by_their_metadata(
    above: str, year: str, beside: bool, tmp_path: Path
) -> None:
    root = tmp_path / "given" / above
    for name in SETS:
        folder = place_set(root / f"{name}_wav", name)
        write_metadata(folder if beside else root, name, year)
    assert facts(listed(tmp_path / "given", "birdsong")) == expected()


@wrapped
def test_both_sets_may_be_unpacked_into_one_folder(above: str, tmp_path: Path) -> None:
    root = tmp_path / "given" / above
    for name in SETS:
        write_metadata(place_set(root, name), name)
    assert facts(listed(tmp_path / "given", "birdsong")) == expected()


@pytest.mark.parametrize("name", ["birds", "warblrb10k_and_ff1010bird"])
def test_the_name_of_the_users_folder_does_not_matter(name: str, tmp_path: Path) -> None:
    place_both(tmp_path / name)
    assert facts(listed(tmp_path / name, "birdsong")) == expected()


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = place_both(tmp_path) / "ff1010bird_metadata_2018.csv"
    before = facts(listed(tmp_path, "birdsong"))
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert facts(listed(tmp_path, "birdsong")) == before


def test_the_recordings_of_a_set_may_lie_in_several_folders(tmp_path: Path) -> None:
    (place_both(tmp_path) / "more" / "wav").mkdir(parents=True)
    for name, items in SETS.items():
        moved = f"wav/{list(items)[1]}.wav"
        (tmp_path / f"{name}_wav" / moved).rename(tmp_path / "more" / moved)
    assert facts(listed(tmp_path, "birdsong")) == expected()


def test_an_item_that_the_metadata_name_twice_is_one_recording(tmp_path: Path) -> None:
    place_both(tmp_path)
    with (tmp_path / "ff1010bird_metadata_2018.csv").open("a") as file:
        file.write("64486,ff1010bird,0\n")
    assert facts(listed(tmp_path, "birdsong")) == expected()


def test_each_class_has_80_and_20_percent_whatever_the_order(tmp_path: Path) -> None:
    items = [str(number) for number in range(60)]
    rows = [f"{item},{int(int(item) < 20)}" for item in items]
    write_lines(tmp_path / "ff1010bird_metadata.csv", "itemid,hasbird", *rows)
    place(tmp_path, *(f"wav/{item}.wav" for item in items))
    write_metadata(place_set(tmp_path / "warblr", "warblrb10k_public"), "warblrb10k_public")
    place(tmp_path, *(f"wav/{item}.wav" for item in WARBLR))
    found = listed(tmp_path, "birdsong")
    sides = drawn(found.values(), "birdsong")
    counts = Counter((found[name].label, side) for name, side in sides.items())
    # 22 with a bird, 41 without.
    assert counts == {
        ("bird", "train"): 18,
        ("bird", "test"): 4,
        ("no bird", "train"): 33,
        ("no bird", "test"): 8,
    }
    assert drawn(reversed(found.values()), "birdsong") == sides


def test_both_archives_are_prepared_with_both_lists(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    fill(tmp_path / "in", write_clip)
    downloads = tmp_path / "downloads"
    for name in SETS:
        pack(tmp_path / "in" / name, downloads / f"{name}_wav.zip")
        write_metadata(downloads, name, OF_2016)  # the card names both releases so
    card = without_checksums("birdsong")
    [of_folder] = prepare(card, downloads, progress)
    [of_files] = prepare(card, sorted(downloads.iterdir()), progress)
    assert dict(zip(of_folder.clips["clip_id"], of_folder.clips["label"], strict=True)) == {
        name: label for name, (label, *_) in expected().items()
    }
    assert of_files.hash == of_folder.hash


def test_spoiled_and_absent_recordings_are_named_and_can_be_left_out(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    root = fill(tmp_path / "given", write_clip)
    bad = [f"ff1010bird/{item}" for item in list(FREEFIELD)[:2]]
    bad += [f"warblrb10k_public/{next(iter(WARBLR))}"]
    spoiled = spoil(*(root / name.replace("/", "/wav/") for name in map("{}.wav".format, bad)))
    assert set(left_out("birdsong", root, spoiled, progress)) == set(bad)


@pytest.mark.parametrize("name", SETS)
def test_a_set_without_recordings_is_asked_for(name: str, tmp_path: Path) -> None:
    (place_both(tmp_path) / f"{name}_wav").rename(tmp_path.parent / f"moved-{tmp_path.name}-{name}")
    said = refusal(tmp_path, "birdsong")
    assert f"{name}_metadata_2018.csv" in said
    assert "--from A --from B" in said


@pytest.mark.parametrize("name", SETS)
def test_a_set_without_metadata_is_refused(name: str, tmp_path: Path) -> None:
    (place_both(tmp_path) / f"{name}_metadata_2018.csv").unlink()
    assert f"no {name}_metadata*.csv in it" in refusal(tmp_path, "birdsong")


@pytest.mark.parametrize(
    "text",
    [
        b"<html></html>\n<body>\n",
        b"itemid,datasetid\n64486,ff1010bird\n",
        b"itemid,hasbird\n64486,2\n",
        b"itemid,hasbird\n64486\n",
        b"itemid,hasbird\n64486,\xff\n",
    ],
)
def test_metadata_of_another_form_are_refused(text: bytes, tmp_path: Path) -> None:
    path = place_both(tmp_path) / "ff1010bird_metadata_2018.csv"
    path.write_bytes(text)
    said = refusal(tmp_path, "birdsong")
    assert f"{path} is not the metadata of ff1010bird" in said
    assert "columns itemid and hasbird" in said
