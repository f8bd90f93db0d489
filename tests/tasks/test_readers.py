from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lape_bench.core.progress import Progress
from lape_bench.data.catalog import load_card, load_reader
from lape_bench.data.manifest import Manifest
from lape_bench.data.prepare import prepare
from lape_bench.data.verify import differences, verify
from lape_bench.task import Generator
from tests.tasks.layouts import listed, place, refusal


@pytest.fixture(params=["", "the-data-set-26eb9aaf"], ids=["bare", "with a top-level folder"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder to read; archives of a repository put everything one folder further down."""
    folder = tmp_path / "download" / request.param
    folder.mkdir(parents=True)
    return folder


# --- Free Spoken Digit Dataset ---

FSDD = (
    "recordings/0_george_0.wav",
    "recordings/0_jackson_5.wav",
    "recordings/3_lucas_4.wav",
    "recordings/3_nicolas_49.wav",
    "recordings/9_theo_10.wav",
    "recordings/9_yweweler_1.WAV",
)
FSDD_STRAY = (
    "recordings/._0_george_0.wav",
    "recordings/0_george_0.wav.part",
    "recordings/0_george_0.txt",
    "recordings/notes.wav",
    "recordings/old/1_george_0.wav",
    "metadata.json",
)


def test_fsdd_folds_hold_pairs_of_speakers(root: Path, tmp_path: Path) -> None:
    place(root, *FSDD, *FSDD_STRAY)
    found = listed(tmp_path / "download", "fsdd-digits")
    assert {name: (clip.label, clip.fold, clip.group) for name, clip in found.items()} == {
        "0_george_0": ("0", 1, "george"),
        "0_jackson_5": ("0", 1, "jackson"),
        "3_lucas_4": ("3", 2, "lucas"),
        "3_nicolas_49": ("3", 2, "nicolas"),
        "9_theo_10": ("9", 3, "theo"),
        "9_yweweler_1": ("9", 3, "yweweler"),
    }
    assert {clip.split for clip in found.values()} == {None}


def test_fsdd_official_split_tests_on_the_first_five_takes(root: Path, tmp_path: Path) -> None:
    place(root, *FSDD, *FSDD_STRAY)
    found = listed(tmp_path / "download", "fsdd-digits@official")
    assert {name: clip.split for name, clip in found.items()} == {
        "0_george_0": "test",
        "0_jackson_5": "train",
        "3_lucas_4": "test",
        "3_nicolas_49": "train",
        "9_theo_10": "train",
        "9_yweweler_1": "test",
    }
    assert {(clip.fold, clip.group) for clip in found.values()} == {(None, None)}


# --- ESC-10 ---

ESC10 = (
    "001 - Dog bark/1-30226-A.ogg",
    "001 - Dog bark/1-30226-B.ogg",
    "006 - Person sneeze/5-31748-A.OGG",
    "010 - Fire crackling/3-4164661-C.ogg",
)
ESC10_STRAY = (
    "001 - Dog bark/._1-30226-A.ogg",
    "001 - Dog bark/1-30226-A.ogg.asd",
    "001 - Dog bark/cover.ogg",
    "101 - Dog bark mixes/readme.txt",
    "samples/1-30226-A.ogg",
)


def test_esc10_takes_class_fold_and_recording_from_the_names(root: Path, tmp_path: Path) -> None:
    place(root, *ESC10, *ESC10_STRAY)
    found = listed(tmp_path / "download", "esc10")
    assert {name: (clip.label, clip.fold, clip.group) for name, clip in found.items()} == {
        "Dog bark/1-30226-A": ("Dog bark", 1, "30226"),
        "Dog bark/1-30226-B": ("Dog bark", 1, "30226"),
        "Person sneeze/5-31748-A": ("Person sneeze", 5, "31748"),
        "Fire crackling/3-4164661-C": ("Fire crackling", 3, "4164661"),
    }


# --- Arabic Speech Commands ---

ASC = {
    "train": ["yes/00000001_NO_01", "zoom in/00000001_NO_09"],
    "val": ["yes/00000002_NO_03", "open/00000002_NO_07"],
    "test": ["yes/00000003_NO_05", "open/00000003_NO_09"],
}
ASC_SIDES = {clip_id: side for side, names in ASC.items() for clip_id in names}
ASC_FULL = [
    "yes/00000001_NO_02",
    "open/00000002_NO_10",
    "left/00000001_NO_01",
    "zero/00000003_NO_09",
]
ASC_STRAY = (
    "dataset/yes/._00000001_NO_01.wav",
    "dataset/yes/00000001_NO_01.txt",
    "dataset/yes/00000001_NO_1.wav",
    "dataset/yes/copy of 00000001_NO_01.wav",
    "dataset/readme.wav",
    "background_noise/00000001_NO_01.wav",
)


def place_asc(root: Path, ending: str, in_lists: str, full: bool = False) -> None:
    """The layout, of the 3,000 clips or (full) with keywords and rounds the tasks leave out."""
    more = ASC_FULL if full else []
    clips = [*ASC_SIDES, *more]
    place(root, *(f"dataset/{name}.{ending}" for name in clips), *ASC_STRAY)
    for side, names in ASC.items():
        rows = [*names, *(more if side == "train" else [])]
        lines = [f"dataset/{name}.{in_lists},{name.partition('/')[0]}" for name in rows]
        (root / f"{side}.csv").write_text("\n".join(["file,class", *lines]) + "\n")


ASC_LAYOUTS = pytest.mark.parametrize(
    ("ending", "in_lists", "full"),
    [
        ("wav", "wav", True),
        ("flac", "flac", False),
        ("flac", "wav", True),
        ("FLAC", "wav", False),
        ("WAV", "wav", True),
    ],
)


@ASC_LAYOUTS
def test_arabic_keywords_follow_the_official_lists(
    ending: str, in_lists: str, full: bool, root: Path, tmp_path: Path
) -> None:
    place_asc(root, ending, in_lists, full)
    found = listed(tmp_path / "download", "asc-keywords")
    assert {name: clip.split for name, clip in found.items()} == ASC_SIDES
    for name, clip in found.items():
        keyword, _, rest = name.partition("/")
        assert (clip.label, clip.group, clip.fold) == (keyword, rest[:8], None)


@ASC_LAYOUTS
def test_arabic_speakers_are_split_by_round(
    ending: str, in_lists: str, full: bool, root: Path, tmp_path: Path
) -> None:
    place_asc(root, ending, in_lists, full)
    found = listed(tmp_path / "download", "asc-speaker")
    sides = {"01": "train", "03": "train", "05": "train", "07": "val", "09": "test"}
    assert set(found) == set(ASC_SIDES)
    for name, clip in found.items():
        speaker, _, round_ = name.partition("/")[2].split("_")
        assert (clip.label, clip.split, clip.group) == (speaker, sides[round_], None)


def test_arabic_speakers_need_no_lists(tmp_path: Path) -> None:
    place_asc(tmp_path, "wav", "wav")
    for side in ASC:
        (tmp_path / f"{side}.csv").unlink()
    assert set(listed(tmp_path, "asc-speaker")) == set(ASC_SIDES)


@pytest.mark.parametrize("side", ASC)
def test_arabic_keywords_without_a_list_are_refused(side: str, tmp_path: Path) -> None:
    place_asc(tmp_path, "wav", "wav")
    (tmp_path / f"{side}.csv").unlink()
    assert f"{side}.csv is missing" in refusal(tmp_path, "asc-keywords")


def test_an_arabic_keyword_that_no_list_names_is_refused(tmp_path: Path) -> None:
    place_asc(tmp_path, "wav", "wav")
    place(tmp_path, "dataset/yes/00000004_NO_01.wav")
    said = refusal(tmp_path, "asc-keywords")
    assert "00000004_NO_01.wav" in said
    assert "train.csv" in said


@pytest.mark.parametrize("task", ["fsdd-digits", "esc10", "asc-keywords", "asc-speaker"])
def test_a_folder_of_another_data_set_is_refused(task: str, tmp_path: Path) -> None:
    place(tmp_path, "clips/a.wav", "labels.csv")
    assert "does not have the expected layout" in refusal(tmp_path, task)


# --- synthetic sounds ---

SYNTHETIC = load_card("synthetic-sounds")


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(tmp_path_factory.mktemp("sounds"))


def generate(root: Path, version: int = SYNTHETIC.version) -> Path:
    generator = load_reader(SYNTHETIC)
    assert isinstance(generator, Generator)
    generator.generate(root, SYNTHETIC.model_copy(update={"version": version}))
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.wav")}


def test_synthetic_sounds_are_the_same_bytes_each_time(generated: Path, tmp_path: Path) -> None:
    np.random.seed(1)  # whatever state the global generator is in
    assert contents(generate(tmp_path)) == contents(generated)


def test_synthetic_sounds_of_another_version_sound_otherwise(
    generated: Path, tmp_path: Path
) -> None:
    other = contents(generate(tmp_path, version=SYNTHETIC.version + 1))
    first = contents(generated)
    assert other.keys() == first.keys()
    assert not [name for name in first if other[name] == first[name]]


def test_synthetic_sounds_hold_every_class_on_every_side(generated: Path) -> None:
    found = listed(generated, "synthetic-sounds").values()
    for side, count in {"train": 24, "val": 8, "test": 8}.items():
        labels = [clip.label for clip in found if clip.split == side]
        assert {label: labels.count(label) for label in labels} == dict.fromkeys(
            SYNTHETIC.classes, count
        )


def test_synthetic_sources_stand_on_one_side_only(generated: Path) -> None:
    sources: dict[str | None, set[str | None]] = {"train": set(), "val": set(), "test": set()}
    for clip in listed(generated, "synthetic-sounds").values():
        sources[clip.split].add(clip.group)
    assert [len(each) for each in sources.values()] == [12, 4, 4]
    assert not [pair for pair in combinations(sources.values(), 2) if pair[0] & pair[1]]


def test_synthetic_clips_are_one_second_that_neither_clips_nor_repeats(generated: Path) -> None:
    seen = set()
    for path in generated.rglob("*.wav"):
        samples, rate = soundfile.read(path, dtype="int16")
        assert (samples.shape, rate) == ((16_000,), 16_000)
        assert 300 < np.abs(samples.astype(int)).max() < 32_767
        seen.add(samples.tobytes())
    assert len(seen) == SYNTHETIC.expected.clips


# --- the real recordings ---


@pytest.fixture(scope="module")
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all real archives, so that each is unpacked once."""
    return tmp_path_factory.mktemp("real")


@pytest.mark.real_audio
@pytest.mark.parametrize(
    ("task", "archive", "clips", "rates", "hours"),
    [
        ("fsdd-digits", "fsdd.zip", 3000, {8000}, 21.9 / 60),
        ("asc-keywords", "asc-mini.zip", 3000, {16_000}, 50.0 / 60),
        ("asc-speaker", "asc-mini.zip", 3000, {16_000}, 50.0 / 60),
        ("esc10", "esc10.zip", 400, {44_100}, 33.4 / 60),
    ],
)
def test_the_real_recordings_are_as_their_card_and_their_notes_say(
    task: str,
    archive: str,
    clips: int,
    rates: set[int],
    hours: float,
    real_audio: Path,
    real_cache: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAPE_BENCH_HOME", str(real_cache))
    card = load_card(task)
    manifests: list[Manifest] = prepare(card, real_audio / archive, progress)
    assert len(manifests) == 1 + len(card.variants)
    for manifest in manifests:
        own_card = card.with_variant(manifest.info.variant)
        assert len(manifest) == clips
        assert not manifest.info.skipped
        assert differences(own_card, manifest) == []
        assert all(found.holds for found in verify(own_card, manifest, False, progress))
        assert set(manifest.clips["rate"]) == rates
        assert manifest.clips["seconds"].sum() / 3600 == pytest.approx(hours, rel=2e-3)
        assert manifest.clips["content"].nunique() == clips
