from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lape_bench.core.progress import Progress
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import Manifest
from lape_bench.data.prepare import prepare
from lape_bench.data.verify import TaskFinding, differences, verify
from lape_bench.task import Expected, TaskCard

CARD = load_card("fsdd-digits").model_copy(
    update={
        "classes": ("0", "1"),
        "expected": Expected(clips=12, per_class=6, per_side={"1": 4, "2": 4, "3": 4}),
    }
)
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


@pytest.fixture
def manifest(tmp_path: Path, write_clip: Callable[..., Path], progress: Progress) -> Manifest:
    """Two digits by six speakers in three folds, as CARD expects them."""
    names = [f"{digit}_{speaker}_7.wav" for digit in (0, 1) for speaker in SPEAKERS]
    for seed, name in enumerate(names):
        write_clip(tmp_path / "fsdd" / "recordings" / name, seed)
    return prepare(CARD, tmp_path / "fsdd", progress)[0]


def edited(manifest: Manifest, clip_id: str, **columns: object) -> Manifest:
    """A manifest in which one clip differs."""
    clips = manifest.clips.copy()
    for column, value in columns.items():
        clips.loc[clips["clip_id"] == clip_id, column] = value
    return replace(manifest, clips=clips)


SOURCE = "table, folder and recordings"


def failing(
    manifest: Manifest, progress: Progress, card: TaskCard = CARD, deep: bool = False
) -> list[TaskFinding]:
    """Findings that do not hold, but for the comparison with the source, from which an edited manifest differs."""
    findings = verify(card, manifest, deep, progress)
    return [found for found in findings if not found.holds and found.what != SOURCE]


@pytest.mark.parametrize("deep", [False, True])
def test_a_task_as_its_card_expects_it_has_no_failing_finding(
    deep: bool, manifest: Manifest, progress: Progress
) -> None:
    findings = verify(CARD, manifest, deep, progress)
    assert all(found.holds for found in findings), findings
    looked_at = {"clips", "clips of fold 3", "no audio on two sides", "no speaker on two sides"}
    assert looked_at <= {found.what for found in findings}
    assert ("decoded audio" in {found.what for found in findings}) == deep
    assert differences(CARD, manifest) == []


@pytest.mark.parametrize("deep", [False, True])
def test_a_missing_file_is_found_and_named(
    deep: bool, manifest: Manifest, progress: Progress
) -> None:
    gone = manifest.recordings()[4].path
    gone.unlink()
    [found] = failing(manifest, progress, deep=deep)
    assert found.what == "files"
    assert "1 missing" in found.detail
    assert str(gone) in found.detail


def test_a_changed_file_is_found_when_looking_deep(
    manifest: Manifest, progress: Progress, write_clip: Callable[..., Path]
) -> None:
    changed = write_clip(manifest.recordings()[4].path, seed=99)
    [found] = failing(manifest, progress, deep=True)
    assert found.what == "decoded audio"
    assert found.detail == f"1 differ, such as {changed} changed"
    earlier = replace(manifest, info=manifest.info.model_copy(update={"decoder": "earlier"}))
    [by_others] = failing(earlier, progress, deep=True)
    assert "another version of the decoders prepared them" in by_others.detail
    assert not failing(manifest, progress, deep=False), "which takes decoding to see"
    [found] = [found for found in verify(CARD, manifest, False, progress) if not found.holds]
    assert found.what == SOURCE
    assert f"recordings of other audio: 1, such as {changed}" in found.detail


def test_a_file_that_broke_is_found_with_its_reason_when_looking_deep(
    manifest: Manifest, progress: Progress
) -> None:
    first, second = (manifest.recordings()[index].path for index in (2, 7))
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:1000])
    [found] = failing(manifest, progress, deep=True)
    assert "2 differ" in found.detail
    assert f"{first}: empty" in found.detail


def test_damaged_audio_in_the_cache_is_found_when_looking_deep_and_decoded_again_after_that(
    manifest: Manifest, progress: Progress, cache: Path
) -> None:
    samples = next(cache.glob("store/*/samples.*"))
    with samples.open("r+b") as file:
        file.seek(samples.stat().st_size // 2)
        file.write(bytes(400))
    assert not failing(manifest, progress, deep=False), "which takes reading all of it to see"
    [found] = failing(manifest, progress, deep=True)
    assert found.what == "decoded audio in the cache"
    assert f"{samples} is damaged" in found.detail
    manifest.open_clips(16_000)
    assert not failing(manifest, progress, deep=True)


def test_a_speaker_on_two_sides_is_found_and_named(manifest: Manifest, progress: Progress) -> None:
    [found] = failing(edited(manifest, "0_theo_7", group="george"), progress)
    assert found.what == "no speaker on two sides"
    assert "george" in found.detail


def test_a_card_without_a_group_does_not_ask_for_one(
    manifest: Manifest, progress: Progress
) -> None:
    shared = edited(manifest, "0_theo_7", group="george")
    assert not failing(shared, progress, CARD.model_copy(update={"group": None}))


def test_clips_without_the_group_that_the_card_keeps_apart_are_found(
    manifest: Manifest, progress: Progress
) -> None:
    nobody = replace(manifest, clips=manifest.clips.assign(group=None))
    assert [found.what for found in failing(nobody, progress)] == ["no speaker on two sides"]


def test_one_recording_on_two_sides_is_found(manifest: Manifest, progress: Progress) -> None:
    content = manifest.clips.set_index("clip_id").loc["0_george_7", "content"]
    [found] = failing(edited(manifest, "0_theo_7", content=content), progress)
    assert found.what == "no audio on two sides"
    assert content[:16] in found.detail


def test_one_recording_twice_on_one_side_is_no_finding(
    manifest: Manifest, progress: Progress
) -> None:
    content = manifest.clips.set_index("clip_id").loc["0_george_7", "content"]
    assert not failing(edited(manifest, "0_jackson_7", content=content), progress)


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ({"clips": 13}, ["clips: 12 instead of 13"]),
        (
            {"clips": 12, "per_class": 7},
            ["clips of class 0: 6 instead of 7", "clips of class 1: 6 instead of 7"],
        ),
        ({"clips": 12, "per_side": {"1": 4, "2": 5}}, ["clips of fold 2: 4 instead of 5"]),
        ({"clips": 12, "per_side": {"4": 1}}, ["clips of fold 4: 0 instead of 1"]),
        ({"clips": 3000}, ["clips: 12 instead of 3,000"]),
    ],
    ids=str,
)
def test_a_count_that_differs_from_the_cards_is_named_with_both_numbers(
    expected: dict[str, object], said: list[str], manifest: Manifest, progress: Progress
) -> None:
    card = CARD.model_copy(update={"expected": Expected.model_validate(expected)})
    assert differences(card, manifest) == said
    assert [f"{found.what}: {found.detail}" for found in failing(manifest, progress, card)] == said


def test_a_class_without_a_clip_is_named(manifest: Manifest) -> None:
    card = CARD.model_copy(update={"classes": ("0", "1", "2")})
    assert differences(card, manifest) == ["clips of class 2: 0 instead of 6"]


def test_sides_of_an_official_split_are_counted_by_name(
    manifest: Manifest, progress: Progress
) -> None:
    official = load_card("fsdd-digits@official").model_copy(
        update={"expected": Expected(clips=12, per_side={"train": 11, "test": 1})}
    )
    clips = manifest.clips.assign(fold=0, split="train")
    assert differences(official, replace(manifest, clips=clips)) == [
        "clips of train: 12 instead of 11",
        "clips of test: 0 instead of 1",
    ]


def test_skipped_clips_are_told_where_they_make_the_difference(
    tmp_path: Path, manifest: Manifest, progress: Progress
) -> None:
    manifest.recordings()[0].path.write_bytes(b"")
    shorter, *_ = prepare(CARD, tmp_path / "fsdd", progress, skip_bad=True)
    assert differences(CARD, shorter)[0] == "clips: 11 instead of 12 (1 skipped)"


def test_a_class_without_a_clip_is_found_and_named(manifest: Manifest, progress: Progress) -> None:
    expected = CARD.expected.model_copy(update={"per_class": None})
    card = CARD.model_copy(update={"classes": ("0", "1", "2", "3"), "expected": expected})
    [found] = failing(manifest, progress, card)
    assert found.what == "clips of each class"
    assert "2 classes without a clip: 2, 3; 0: 6, 1: 6, 2: 0, 3: 0" in found.detail
