from collections import Counter, defaultdict
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
)

WriteClip = Callable[..., Path]
CHAPTERS = {"19": ["198", "227"], "8975": ["270782"]}
UTTERANCES = {
    f"{speaker}-{chapter}-{number:04d}": (speaker, f"{speaker}-{chapter}")
    for speaker, chapters in CHAPTERS.items()
    for chapter in chapters
    for number in range(2)
}
STRAY = (
    "SPEAKERS.TXT",
    "CHAPTERS.TXT",
    "train-clean-100/19/198/19-198.trans.txt",
    "train-clean-100/19/198/._19-198-0000.flac",
    "train-clean-100/19/198/19-198-0002.flac.part",
    "train-clean-100/19/19-198-0000.flac",
    "dev-clean/84/121123/84-121123-0000.flac",
)


def file_of(utterance: str) -> str:
    speaker, chapter, _ = utterance.split("-")
    ending = "FLAC" if speaker == "8975" else "flac"
    return f"train-clean-100/{speaker}/{chapter}/{utterance}.{ending}"


def place_readers(root: Path) -> Path:
    place(root, *map(file_of, UTTERANCES), *STRAY)
    (root / "train-clean-100" / "26" / "495").mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    "given", ["", "disk", "disk/LibriSpeech", "disk/LibriSpeech/train-clean-100"]
)
def test_who_reads_is_told_by_the_folder(given: str, tmp_path: Path) -> None:
    place_readers(tmp_path / "disk" / "LibriSpeech")
    speakers = {name: (speaker, None, None, None) for name, (speaker, _) in UTTERANCES.items()}
    assert facts(listed(tmp_path / given, "librispeech-speaker")) == speakers


def test_a_folder_called_as_the_archive_may_hold_what_it_unpacks_to(tmp_path: Path) -> None:
    place_readers(tmp_path / "train-clean-100" / "LibriSpeech")
    assert set(listed(tmp_path / "train-clean-100", "librispeech-speaker")) == set(UTTERANCES)


def test_the_variant_groups_what_a_speaker_read_in_one_chapter(tmp_path: Path) -> None:
    place_readers(tmp_path)
    groups = {
        name: (speaker, None, None, chapter) for name, (speaker, chapter) in UTTERANCES.items()
    }
    assert facts(listed(tmp_path, "librispeech-speaker@chapters")) == groups


def place_many(root: Path, chapters: dict[str, list[int]]) -> None:
    """Utterances of speakers, so many in each of a speaker's chapters."""
    names = [
        file_of(f"{speaker}-{chapter}-{number:04d}")
        for speaker, counts in chapters.items()
        for chapter, count in enumerate(counts, 100)
        for number in range(count)
    ]
    place(root, *names)


def test_each_speaker_has_80_10_and_10_percent_whatever_the_order(tmp_path: Path) -> None:
    place_many(tmp_path, {"19": [40], "26": [10, 10], "8975": [5, 30, 25]})
    found = listed(tmp_path, "librispeech-speaker")
    sides = drawn(found.values(), "librispeech-speaker")
    counts = Counter((found[name].label, side) for name, side in sides.items())
    for speaker, total in {"19": 40, "26": 20, "8975": 60}.items():
        assert [counts[speaker, side] for side in ("train", "val", "test")] == [
            total * 8 // 10,
            total // 10,
            total // 10,
        ]
    assert drawn(reversed(found.values()), "librispeech-speaker") == sides


def test_chapters_stay_whole_and_who_read_one_alone_is_only_trained_on(tmp_path: Path) -> None:
    place_many(tmp_path, {"19": [20], "26": [7, 13], "8975": [9, 11, 10, 12]})
    task = "librispeech-speaker@chapters"
    found = listed(tmp_path, task)
    sides = drawn(found.values(), task)
    of_chapter, of_speaker = defaultdict(set), defaultdict(set)
    for name, side in sides.items():
        of_chapter[name.rpartition("-")[0]].add(side)
        of_speaker[name.split("-")[0]].add(side)
    assert [len(each) for each in of_chapter.values()] == [1] * 7
    assert of_speaker == {
        "19": {"train"},
        "26": {"train", "test"},
        "8975": {"train", "val", "test"},
    }
    assert drawn(reversed(found.values()), task) == sides


def test_another_subset_is_refused(tmp_path: Path) -> None:
    place(tmp_path, "LibriSpeech/dev-clean/84/121123/84-121123-0000.flac")
    assert "no train-clean-100/*/* in it" in refusal(tmp_path, "librispeech-speaker")


def test_the_archive_is_prepared_and_its_spoiled_utterances_can_be_left_out(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    root = place_readers(tmp_path / "in" / "LibriSpeech")
    for seed, name in enumerate(UTTERANCES):
        write_clip(root / file_of(name), seed)
    archive = pack(tmp_path / "in", tmp_path / "train-clean-100.tar.gz")
    for manifest in prepare(without_checksums("librispeech-speaker"), archive, progress):
        assert dict(zip(manifest.clips["clip_id"], manifest.clips["label"], strict=True)) == {
            name: speaker for name, (speaker, _) in UTTERANCES.items()
        }
    first, second = list(UTTERANCES)[:2]
    spoiled = spoil(root / file_of(first), root / file_of(second))
    assert set(left_out("librispeech-speaker", root, spoiled, progress)) == {first, second}
