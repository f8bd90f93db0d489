from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.data.catalog import all_cards, load_card, load_reader, suite_tasks, synthetic
from lape_bench.data.prepare import prepare
from lape_bench.data.readers.synthesis import KINDS, PEAK, RATE, render
from lape_bench.data.readers.synthetic import SyntheticReader
from lape_bench.data.verify import verify
from lape_bench.task import TaskCard

LAPE = suite_tasks("lape")
FEW_CLASSES = [name for name in LAPE if len(load_card(name).classes) < 40]
LISTED = pytest.mark.parametrize("name", LAPE)


def every_variant(card: TaskCard) -> list[TaskCard]:
    return [card, *(card.with_variant(name) for name in card.variants)]


def test_there_are_eleven_tasks_and_as_many_synthetic_versions() -> None:
    assert len(LAPE) == 11
    assert suite_tasks("lape-synthetic") == [f"{name}-synthetic" for name in LAPE]


@LISTED
def test_a_synthetic_version_has_the_classes_folds_sides_and_groups_of_its_task(name: str) -> None:
    for real in every_variant(load_card(name)):
        synthetic_card = load_card(synthetic(real.reference))
        assert (synthetic_card.classes, synthetic_card.folds, synthetic_card.group) == (
            real.classes,
            real.folds,
            real.group,
        )
        assert (synthetic_card.metric, synthetic_card.domain) == (real.metric, real.domain)
        same = {"origin"}
        assert synthetic_card.split.model_dump(exclude=same) == real.split.model_dump(exclude=same)
        assert synthetic_card.data == "synthetic"
        assert set(synthetic_card.expected.per_side) == set(
            real.expected.per_side or synthetic_card.expected.per_side
        )
        assert synthetic_card.license == "Apache-2.0"


@LISTED
def test_a_synthetic_version_lists_what_its_card_expects(name: str, tmp_path: Path) -> None:
    for card in every_variant(load_card(f"{name}-synthetic")):
        reader = load_reader(card)
        assert isinstance(reader, SyntheticReader)
        clips = reader.read(tmp_path, card)
        assert len({clip.clip_id for clip in clips}) == len(clips) == card.expected.clips
        assert set(Counter(clip.label for clip in clips)) == set(card.classes)
        assert all((clip.group is None) == (card.group is None) for clip in clips)


def test_only_tasks_of_very_many_classes_have_more_than_some_hundred_clips() -> None:
    large = {name for name in LAPE if load_card(f"{name}-synthetic").expected.clips > 400}
    assert large == {"librispeech-speaker", "voxceleb1"}


@pytest.mark.parametrize("name", ["us8k", "iemocap", "voxforge"])
def test_a_prepared_synthetic_version_holds_against_its_own_card(
    name: str, progress: Progress
) -> None:
    card = load_card(f"{name}-synthetic")
    for manifest in prepare(card, None, progress):
        own = card.with_variant(manifest.info.variant)
        assert manifest.info.data == "synthetic"
        failing = [found for found in verify(own, manifest, True, progress) if not found.holds]
        assert not failing


def test_the_same_card_gives_the_same_bytes(tmp_path: Path) -> None:
    card = load_card("birdsong-synthetic")
    roots = [tmp_path / "one", tmp_path / "two"]
    for root in roots:
        root.mkdir()
        SyntheticReader().generate(root, card)
    names = sorted(path.relative_to(roots[0]) for path in roots[0].rglob("*.wav"))
    assert len(names) == card.expected.clips
    for name in names:
        assert (roots[0] / name).read_bytes() == (roots[1] / name).read_bytes()


def test_a_synthetic_version_takes_no_recordings(tmp_path: Path, progress: Progress) -> None:
    with pytest.raises(UserError, match="us8k-synthetic is generated and takes no recordings"):
        prepare(load_card("us8k-synthetic"), tmp_path, progress)


def test_a_generated_task_is_its_own_synthetic_version_and_has_no_other() -> None:
    assert synthetic("synthetic-sounds") == "synthetic-sounds"
    with pytest.raises(UserError, match="no task 'synthetic-sounds-synthetic'"):
        load_card("synthetic-sounds-synthetic")


def test_a_misspelled_synthetic_version_is_guessed() -> None:
    with pytest.raises(UserError, match="did you mean 'us8k-synthetic'"):
        load_card("us8k-synthethic")


def test_groups_of_a_drawn_synthetic_version_belong_to_one_class_each(tmp_path: Path) -> None:
    card = load_card("voxforge-synthetic")
    clips = SyntheticReader().read(tmp_path, card)
    assert len({clip.group for clip in clips}) == len({(clip.group, clip.label) for clip in clips})


def test_sides_that_share_groups_by_design_share_them_in_the_synthetic_version(
    tmp_path: Path,
) -> None:
    card = load_card("nsynth-synthetic")
    groups: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for clip in SyntheticReader().read(tmp_path, card):
        groups[str(clip.split)].add(str(clip.group))
    assert groups["val"] == groups["test"]
    assert not groups["val"] & groups["train"]


def test_a_variant_has_a_synthetic_version_too() -> None:
    assert synthetic("iemocap@excited") == "iemocap-synthetic@excited"


def test_a_suite_nobody_knows_is_refused_with_those_there_are() -> None:
    with pytest.raises(
        UserError, match=r"did you mean 'lape'\?.*known: lape, lape-synthetic, open"
    ):
        suite_tasks("lap")


def test_listings_keep_tasks_of_a_suite_together() -> None:
    cards, problems = all_cards()
    suites = [card.suite for card in cards]
    assert not problems
    assert suites == sorted(suites)


# --- the sounds ---


def draws(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


@pytest.mark.parametrize("domain", KINDS)
def test_a_sound_has_its_length_keeps_its_peak_and_is_drawn_anew_for_each_clip(domain: str) -> None:
    first, again, other = (
        render(domain, *draws(1, 2, clip), seconds=0.8, noise=0.5) for clip in (3, 3, 4)
    )
    assert len(first) == round(0.8 * RATE)
    assert np.abs(first).max() <= PEAK
    assert np.isfinite(first).all()
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("domain", KINDS)
def test_the_clip_most_alike_is_of_the_same_class_much_more_often_than_by_chance(
    domain: str,
) -> None:
    """By the shape of the mean spectrum, without noise, from other groups: what a floor can learn."""

    def spectrum(label: int, clip: int) -> np.ndarray:
        wave = render(domain, *draws(label, clip % 4, 1000 * label + clip), seconds=1.0, noise=0.0)
        power = np.abs(np.fft.rfft(wave)) ** 2
        bands = [part.mean() for part in np.array_split(power[:4000], 40)]
        told = np.log(np.array(bands) + 1e-9 * max(bands))
        return told - told.mean()

    names = [(label, clip) for label in range(6) for clip in range(8)]
    labels, groups = (np.array(part) for part in zip(*((i, j % 4) for i, j in names), strict=True))
    described = np.array([spectrum(*name) for name in names])
    distance = np.linalg.norm(described[:, None] - described[None], axis=2)
    distance[np.equal.outer(groups, groups)] = np.inf
    assert (labels[distance.argmin(axis=1)] == labels).mean() > 2 / 6


def test_files_are_16_bit_mono_at_16_khz(tmp_path: Path) -> None:
    SyntheticReader().generate(tmp_path, load_card("birdsong-synthetic"))
    info = soundfile.info(next(tmp_path.rglob("*.wav")))
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "PCM_16")
