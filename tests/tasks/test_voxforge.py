import shutil
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from lape_bench.core.progress import Progress
from lape_bench.data.catalog import load_card
from lape_bench.data.prepare import prepare
from tests.tasks.layouts import (
    drawn,
    facts,
    left_out,
    listed,
    pack,
    place,
    spoil,
    without_checksums,
    write_lines,
)

WriteClip = Callable[..., Path]
TREE = "{}/Trunk/Audio/Main/16kHz_16bit"
# Submission: its language, and what it is grouped by.
SUBMISSIONS = {
    "Aaron-20080318-kdl": ("en", "Aaron"),
    "Aaron-20080318-lbb": ("en", "Aaron"),
    "anonymous-20080504-qvg": ("en", "anonymous-20080504-qvg"),
    "anonymous-20100621-cdr": ("de", "anonymous-20100621-cdr"),
    "Jean-Marie-20090303-abc": ("fr", "Jean-Marie"),
    "Größe-20110101-äöü": ("de", "Größe"),
    "zeroschism-20160710": ("en", "zeroschism"),
    "zeroschism-20160711-xyz": ("it", "zeroschism"),
    "ivan-20120202-ru1": ("ru", "ivan"),
    "ralfherzog": ("es", "ralfherzog"),
}
STRAY = (
    "LICENSE",
    "etc/PROMPTS",
    "etc/prompts-original",
    "etc/README",
    "etc/HMM/notes.wav",
    "wav/._a0001.wav",
    "wav/a0001.txt",
    "wav/.DS_Store",
)


def place_submission(folder: Path, kinds: tuple[str, ...] = ("wav",)) -> Path:
    """Two sentences, as WAV or FLAC."""
    sentences = [f"{kind}/a000{number}.{kind}" for kind in kinds for number in (1, 2)]
    return place(folder, *sentences, *STRAY)


def place_site(root: Path, english: str = "en") -> Path:
    for name, (language, _) in SUBMISSIONS.items():
        place_submission(root / TREE.format(english if language == "en" else language) / name)
    (root / TREE.format("de") / "empty-20100101-abc" / "wav").mkdir(parents=True)
    place_submission(root / TREE.format("nl") / "piet-20100101-abc")
    return root


@pytest.mark.parametrize("english", ["en", "SpeechCorpus"])
@pytest.mark.parametrize("above", ["", "downloads", "disk/www.repository.voxforge1.org/downloads"])
def test_languages_come_from_the_sites_own_folders(
    above: str, english: str, tmp_path: Path
) -> None:
    place_site(tmp_path / "given" / above, english)
    assert facts(listed(tmp_path / "given", "voxforge")) == {
        f"{language}/{name}/a000{number}": (language, None, None, user)
        for name, (language, user) in SUBMISSIONS.items()
        for number in (1, 2)
    }


def test_the_variant_takes_each_submission_for_itself(tmp_path: Path) -> None:
    found = listed(place_site(tmp_path), "voxforge@by-submission")
    assert {name: clip.group for name, clip in found.items()} == {
        f"{language}/{name}/a000{number}": name
        for name, (language, _) in SUBMISSIONS.items()
        for number in (1, 2)
    }


@pytest.mark.parametrize(
    ("kinds", "taken"),
    [(("wav", "flac"), ".wav"), (("flac",), ".flac"), (("wav",), ".wav")],
)
@pytest.mark.parametrize("empty", ["", "wav"], ids=["", "and an empty folder wav"])
def test_flac_is_taken_only_where_there_is_no_wav(
    kinds: tuple[str, ...], taken: str, empty: str, tmp_path: Path
) -> None:
    folder = tmp_path / "de" / "Manu-20100101-abc"
    for kind in kinds:
        place(folder, f"{kind}/a0001.{kind.upper()}", f"{kind}/a0001.txt")
    (folder / empty).mkdir(exist_ok=True)
    [clip] = listed(tmp_path, "voxforge").values()
    assert clip.clip_id == "de/Manu-20100101-abc/a0001"
    assert clip.path.suffix.lower() == taken


def place_many(root: Path) -> Path:
    """Forty users of German and English, some with several submissions; one of them in both languages."""
    for user in range(20):
        for language in ("de", "en"):
            for submission in range(1 + user % 3):
                name = f"{language}{user}-2010010{submission}-abc"
                place(root / TREE.format(language) / name, "wav/1.wav", "wav/2.wav")
    for language in ("de", "en"):
        place(
            root / TREE.format(language) / f"polyglot-2011010{language == 'de':d}-abc", "wav/1.wav"
        )
    return root


@pytest.mark.parametrize("task", ["voxforge", "voxforge@by-submission"])
def test_groups_stay_whole_and_shares_are_kept_whatever_the_order(
    task: str, tmp_path: Path
) -> None:
    found = listed(place_many(tmp_path), task)
    sides = drawn(found.values(), task)
    sides_of, counts = defaultdict(set), Counter()
    for name, side in sides.items():
        sides_of[found[name].group].add(side)
        counts[found[name].label, side] += 1
    assert {len(each) for each in sides_of.values()} == {1}
    for language in ("de", "en"):
        total = sum(count for (label, _), count in counts.items() if label == language)
        for side, share in {"train": 0.7, "val": 0.15, "test": 0.15}.items():
            assert abs(counts[language, side] - share * total) <= 6  # clips of the largest user
    assert drawn(reversed(found.values()), task) == sides


def test_a_user_of_two_languages_is_on_one_side_and_no_anonymous_drags_another_along(
    tmp_path: Path,
) -> None:
    for number in range(30):
        place(tmp_path / "de" / f"anonymous-20100101-{number:03d}", "wav/1.wav")
        for language in ("de", "en"):
            place(tmp_path / language / f"user{number}-20100101-{language}", "wav/1.wav")
    found = listed(tmp_path, "voxforge")
    sides = drawn(found.values(), "voxforge")
    for number in range(30):
        pair = [f"{language}/user{number}-20100101-{language}/1" for language in ("de", "en")]
        assert sides[pair[0]] == sides[pair[1]]
    anonymous = {side for name, side in sides.items() if "anonymous" in name}
    assert anonymous == {"train", "val", "test"}


def test_a_folder_of_archives_one_a_submission_is_unpacked_and_prepared(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    for seed, (name, (language, _)) in enumerate(SUBMISSIONS.items()):
        folder = tmp_path / "unpacked" / name
        place(folder / name, "etc/PROMPTS", "LICENSE")
        wav = write_clip(folder / name / "wav" / "a0001.wav", seed)
        if language == "ru":
            (folder / name / "flac").mkdir()
            soundfile.write(folder / name / "flac" / "a0001.flac", *soundfile.read(wav))
            wav.unlink()
        pack(folder, tmp_path / "given" / TREE.format(language) / f"{name}.tgz")
    write_lines(tmp_path / "given" / "voxforge_urls.txt", "a list that is not needed here")
    base, by_submission = prepare(without_checksums("voxforge"), tmp_path / "given", progress)
    assert {row.clip_id: (row.label, row.group) for row in base.clips.itertuples()} == {
        f"{place[0]}/{name}/a0001": place for name, place in SUBMISSIONS.items()
    }
    assert set(by_submission.clips["group"]) == set(SUBMISSIONS)
    assert set(base.clips["split"]) <= {"train", "val", "test"}
    two_languages = base.clips[base.clips["group"] == "zeroschism"]
    assert (len(two_languages), two_languages["split"].nunique()) == (2, 1)


def test_spoiled_sentences_are_named_and_can_be_left_out(
    tmp_path: Path, write_clip: WriteClip, progress: Progress
) -> None:
    root = tmp_path / "given"
    for seed, (name, (language, _)) in enumerate(SUBMISSIONS.items()):
        write_clip(root / language / name / "wav" / "a0001.wav", seed)
    bad = ["de/Größe-20110101-äöü", "en/Aaron-20080318-kdl"]
    spoiled = spoil(*(root / name / "wav" / "a0001.wav" for name in bad))
    found = left_out("voxforge", root, spoiled, progress)
    assert set(found) == {f"{name}/a0001" for name in bad}


def test_a_link_that_leads_back_is_not_followed(tmp_path: Path) -> None:
    place_submission(tmp_path / "de" / "anna-20100101-abc")
    (tmp_path / "de" / "all").symlink_to("..")
    assert list(listed(tmp_path, "voxforge")) == [
        "de/anna-20100101-abc/a0001",
        "de/anna-20100101-abc/a0002",
    ]


def test_submissions_below_no_language_are_not_listed(tmp_path: Path) -> None:
    place_submission(tmp_path / "downloads" / "Aaron-20080318-kdl")
    assert listed(tmp_path, "voxforge") == {}


def test_unpacked_submissions_beside_archives_are_taken_and_copies_of_archives_once(
    write_clip: Callable[..., Path], tmp_path: Path, progress: Progress
) -> None:
    given, seed = tmp_path / "given", 0
    for language in ("de", "en", "es", "fr", "it", "ru"):
        for user in range(4):
            folder = given / TREE.format(language) / f"{language}{user}-20100101-abc"
            for sentence in range(2):
                seed += 1
                write_clip(folder / "wav" / f"{sentence}.wav", seed, 0.5)
            if user < 2:
                with tarfile.open(f"{folder}.tgz", "w:gz") as archive:
                    archive.add(folder, folder.name)
            if user == 0:
                shutil.rmtree(folder)  # of user 1 the copy stays beside its archive
    manifest, _ = prepare(load_card("voxforge"), given, progress)
    assert len(manifest) == 6 * 4 * 2
    assert set(manifest.clips["label"].value_counts()) == {8}
