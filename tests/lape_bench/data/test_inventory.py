"""How far a task has come on this machine, step by step, and what it costs in bytes."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from lape_bench.cli import app as cli
from lape_bench.cli import data
from lape_bench.core.progress import Progress
from lape_bench.data.catalog import load_card
from lape_bench.data.inventory import disk_usage, measure, note_verified
from lape_bench.data.manifest import load_manifest
from lape_bench.data.prepare import prepare
from lape_bench.data.sources.archives import delete_unpacked, downloads
from lape_bench.data.sources.http_download import part_of
from lape_bench.task import Expected, Source, TaskCard
from tests.lape_bench.data.archives import zip_of

SPEAKERS = ("george", "lucas", "theo")
PADDING = np.random.default_rng(0).bytes(3 * 2**20)


def card_of(*contents: bytes) -> TaskCard:
    """Digits that come in these files, the first an archive of clips."""
    files = [
        Source(
            file=f"part{number}.zip" if number == 0 else f"part{number}.csv",
            url=f"http://one.example/{number}",
            sha256=hashlib.sha256(content).hexdigest(),
        )
        for number, content in enumerate(contents)
    ]
    changes = {
        "sources": tuple(files),
        "variants": {},
        "expected": Expected(clips=len(SPEAKERS)),
    }
    return load_card("fsdd-digits").model_copy(update=changes)


def bring(card: TaskCard, *contents: bytes) -> list[Path]:
    """Put files where a fetch would."""
    paths = [each.path for each in downloads(card)]
    for path, content in zip(paths, contents, strict=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return paths


@pytest.fixture
def clips(tmp_path: Path, write_clip: Callable[..., Path]) -> bytes:
    """An archive of one clip a speaker, and 3 MiB that nobody reads."""
    files = {"padding.bin": PADDING}
    for seed, who in enumerate(SPEAKERS):
        clip = write_clip(tmp_path / "clips" / f"0_{who}_0.wav", seed)
        files[f"recordings/{clip.name}"] = clip.read_bytes()
    return zip_of(files)


def size(card: TaskCard) -> int:
    """Bytes of a task's files."""
    return measure([disk_usage(card)])[1]


def disk_use(*folders: Path) -> int:
    """Bytes of the files in these folders, without links, half files and locks."""
    return sum(
        path.stat().st_size
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and not path.name.startswith(".lock")
    )


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run `bench data` on a card that is found by its name, to its end, and return its output."""

    def run(card: TaskCard, *arguments: str) -> str:
        monkeypatch.setattr(data, "load_card", lambda _: card)
        monkeypatch.setattr(data, "all_cards", lambda: ([card], []))
        monkeypatch.setattr(data, "published_lock", lambda _: None)
        done = CliRunner().invoke(cli.app, ["data", *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    return run


# --- the steps --------------------------------------------------------------------------------------------


def test_a_task_goes_from_missing_to_verified_step_by_step(
    clips: bytes, progress: Progress, bench: Callable[..., str]
) -> None:
    # The recordings are all of one class, and a class without clips does not verify.
    card = card_of(clips, b"labels").model_copy(update={"classes": ("0",)})
    assert (disk_usage(card).state, size(card)) == ("missing", 0)
    bring(card, clips)
    assert (disk_usage(card).state, size(card)) == ("1 of 2 fetched", len(clips))
    bring(card, clips, b"labels")
    assert (disk_usage(card).state, size(card)) == ("fetched", len(clips) + len(b"labels"))
    bench(card, "prepare", card.name, "-q")
    assert disk_usage(card).state == "prepared"
    bench(card, "verify", card.name, "-q")
    assert disk_usage(card).state == "verified"


def test_a_task_that_fails_to_verify_stays_prepared(
    clips: bytes, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = card_of(clips).model_copy(update={"expected": Expected(clips=99)})
    bring(card, clips)
    prepare(card, None, progress)
    monkeypatch.setattr(data, "load_card", lambda _: card)
    assert CliRunner().invoke(cli.app, ["data", "verify", card.name, "-q"]).exit_code == 1
    assert disk_usage(card).state == "prepared"


def test_prepared_anew_with_other_clips_a_task_is_no_longer_verified_and_with_the_same_it_is(
    tmp_path: Path, write_clip: Callable[..., Path], progress: Progress
) -> None:
    card = card_of(b"never fetched")
    for seed, who in enumerate(SPEAKERS):
        write_clip(tmp_path / "mine" / "recordings" / f"0_{who}_0.wav", seed)
    states = []
    for seed in (0, 9, 0):
        write_clip(tmp_path / "mine" / "recordings" / "0_george_0.wav", seed)
        [manifest] = prepare(card, tmp_path / "mine", progress)
        if not states:
            note_verified(manifest)
        states.append(disk_usage(card).state)
    assert states == ["verified", "prepared", "verified"]


def test_a_verified_task_whose_card_was_raised_is_as_far_as_its_files(
    clips: bytes, progress: Progress
) -> None:
    card = card_of(clips)
    bring(card, clips)
    [manifest] = prepare(card, None, progress)
    note_verified(manifest)
    raised = card.model_copy(update={"version": card.version + 1})
    assert disk_usage(raised).state == "fetched"


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"manifest": 1}', "\xff"])
def test_a_damaged_note_is_no_verification(
    note: str, clips: bytes, progress: Progress, cache: Path
) -> None:
    card = card_of(clips)
    bring(card, clips)
    note_verified(prepare(card, None, progress)[0])
    [path] = (cache / "manifests").glob("*.verified.json")
    path.write_text(note, encoding="latin-1")
    assert disk_usage(card).state == "prepared"


# --- bytes ------------------------------------------------------------------------------------------------


def test_downloads_unpacked_files_and_decoded_clips_are_counted_once_each(
    clips: bytes, progress: Progress, cache: Path
) -> None:
    card = card_of(clips, b"labels")  # the loose file is fetched, and linked among the recordings
    bring(card, clips, b"labels")
    prepare(card, None, progress)
    assert size(card) == disk_use(cache / "downloads", cache / "data", cache / "store")


def test_recordings_outside_the_cache_are_not_counted(
    tmp_path: Path, clips: bytes, progress: Progress, cache: Path
) -> None:
    card = card_of(clips, b"labels")
    given = [tmp_path / "part0.zip", tmp_path / "part1.csv"]
    for path, content in zip(given, (clips, b"labels"), strict=True):
        path.write_bytes(content)
    prepare(card, given, progress)
    assert size(card) == disk_use(cache / "data", cache / "store")
    given[1].unlink()
    assert size(card) == disk_use(cache / "data", cache / "store")


def test_a_folder_outside_the_cache_is_not_even_walked(
    tmp_path: Path,
    write_clip: Callable[..., Path],
    progress: Progress,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    card = card_of(b"never fetched")
    for seed, who in enumerate(SPEAKERS):
        write_clip(tmp_path / "mine" / "recordings" / f"0_{who}_0.wav", seed)
    (tmp_path / "mine" / "round").symlink_to(tmp_path / "mine")
    prepare(card, tmp_path / "mine", progress)
    looked: list[Path] = []
    scan = os.scandir

    def watched(path: str) -> object:
        looked.append(Path(path))
        return scan(path)

    usage = disk_usage(card)  # which asks the reader for its clips
    monkeypatch.setattr(os, "scandir", watched)
    assert measure([usage])[0] == [disk_use(cache / "store")]
    assert tmp_path / "mine" / "recordings" not in looked


def test_status_shows_state_size_and_license(
    clips: bytes, cache: Path, bench: Callable[..., str]
) -> None:
    card = card_of(clips)
    bring(card, clips)
    _, row, total = bench(card, "status").splitlines()
    assert row.split() == [card.name, "fetched", "3", *card.license.split()]
    assert total.startswith(f"3 MiB in {cache};")


# --- archives deleted -------------------------------------------------------------------------------------


def test_deleting_archives_frees_what_it_says_and_the_task_is_prepared_without_them(
    clips: bytes, progress: Progress, cache: Path, bench: Callable[..., str]
) -> None:
    card = card_of(clips, b"labels")
    archive, loose = bring(card, clips, b"labels")
    bench(card, "prepare", card.name, "-q")
    before = load_manifest(card).hash
    used = disk_use(cache / "downloads")
    said = bench(card, "prepare", card.name, "-q", "--delete-archives").splitlines()[-1]
    assert (archive.exists(), loose.exists()) == (False, True)
    assert used - disk_use(cache / "downloads") == len(clips)
    assert said == f"deleted {round(len(clips) / 2**20)} MiB of archives"
    bench(card, "prepare", card.name, "-q")
    assert load_manifest(card).hash == before


def test_deleting_again_frees_nothing(clips: bytes, progress: Progress) -> None:
    card = card_of(clips)
    bring(card, clips)
    prepare(card, None, progress)
    assert [delete_unpacked(card).bytes for _ in range(2)] == [len(clips), 0]


def test_archives_that_are_not_unpacked_stay(clips: bytes) -> None:
    card = card_of(clips)
    [archive] = bring(card, clips)
    assert delete_unpacked(card).bytes == 0
    assert archive.is_file()


def test_an_archive_that_could_not_be_found_again_unpacked_stays(
    clips: bytes, progress: Progress
) -> None:
    """Without a checksum from card or pin, nothing tells which folder it was unpacked to."""
    card = card_of(clips)
    source = card.sources[0].model_copy(update={"sha256": None, "pinned": False})
    card = card.model_copy(update={"sources": (source,)})
    [archive] = bring(card, clips)
    prepare(card, None, progress)
    assert delete_unpacked(card).bytes == 0
    assert archive.is_file()


def test_a_users_own_archive_is_never_deleted(
    tmp_path: Path, clips: bytes, progress: Progress, bench: Callable[..., str]
) -> None:
    card = card_of(clips)
    own = tmp_path / "part0.zip"
    own.write_bytes(clips)
    said = bench(card, "prepare", card.name, "-q", "--from", str(own), "--delete-archives")
    assert said.splitlines()[-1] == "deleted 0 MiB of archives"
    assert own.is_file()


# --- what came so far, and what is given by hand -------------------------------------------------------------


def test_what_came_of_a_file_so_far_is_counted(clips: bytes) -> None:
    card = card_of(clips)
    [each] = downloads(card)
    part = part_of(each.path)
    part.parent.mkdir(parents=True)
    part.write_bytes(clips[:1000])
    assert (disk_usage(card).state, size(card)) == ("0 of 1 fetched", 1000)


def test_a_task_whose_audio_is_given_by_hand_is_not_fetched_with_its_list_alone() -> None:
    card = load_card("voxceleb1")
    [each] = downloads(card)
    each.path.parent.mkdir(parents=True)
    each.path.write_bytes(b"1 id10001/video/00001.wav")
    assert disk_usage(card).state == "1 of 3 fetched"


def test_what_two_tasks_share_stands_with_each_and_is_counted_once(clips: bytes) -> None:
    one = card_of(clips)
    other = one.model_copy(update={"name": "another"})
    bring(one, clips)
    assert measure([disk_usage(one), disk_usage(other)]) == ([len(clips)] * 2, len(clips))
