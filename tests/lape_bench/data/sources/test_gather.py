"""The folder that a reader is given, from archives, folders and loose files."""

import errno
import hashlib
import os
import shutil
import threading
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import soundfile

from lape_bench.core import paths
from lape_bench.core.errors import UserError
from lape_bench.core.paths import home
from lape_bench.core.progress import Progress
from lape_bench.data.catalog import load_card
from lape_bench.data.sources import archives, checksum_pins
from lape_bench.data.sources import gather as module
from lape_bench.data.sources.archives import downloads
from lape_bench.data.sources.checksum_pins import Pin
from lape_bench.data.sources.gather import NAMED, gather
from lape_bench.runtime import cpu_cores
from lape_bench.task import Source, TaskCard
from lape_bench.tasks.synthetic_sounds import SyntheticSounds
from tests.lape_bench.data.archives import card_with, card_with_index, zip_of

CLIPS, LABELS = zip_of({"clips/1.wav": b"one"}), b"1.wav,dog\n"
BY_HAND = card_with(Source(file="a.zip"), Source(file="b.zip"), Source(file="labels.csv"))
FETCHED = card_with(
    *(Source(file=name, url=f"http://one.example/{name}") for name in ("a.zip", "b.zip"))
)
INDEXED = card_with_index("http://one.example/voxforge_urls.txt")


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def archive(path: Path, files: Mapping[str, str]) -> Path:
    return write(path, zip_of({name: content.encode() for name, content in files.items()}))


def bring(card: TaskCard, **contents: bytes) -> list[Path]:
    """Put files where a fetch would, by their name without its ending, and pin them."""
    paths = []
    for each in downloads(card):
        content = contents.get(Path(each.source.file).name.partition(".")[0])
        if content is not None and each.source.url is not None:
            paths.append(write(each.path, content))
            checksum_pins.add(
                each.source.url, Pin(hashlib.sha256(content).hexdigest(), len(content))
            )
    return paths


def read(root: Path) -> dict[str, str]:
    """Every file below a folder, links followed, by its path."""
    found = {}
    for path in root.iterdir():
        if path.is_dir():
            found |= {f"{path.name}/{name}": text for name, text in read(path).items()}
        else:
            found[path.name] = path.read_text()
    return found


def state(folder: Path) -> dict[Path, tuple[int, int]]:
    """What is there, and when it was written."""
    return {
        path: (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))
    }


def refusal(card: TaskCard, given: list[Path], progress: Progress) -> str:
    with pytest.raises(UserError) as caught:
        gather(card, given, progress)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- given ------------------------------------------------------------------------------------------------


def test_a_folder_without_archives_is_read_as_it_is(
    tmp_path: Path, progress: Progress, cache: Path
) -> None:
    write(tmp_path / "mine" / "labels.csv", LABELS)
    found = gather(BY_HAND, [tmp_path / "mine"], progress)
    assert found == (tmp_path / "mine", "folder mine", ())
    assert not cache.exists()


def test_several_archives_stand_side_by_side_each_under_its_name(
    tmp_path: Path, progress: Progress
) -> None:
    given = [
        archive(tmp_path / "a.zip", {"x/1.txt": "one", "2.txt": "two"}),
        archive(tmp_path / "b.part.zip", {"x/1.txt": "other"}),
    ]
    found = gather(BY_HAND, given, progress)
    assert read(found.root) == {"a/x/1.txt": "one", "a/2.txt": "two", "b.part/x/1.txt": "other"}
    for path in given:
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()
        assert f"{path.name} sha256:{checksum}" in found.origin


def test_what_stands_side_by_side_is_linked_not_copied_and_moves_with_the_cache(
    tmp_path: Path, progress: Progress, cache: Path
) -> None:
    given = [archive(tmp_path / f"{name}.zip", {f"{name}.txt": name}) for name in "ab"]
    root = gather(BY_HAND, given, progress).root
    assert all(path.is_symlink() for path in root.iterdir())
    moved = cache.rename(tmp_path / "moved")
    assert read(moved / root.relative_to(cache)) == {"a/a.txt": "a", "b/b.txt": "b"}


def test_what_was_fetched_as_it_is_moves_with_the_cache_too(
    tmp_path: Path, progress: Progress, cache: Path
) -> None:
    card = card_with(*FETCHED.sources, Source(file="labels.csv", url="http://one.example/labels"))
    bring(card, a=CLIPS, b=CLIPS, labels=LABELS)
    root = gather(card, [], progress).root
    moved = cache.rename(tmp_path / "moved")
    assert read(moved / root.relative_to(cache))["labels.csv"] == LABELS.decode()


def test_the_data_may_lie_on_another_disk_than_the_rest_of_the_cache(
    tmp_path: Path, progress: Progress, cache: Path
) -> None:
    for folder in (tmp_path / "disk" / "deep" / "recordings", cache):
        folder.mkdir(parents=True)
    (cache / "data").symlink_to(tmp_path / "disk" / "deep" / "recordings")
    card = card_with(FETCHED.sources[0], Source(file="labels.csv", url="http://one.example/labels"))
    bring(card, a=CLIPS, labels=LABELS)
    expected = {"a/clips/1.wav": "one", "labels.csv": LABELS.decode()}
    assert read(gather(card, [], progress).root) == expected


def test_a_folder_that_holds_the_cards_archives_gives_those_and_the_files_beside_them(
    tmp_path: Path, progress: Progress
) -> None:
    """Labels may have another name than on the card, as those of figshare do."""
    for name in ("a", "b", "holiday"):
        archive(tmp_path / "mine" / f"{name}.zip", {"1.txt": name})
    for name in ("labels.csv", "labels_2018.csv", ".hidden", "deep/notes.txt"):
        write(tmp_path / "mine" / name, LABELS)
    assert read(gather(BY_HAND, [tmp_path / "mine"], progress).root) == {
        "a/1.txt": "a",
        "b/1.txt": "b",
        "labels.csv": LABELS.decode(),
        "labels_2018.csv": LABELS.decode(),
    }


def test_two_folders_may_hold_a_note_of_one_name_each(tmp_path: Path, progress: Progress) -> None:
    for name in "ab":
        archive(tmp_path / name / f"{name}.zip", {"1.txt": name})
        write(tmp_path / name / "README", name.encode())
    found = read(gather(BY_HAND, [tmp_path / "a", tmp_path / "b"], progress).root)
    assert found == {"a/1.txt": "a", "b/1.txt": "b", "README": "a"}


def test_a_file_of_a_name_that_the_card_does_not_know_may_be_given_beside_others(
    tmp_path: Path, progress: Progress
) -> None:
    given = [archive(tmp_path / "a.zip", {"1.txt": "one"}), write(tmp_path / "l_2018.csv", LABELS)]
    found = read(gather(BY_HAND, given, progress).root)
    assert found == {"a/1.txt": "one", "l_2018.csv": LABELS.decode()}


def test_what_is_no_recording_is_refused_given_alone_and_what_is_no_file_always(
    tmp_path: Path, progress: Progress
) -> None:
    notes = [write(tmp_path / name, LABELS) for name in ("notes.txt", "more.txt")]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for given, named in (
        (notes[:1], notes[0]),
        (notes, notes[0]),
        ([archive(tmp_path / "a.zip", {}), pipe], pipe),
    ):
        said = refusal(BY_HAND, given, progress)
        assert f"{named} is neither a folder nor an archive" in said
        assert ".tar.gz" in said


def test_an_archive_and_a_loose_file_come_together(tmp_path: Path, progress: Progress) -> None:
    given = [
        archive(tmp_path / "a.zip", {"1.txt": "one"}),
        write(tmp_path / "elsewhere" / "labels.csv", LABELS),
    ]
    found = read(gather(BY_HAND, given, progress).root)
    assert found == {"a/1.txt": "one", "labels.csv": LABELS.decode()}


@pytest.mark.parametrize("inside", [True, False], ids=["in a folder", "given itself"])
def test_a_loose_file_is_held_against_the_card(
    inside: bool, tmp_path: Path, progress: Progress
) -> None:
    card = card_with(Source(file="a.zip"), Source(file="labels.csv", sha256="0" * 64))
    files = [write(tmp_path / "mine" / name, CLIPS) for name in ("a.zip", "labels.csv")]
    said = refusal(card, [tmp_path / "mine"] if inside else files, progress)
    assert str(files[1]) in said
    assert "000000000000" in said


def test_of_a_list_every_archive_is_taken_as_deep_as_it_lies_below_the_folder_given(
    tmp_path: Path, progress: Progress
) -> None:
    for name in ("en/one", "en/two"):
        archive(tmp_path / "mine" / f"{name}.zip", {"1.txt": name})
    root = gather(INDEXED, [tmp_path / "mine"], progress).root
    assert read(root) == {"mine/en/one/1.txt": "en/one", "mine/en/two/1.txt": "en/two"}


def test_a_list_that_was_fetched_joins_the_audio_that_was_given(
    tmp_path: Path, progress: Progress
) -> None:
    """As with VoxCeleb1, whose list anyone may have and whose audio is given by its owners."""
    card = card_with(
        Source(file="labels.csv", url="http://one.example/labels.csv"),
        Source(file="other.zip", url="http://one.example/other.zip"),
        Source(file="audio.zip"),
    )
    bring(card, labels=LABELS, other=zip_of({"not asked for": b""}))
    archive(tmp_path / "mine" / "audio.zip", {"1.txt": "one"})
    for given in (tmp_path / "mine", tmp_path / "mine" / "audio.zip"):
        found = read(gather(card, [given], progress).root)
        assert found == {"audio/1.txt": "one", "labels.csv": LABELS.decode()}
    write(tmp_path / "mine" / "labels.csv", b"my own")
    own = read(gather(card, [tmp_path / "mine"], progress).root)
    assert own == {"audio/1.txt": "one", "labels.csv": "my own"}


def test_two_parts_of_one_name_are_refused(tmp_path: Path, progress: Progress, cache: Path) -> None:
    given = [archive(tmp_path / folder / "a.zip", {"1.txt": folder}) for folder in ("x", "y")]
    assert refusal(BY_HAND, given, progress).endswith(
        "have the name a; rename one of them, or give the folder that holds both."
    )
    assert not list((cache / "data").glob("esc10-*"))


def test_two_parts_of_one_name_among_very_many_are_found_without_holding_each_against_each(
    tmp_path: Path,
) -> None:
    compared: list[int] = []

    class Place(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            compared.append(1)
            return str.__eq__(self, other)

    names = [f"{number}" for number in range(500)] + ["7"]
    with pytest.raises(UserError, match="have the name 7"):
        module._together(
            BY_HAND, [module.UnpackedPart(tmp_path, Place(name), "") for name in names]
        )
    assert len(compared) < 10 * len(names)


def test_a_generated_task_takes_no_recordings(tmp_path: Path, progress: Progress) -> None:
    said = refusal(load_card("synthetic-sounds"), [tmp_path], progress)
    assert "leave out --from" in said


def test_of_very_many_parts_the_origin_is_told_in_one_checksum(
    tmp_path: Path, progress: Progress
) -> None:
    count = NAMED + 1
    for number in range(count):
        archive(tmp_path / "mine" / f"{number:02d}.zip", {"1.txt": str(number)})
    before = gather(INDEXED, [tmp_path / "mine"], progress).origin
    assert before.startswith(f"{count} parts, sha256")
    archive(tmp_path / "mine" / "00.zip", {"1.txt": "another"})
    after = gather(INDEXED, [tmp_path / "mine"], progress).origin
    assert before != after
    assert max(len(before), len(after)) < 150


# --- bad archives ----------------------------------------------------------------------------------------


DAMAGED, UNSAFE = CLIPS[: len(CLIPS) // 2], zip_of({"../2.wav": b"two"})


@pytest.fixture
def some_bad(tmp_path: Path) -> Path:
    """A folder of four listed archives, of which two cannot be unpacked."""
    for name, content in {"a": CLIPS, "b": DAMAGED, "c": UNSAFE, "d": CLIPS}.items():
        write(tmp_path / "mine" / "en" / f"{name}.zip", content)
    return tmp_path / "mine"


def test_a_bad_archive_of_a_list_stops_and_the_way_around_it_is_said(
    some_bad: Path, progress: Progress, cache: Path
) -> None:
    said = refusal(INDEXED, [some_bad], progress)
    assert f"{some_bad / 'en' / 'b.zip'} is truncated or damaged" in said
    assert "--skip-bad" in said
    assert list((cache / "data").iterdir()) == []


def test_bad_archives_of_a_list_are_left_out_on_request_and_told(
    some_bad: Path, progress: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    found = gather(INDEXED, [some_bad], progress, skip_bad=True)
    assert read(found.root) == {f"mine/en/{name}/clips/1.wav": "one" for name in "ad"}
    assert [place for place, _ in found.skipped] == ["mine/en/b", "mine/en/c"]
    assert "truncated or damaged" in found.skipped[0][1]
    assert "not safe to unpack" in found.skipped[1][1]
    assert caplog.messages == [f"left out {place}: {reason}" for place, reason in found.skipped]


def test_fetched_archives_of_a_list_are_left_out_too_where_damaged_or_not_the_pinned_ones(
    progress: Progress,
) -> None:
    addresses = b"".join(b"http://one.example/en/%d.zip\n" % number for number in range(4))
    bring(INDEXED, voxforge_urls=addresses)
    *_, last = bring(INDEXED, **{"0": CLIPS, "1": DAMAGED, "2": CLIPS, "3": CLIPS})
    write(last, CLIPS[:-1] + b"\1")
    assert "--skip-bad" in refusal(INDEXED, [], progress)
    found = gather(INDEXED, [], progress, skip_bad=True)
    assert read(found.root) == {f"en/{number}/clips/1.wav": "one" for number in (0, 2)}
    assert [place for place, _ in found.skipped] == ["en/1", "en/3"]


def test_a_bad_archive_that_the_card_itself_names_stops_in_any_case(
    tmp_path: Path, progress: Progress
) -> None:
    given = [write(tmp_path / "a.zip", CLIPS), write(tmp_path / "b.zip", DAMAGED)]
    with pytest.raises(UserError, match=r"b\.zip is truncated") as caught:
        gather(BY_HAND, given, progress, skip_bad=True)
    assert "--skip-bad" not in str(caught.value)


def test_where_all_archives_of_a_list_are_bad_that_is_said(
    tmp_path: Path, progress: Progress
) -> None:
    for name in "ab":
        write(tmp_path / "mine" / f"{name}.zip", DAMAGED)
    with pytest.raises(UserError, match="none of the 2 archives"):
        gather(INDEXED, [tmp_path / "mine"], progress, skip_bad=True)


@pytest.mark.parametrize("small_bytes", [module.SMALL_BYTES, 0], ids=["small", "large"])
def test_a_full_disk_is_no_fault_of_the_archive(
    small_bytes: int, some_bad: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(zipfile.ZipFile, "extract", full)
    monkeypatch.setattr(module, "SMALL_BYTES", small_bytes)
    with pytest.raises(UserError, match=r"^the disk"):
        gather(INDEXED, [some_bad], progress, skip_bad=True)


@pytest.mark.parametrize("small_bytes", [module.SMALL_BYTES, 0], ids=["small", "large"])
def test_parts_keep_their_order_whichever_archive_is_unpacked_first(
    small_bytes: int, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [archive(tmp_path / f"{name}.zip", {"1.txt": name}) for name in "cab"]
    second_is_done = threading.Event()
    unpack = archives.unpack

    def second_first(path: Path, *how: Any) -> Path:
        if path.name == "c.zip":
            assert second_is_done.wait(60), "they are not unpacked side by side"
        folder = unpack(path, *how)
        if path.name == "a.zip":
            second_is_done.set()
        return folder

    monkeypatch.setattr(cpu_cores, "available", lambda: 2)
    monkeypatch.setattr(module, "SMALL_BYTES", small_bytes)
    expected = gather(BY_HAND, given, progress)
    shutil.rmtree(home())
    monkeypatch.setattr(archives, "unpack", second_first)
    assert gather(BY_HAND, given, progress) == expected
    assert read(expected.root) == {f"{name}/1.txt": name for name in "abc"}


def test_many_archives_are_flushed_together_and_abandoned_folders_looked_for_once(
    tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"{number}.txt": "" for number in range(paths.FLUSHED_SINGLY + 1)}
    for number in range(10):
        archive(tmp_path / "mine" / f"{number}.zip", files | {"own": str(number)})
    done: list[str] = []
    look = paths._remove_abandoned
    monkeypatch.setattr(os, "sync", lambda: done.append("sync"))
    monkeypatch.setattr(
        paths, "_remove_abandoned", lambda parent: done.append("look") or look(parent)
    )
    monkeypatch.setattr(module, "FLUSHED_TOGETHER", 5)
    assert len(read(gather(INDEXED, [tmp_path / "mine"], progress).root)) == 10 * (len(files) + 1)
    for_the_links = ["look"]
    assert done == ["look", "sync"] * 2 + for_the_links


def test_an_interrupted_unpacking_ends_at_the_next_file_and_leaves_nothing_half(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = Progress(quiet=True)
    files = {f"{number}.txt": "" for number in range(100)}
    given = [archive(tmp_path / f"{name}.zip", files) for name in "ab"]

    class Interrupted(ThreadPoolExecutor):
        def map(self, *how: Any, **more: Any) -> Iterator[Any]:
            super().map(*how, **more)
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "ThreadPoolExecutor", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        gather(BY_HAND, given, progress)
    assert progress.stopped
    assert list((cache / "data").iterdir()) == []


# --- fetched ----------------------------------------------------------------------------------------------


def test_what_was_fetched_is_found_without_being_given(progress: Progress) -> None:
    bring(FETCHED, a=CLIPS, b=zip_of({"2.txt": b"two"}))
    root = gather(FETCHED, [], progress).root
    assert read(root) == {"a/clips/1.wav": "one", "b/2.txt": "two"}


def test_a_missing_part_is_named_with_the_next_command(progress: Progress, cache: Path) -> None:
    bring(FETCHED, a=CLIPS)
    said = refusal(FETCHED, [], progress)
    assert "1 of 2 files" in said
    assert "b.zip" in said
    assert "run 'bench data fetch esc10'" in said
    assert not (cache / "data").exists()


@pytest.mark.parametrize(
    ("card", "advice"),
    [
        (FETCHED, "give --from, or run 'bench data fetch esc10' first"),
        (INDEXED, "give --from, or run 'bench data fetch voxforge' first"),
        (card_with(Source(file="a.zip"), obtain="write to the authors"), "write to the authors"),
    ],
    ids=["to fetch", "a list to fetch", "by hand"],
)
def test_where_there_is_nothing_the_next_step_is_said(
    card: TaskCard, advice: str, progress: Progress
) -> None:
    said = refusal(card, [], progress)
    assert card.sources[0].file in said
    assert advice in said


def test_of_what_a_list_names_some_may_be_missing_but_not_all(progress: Progress) -> None:
    addresses = b"".join(b"http://one.example/en/%d.zip\n" % number for number in range(3))
    bring(INDEXED, voxforge_urls=addresses)
    said = refusal(INDEXED, [], progress)
    assert "3 of 4 files" in said
    assert "run 'bench data fetch voxforge'" in said
    bring(INDEXED, **{"0": CLIPS, "2": CLIPS})
    root = gather(INDEXED, [], progress).root
    assert read(root) == {"en/0/clips/1.wav": "one", "en/2/clips/1.wav": "one"}


@pytest.mark.parametrize("name", ["a.zip", "labels.csv"])
def test_a_fetched_file_that_is_not_the_pinned_one_is_refused(
    name: str, progress: Progress
) -> None:
    card = card_with(Source(file=name, url="http://one.example/file"))
    [path] = bring(card, **{name.partition(".")[0]: CLIPS})
    write(path, CLIPS[:-1] + b"\1")
    said = refusal(card, [], progress)
    assert str(path) in said
    assert f"pinned in {checksum_pins.lock_file()}" in said


def test_an_archive_is_unpacked_once_and_the_folder_of_links_made_once(
    progress: Progress, cache: Path
) -> None:
    bring(FETCHED, a=CLIPS, b=CLIPS)
    first = gather(FETCHED, [], progress)
    before = state(cache / "data")
    assert gather(FETCHED, [], progress) == first
    assert state(cache / "data") == before


def test_an_archive_that_two_tasks_share_is_unpacked_once(progress: Progress, cache: Path) -> None:
    bring(FETCHED, a=CLIPS)
    one = card_with(FETCHED.sources[0])
    root = gather(one, [], progress).root
    before = state(cache / "data")
    assert gather(one.model_copy(update={"name": "another"}), [], progress).root == root
    assert state(cache / "data") == before


def test_what_was_unpacked_is_found_when_its_archive_is_gone(
    progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = bring(FETCHED, a=CLIPS, b=CLIPS)
    first = gather(FETCHED, [], progress)
    for path in brought:
        path.unlink()
    monkeypatch.setattr(archives, "unpack", None)
    assert gather(FETCHED, [], progress) == first


# --- damage in the cache ----------------------------------------------------------------------------------


def test_a_damaged_folder_of_a_fetched_archive_is_unpacked_again(
    progress: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    archives = bring(FETCHED, a=CLIPS, b=CLIPS)
    root = gather(FETCHED, [], progress).root
    whole = read(root)
    damaged = root / "a" / "clips" / "1.wav"
    damaged.write_text("two")
    assert read(gather(FETCHED, [], progress).root) == whole
    assert "unpacking a.zip again" in caplog.text
    damaged.write_text("two")
    for path in archives:
        path.unlink()
    with pytest.raises(UserError, match=r"unpacked files of .* are damaged.*fetch it again"):
        gather(FETCHED, [], progress)


def test_links_that_are_lost_are_made_again(progress: Progress) -> None:
    bring(FETCHED, a=CLIPS, b=CLIPS)
    root = gather(FETCHED, [], progress).root
    whole = read(root)
    (root / "a").unlink()
    assert read(gather(FETCHED, [], progress).root) == whole


def test_damaged_generated_recordings_are_generated_again(
    progress: Progress, caplog: pytest.LogCaptureFixture
) -> None:
    card = load_card("synthetic-sounds")
    root = gather(card, [], progress).root
    path = next(root.rglob("*.wav"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    gather(card, [], progress)
    assert path.read_bytes() == whole
    assert "generating synthetic-sounds again" in caplog.text


def test_a_disk_that_fills_up_during_generation_is_said(
    progress: Progress, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(reader: object, root: Path, card: TaskCard) -> None:
        (root / "1.wav").touch()
        raise soundfile.LibsndfileError(2)  # "System error": it does not say which

    def usage(place: Path) -> SimpleNamespace:
        return SimpleNamespace(free=0 if [*cache.rglob("*.wav")] else 10**9)

    monkeypatch.setattr(SyntheticSounds, "generate", fill)
    monkeypatch.setattr("lape_bench.core.errors.shutil.disk_usage", usage)
    with pytest.raises(UserError, match=r"the disk that holds \S+data is full"):
        gather(load_card("synthetic-sounds"), [], progress)
    assert not [*cache.rglob("*.wav")]
