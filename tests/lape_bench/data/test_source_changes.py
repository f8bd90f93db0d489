"""A table, a folder or a card that changed after its task was prepared is told by runs and by `bench data`."""

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.core.paths import manifest_path
from lape_bench.core.progress import Progress
from lape_bench.data import source_changes as changes_module
from lape_bench.data.catalog import load_card, own_card
from lape_bench.data.inventory import disk_usage
from lape_bench.data.manifest import load_manifest
from lape_bench.data.new_task import new_task
from lape_bench.data.prepare import ensure_prepared, prepare
from lape_bench.data.source_changes import source_changes

WriteClip = Callable[..., Path]
QUIET = Progress(quiet=True)


def write_table(path: Path, labels: str, skip: int = 99) -> None:
    rows = [(f"{n}.wav", label, f"of no use {n}") for n, label in enumerate(labels) if n != skip]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "remark"), *rows])


@pytest.fixture
def table(tmp_path: Path, write_clip: WriteClip) -> Path:
    """The table of a prepared task "mine" of twelve clips."""
    folder = tmp_path / "recordings"
    for seed in range(12):
        write_clip(folder / f"{seed}.wav", seed)
    write_table(folder / "clips.csv", "ab" * 6)
    new_task("mine", folder / "clips.csv", {}).write()
    prepare(load_card("mine"), None, QUIET)
    return folder / "clips.csv"


def changes() -> str:
    card = load_card("mine")
    return "; ".join(source_changes(card, load_manifest(card)))


def test_nothing_is_told_of_what_did_not_change(table: Path) -> None:
    assert changes() == ""
    assert disk_usage(load_card("mine")).state == "prepared"
    text = table.read_text()
    table.write_text(text.replace("of no use", "edited"))
    assert changes() == "", "the task does not use that column"
    os.utime(table.with_name("3.wav"))
    shutil.copy(table.with_name("4.wav"), table.with_name("copy"))
    table.with_name("copy").replace(table.with_name("4.wav"))
    assert changes() == "", "the audio is the same"
    table.with_name("notes.txt").touch()
    assert changes() == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda table: write_table(table, "ab" * 5 + "ba"), "clips of another label: 2, such as 10 (was a, is b)"),
        (lambda table: write_table(table, "ab" * 6, skip=7), "clips that are gone: 1, such as 7"),
        (lambda table: table.write_text("nonsense"), "has no column"),
        (lambda table: table.unlink(), "cannot be read"),
        (lambda table: write_clip_again(table.with_name("3.wav")), "recordings of other audio: 1, such as"),
        (lambda table: table.with_name("3.wav").write_bytes(b"broken"), "recordings of other audio: 1"),
    ],
    ids=["label", "row", "columns", "no table", "audio", "broken"],
)  # fmt: skip
def test_a_change_is_told_by_status_and_refused_by_runs(
    change: Callable[[Path], object], told: str, table: Path
) -> None:
    ensure_prepared(load_card("mine"), QUIET)
    change(table)
    assert told in changes()
    assert disk_usage(load_card("mine")).state == "changed"
    changes_module._looked.clear()  # as in another process
    with pytest.raises(UserError) as caught:
        ensure_prepared(load_card("mine"), QUIET)
    assert told in str(caught.value)
    assert "bench data prepare mine" in str(caught.value)


def write_clip_again(path: Path) -> None:
    """Write a sound of the same length in the place of a clip."""
    path.write_bytes(path.with_name("5.wav").read_bytes())


def test_preparing_again_settles_it(table: Path) -> None:
    write_table(table, "ab" * 5 + "ba")
    prepare(load_card("mine"), None, QUIET)
    assert changes() == ""
    ensure_prepared(load_card("mine"), QUIET)


def test_class_folders_are_compared_too(tmp_path: Path, write_clip: WriteClip) -> None:
    for seed in range(12):
        write_clip(tmp_path / "mine" / "ab"[seed % 2] / f"{seed}.wav", seed)
    new_task("mine", tmp_path / "mine", {}).write()
    prepare(load_card("mine"), None, QUIET)
    assert changes() == ""
    (tmp_path / "mine" / "a" / "4.wav").rename(tmp_path / "mine" / "b" / "4.wav")
    assert changes().startswith("new clips: 1, such as b/4; clips that are gone: 1, such as a/4")


def test_skipped_clips_are_not_new(table: Path) -> None:
    table.with_name("3.wav").write_bytes(b"broken")
    prepare(load_card("mine"), None, QUIET, skip_bad=True)
    assert changes() == ""


def test_a_skipped_clip_is_told_once_its_file_can_be_used(
    table: Path, write_clip: WriteClip
) -> None:
    table.with_name("3.wav").write_bytes(b"")
    table.with_name("4.wav").unlink()
    prepare(load_card("mine"), None, QUIET, skip_bad=True)
    assert changes() == ""
    table.with_name("3.wav").write_bytes(b"not audio either")
    assert changes() == ""
    write_clip(table.with_name("3.wav"), 3)
    write_clip(table.with_name("4.wav"), 4)
    assert changes() == (
        "recordings that were left out and can be used now: 2, such as "
        f"{table.with_name('3.wav')}, {table.with_name('4.wav')}"
    )
    prepare(load_card("mine"), None, QUIET)
    assert changes() == ""


def test_recordings_of_a_user_in_the_cache_folder_are_compared_too(
    cache: Path, write_clip: WriteClip
) -> None:
    for seed in range(12):
        write_clip(cache / "mine" / "ab"[seed % 2] / f"{seed}.wav", seed)
    new_task("mine", cache / "mine", {}).write()
    prepare(load_card("mine"), None, QUIET)
    assert changes() == ""
    write_clip(cache / "mine" / "a" / "0.wav", 99)
    assert "recordings of other audio: 1" in changes()


def test_parts_of_a_data_set_in_folders_of_the_user_are_compared_too(
    tmp_path: Path, write_clip: WriteClip
) -> None:
    for seed, name in enumerate(f"{digit}_theo_{take}" for digit in range(10) for take in (0, 5)):
        write_clip(tmp_path / "audio" / "recordings" / f"{name}.wav", seed)
    (tmp_path / "notes").mkdir()
    card = load_card("fsdd-digits")
    manifest = prepare(card, [tmp_path / "audio", tmp_path / "notes"], QUIET)[0]
    assert source_changes(card, manifest) == []
    write_clip(tmp_path / "audio" / "recordings" / "3_theo_0.wav", 99)
    (tmp_path / "audio" / "recordings" / "4_theo_0.wav").unlink()
    gone, other = source_changes(card, manifest)
    assert gone == "clips that are gone: 1, such as 4_theo_0"
    assert other.startswith("recordings of other audio: 1")


def test_recordings_that_are_away_are_not_needed(table: Path, tmp_path: Path) -> None:
    table.parent.rename(tmp_path / "away")
    assert changes() == ""
    ensure_prepared(load_card("mine"), QUIET)


def test_a_card_that_changed_is_told(table: Path) -> None:
    card = own_card("mine")
    card.write_text(
        card.read_text().replace("train: 0.6", "train: 0.5").replace("val: 0.2", "val: 0.3")
    )
    assert disk_usage(load_card("mine")).state == "changed"
    with pytest.raises(UserError, match="other recordings, split or group"):
        ensure_prepared(load_card("mine"), QUIET)


def test_a_damaged_manifest_of_an_own_task_is_made_again_with_a_word(
    table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = load_manifest(load_card("mine")).hash
    manifest_path("mine").write_bytes(manifest_path("mine").read_bytes()[:-50])
    assert disk_usage(load_card("mine")).state == "damaged"
    assert ensure_prepared(load_card("mine"), QUIET).hash == before
    assert "preparing mine again" in caplog.text


def test_more_changed_files_than_a_run_decodes_are_told_and_verify_compares_all(
    table: Path,
    write_clip: WriteClip,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(changes_module, "MOST_DECODED", 3)
    changes_module._looked.clear()
    for seed in range(12):
        os.utime(table.with_name(f"{seed}.wav"), (seed, seed))
    ensure_prepared(load_card("mine"), QUIET)
    assert "12 recordings of 'mine' have been written to" in caplog.text
    assert "9 of them were not compared" in caplog.text
    write_clip(table.with_name("11.wav"), 99)  # of the same length
    os.utime(table.with_name("11.wav"), (11, 11))
    assert "recordings of other audio: 1" in changes()
    write_clip(table.with_name("11.wav"), 99, 0.7)  # of another one: a run compares it first
    changes_module._looked.clear()
    with pytest.raises(UserError, match="recordings of other audio: 1"):
        ensure_prepared(load_card("mine"), QUIET)


def test_a_process_that_looks_often_does_so_now_and_then(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    look = changes_module.source_changes
    monkeypatch.setattr(
        changes_module, "source_changes", lambda *given: looked.append(1) or look(*given)
    )
    moments = iter([0.0, 1.0, 20.0, 60.0, 61.0])  # began, ended, too early, began, ended
    monkeypatch.setattr(changes_module.time, "monotonic", lambda: next(moments))
    changes_module._looked.clear()
    for _ in range(3):
        ensure_prepared(load_card("mine"), QUIET)
    assert len(looked) == 2
