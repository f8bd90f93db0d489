"""All files of a task: side by side, lists first, in spite of failures, and once."""

import gzip
import hashlib
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress, Stopped
from lape_bench.data.sources import checksum_pins
from lape_bench.data.sources import fetch as module
from lape_bench.data.sources.archives import downloads, unpack
from lape_bench.data.sources.fetch import NAMED, fetch
from lape_bench.task import Source, TaskCard
from tests.lape_bench.data.archives import card_with, card_with_index, zip_of
from tests.lape_bench.http_server import CONTENT, HALF, OTHER, Server

FILES = {f"/{name}.zip": zip_of({f"{name}.txt": name.encode() * 50}) for name in "abcd"}
LOG_IN = b"<!DOCTYPE html><html><body>Please log in</body></html>\n" * 50


@pytest.fixture
def four(server: Server) -> TaskCard:
    """A card of four files that the server has."""
    server.more = dict(FILES)
    return card_with(*(Source(file=name[1:], url=server.address + name) for name in FILES))


def in_one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def finished(cache: Path) -> dict[str, bytes]:
    """What stands under a name of its own below the downloads: halves and locks are hidden."""
    return {
        path.name: path.read_bytes()
        for path in (cache / "downloads").rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


# --- what is fetched --------------------------------------------------------------------------------------


def test_every_file_of_a_card_is_fetched_and_told_in_its_order(
    four: TaskCard, progress: Progress
) -> None:
    paths = fetch(four, 3, progress)
    assert [path.name for path in paths] == ["a.zip", "b.zip", "c.zip", "d.zip"]
    assert [path.read_bytes() for path in paths] == list(FILES.values())


@pytest.mark.parametrize("parallel", [1, 2])
def test_as_many_files_as_asked_for_are_on_their_way_at_once(
    parallel: int, server: Server, progress: Progress
) -> None:
    server.more = {"/a.zip": CONTENT, "/b.zip": OTHER}
    on_their_way = threading.Barrier(2)
    met: list[bool] = []

    def meanwhile() -> None:
        with suppress(threading.BrokenBarrierError):
            on_their_way.wait(2 if parallel == 2 else 0.05)
            met.append(True)

    server.meanwhile = meanwhile
    card = card_with(
        *(server.source(file=f, url=f"{server.address}/{f}") for f in ("a.zip", "b.zip"))
    )
    fetch(card, parallel, progress)
    assert len(met) == (2 if parallel == 2 else 0)


def test_a_list_comes_first_and_then_what_it_lists(
    server: Server, progress: Progress, cache: Path
) -> None:
    host = server.address.removeprefix("http://")
    lines = [
        f"{server.address}/en/16kHz/a.zip",
        "",
        f"{host}/en/16kHz/b.zip",
        f"'{host}/en/16kHz/c.zip'",
        f'  "{host}/en/16kHz/d%20e.zip"  ',
    ]
    names = ["a", "b", "c", "d%20e"]
    server.more = {f"/en/16kHz/{name}.zip": zip_of({name: b""}) for name in names}
    server.more["/list.txt"] = "\r\n".join(lines).encode()
    card = card_with_index(f"{server.address}/list.txt")
    paths = fetch(card, 2, progress)
    assert server.paths[0] == "/list.txt"
    assert Counter(server.paths) == dict.fromkeys(server.more, 1)
    folder = paths[0].parent
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths[1:]} == {
        "en/16kHz/a.zip": zip_of({"a": b""}),
        "en/16kHz/b.zip": zip_of({"b": b""}),
        "en/16kHz/c.zip": zip_of({"c": b""}),
        "en/16kHz/d e.zip": zip_of({"d%20e": b""}),
    }
    assert folder.is_relative_to(cache)


def test_an_address_that_a_list_repeats_is_one_file(server: Server, progress: Progress) -> None:
    address = f"{server.address}/a.zip"
    lines = [address, address.removeprefix("http://"), f'"{address}"']
    server.more = {"/list.txt": "\n".join(lines).encode(), "/a.zip": zip_of({})}
    card = card_with_index(f"{server.address}/list.txt")
    assert len(fetch(card, 2, progress)) == 2
    assert Counter(server.paths) == {"/list.txt": 1, "/a.zip": 1}


def test_a_card_without_addresses_says_how_its_recordings_are_obtained(progress: Progress) -> None:
    card = card_with(Source(file="a.zip"), obtain="ask the authors for a license")
    with pytest.raises(UserError) as caught:
        fetch(card, 1, progress)
    assert "ask the authors for a license" in in_one_line(caught)
    with pytest.raises(UserError) as caught:
        fetch(card.model_copy(update={"obtain": ""}), 1, progress)
    assert "bench tasks show esc10" in in_one_line(caught)


# --- failures ---------------------------------------------------------------------------------------------


def test_a_failure_does_not_stop_the_others_and_is_told_with_its_reason(
    four: TaskCard, server: Server, progress: Progress, cache: Path
) -> None:
    del server.more["/b.zip"]
    with pytest.raises(UserError) as caught:
        fetch(four, 1, progress)
    said = in_one_line(caught)
    assert "1 of 4 files could not be fetched" in said
    assert f"b.zip: {server.address}/b.zip could not be fetched (the server answered 404)" in said
    assert "the same command" in said
    assert set(finished(cache)) == {"a.zip", "c.zip", "d.zip"}


def test_after_a_failure_only_the_missing_file_is_asked_for(
    four: TaskCard, server: Server, progress: Progress
) -> None:
    del server.more["/b.zip"]
    with pytest.raises(UserError):
        fetch(four, 4, progress)
    server.more["/b.zip"] = FILES["/b.zip"]
    server.paths.clear()
    assert [path.read_bytes() for path in fetch(four, 4, progress)] == list(FILES.values())
    assert server.paths == ["/b.zip"]


def test_of_many_failures_some_are_named_and_all_are_counted(
    server: Server, progress: Progress
) -> None:
    names = [f"gone-{number}.zip" for number in range(NAMED + 3)]
    card = card_with(*(Source(file=name, url=f"{server.address}/{name}") for name in names))
    with pytest.raises(UserError) as caught:
        fetch(card, 4, progress)
    said = in_one_line(caught)
    assert f"{NAMED + 3} of {NAMED + 3} files" in said
    assert sum(f"{name}: " in said for name in names) == NAMED
    assert "and 3 more" in said
    assert ".;" not in said


def test_a_list_that_cannot_be_fetched_is_said_and_nothing_else_is_asked_for(
    server: Server, progress: Progress
) -> None:
    card = card_with_index(f"{server.address}/list.txt", server.source())
    with pytest.raises(UserError, match="answered 404"):
        fetch(card, 1, progress)
    assert server.paths == ["/list.txt"]


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("file", ["U.tar.gz", "U.zip", "U.tar", "U.tar.xz"])
def test_a_page_in_an_archives_place_is_neither_kept_nor_pinned_and_asked_for_again(
    file: str, pinned: bool, server: Server, progress: Progress, cache: Path
) -> None:
    server.content = LOG_IN
    card = card_with(server.source(file=file, pinned=pinned))
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            fetch(card, 1, progress)
        said = in_one_line(caught)
        assert f"{server.url} sent no archive for {file}" in said
        assert "bench data prepare TASK --from FILE" in said
        assert finished(cache) == {}
        assert checksum_pins.read() == {}
    assert len(server.asked) == 2


def test_a_page_that_an_earlier_fetch_kept_is_not_taken_for_the_archive(
    server: Server, progress: Progress
) -> None:
    card = card_with(server.source())
    [each] = downloads(card)
    each.path.parent.mkdir(parents=True)
    each.path.write_bytes(LOG_IN)
    with pytest.raises(UserError, match="sent no archive"):
        fetch(card, 1, progress)
    assert [path.read_bytes() for path in fetch(card, 1, progress)] == [CONTENT]


def test_an_archive_that_breaks_off_in_its_first_block_is_no_archive(
    server: Server, progress: Progress, cache: Path
) -> None:
    server.content = gzip.compress(bytes(1024))[:15]
    with pytest.raises(UserError, match="sent no archive"):
        fetch(card_with(server.source(file="a.tar.gz")), 1, progress)
    assert finished(cache) == {}


@pytest.mark.parametrize("content", [LOG_IN, b"\xef\xbb\xbf\r\n <HTML lang='en'>"])
def test_a_page_in_the_place_of_a_list_is_neither_kept_nor_pinned(
    content: bytes, server: Server, progress: Progress, cache: Path
) -> None:
    server.content = content
    with pytest.raises(UserError, match=r"sent instead of labels\.csv perhaps a login page"):
        fetch(card_with(server.source(file="labels.csv")), 1, progress)
    assert finished(cache) == {}
    assert checksum_pins.read() == {}


def test_what_is_no_archive_by_its_name_may_hold_anything(
    server: Server, progress: Progress
) -> None:
    server.content = LOG_IN
    [path] = fetch(card_with(server.source(file="about.html")), 1, progress)
    assert path.read_bytes() == LOG_IN


# --- once -------------------------------------------------------------------------------------------------


def test_nothing_is_fetched_twice(four: TaskCard, server: Server, progress: Progress) -> None:
    first = fetch(four, 4, progress)
    assert fetch(four, 4, progress) == first
    assert Counter(server.paths) == dict.fromkeys(FILES, 1)


def test_an_archive_that_was_unpacked_and_deleted_is_not_fetched_again(
    server: Server, progress: Progress
) -> None:
    server.content = zip_of({"a.txt": b"a"})
    card = card_with(server.source())
    [archive] = fetch(card, 1, progress)
    folder = unpack(archive, hashlib.sha256(server.content).hexdigest())
    archive.unlink()
    assert fetch(card, 1, progress) == [folder]
    assert len(server.asked) == 1


def test_an_archive_that_was_deleted_before_it_was_unpacked_is_fetched_again(
    server: Server, progress: Progress
) -> None:
    card = card_with(server.source())
    for _ in range(2):
        [archive] = fetch(card, 1, progress)
        archive.unlink()
    assert len(server.asked) == 2


# --- stopped ----------------------------------------------------------------------------------------------


class Watched(Progress):
    """Lets the server go on, with bytes that nobody waits for, once it is stopped."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.ended = threading.Event()

    def stop(self) -> None:
        super().stop()
        self.ended.set()


@pytest.fixture
def half_way(server: Server) -> tuple[Watched, threading.Event, TaskCard]:
    """A download that hangs after its first bytes until it is stopped, and the event of their coming."""
    progress, came = Watched(), threading.Event()

    def hang() -> None:
        came.set()
        progress.ended.wait(60)

    server.meanwhile = hang
    server.more = {"/b.zip": OTHER}
    second = server.source(file="b.zip", url=f"{server.address}/b.zip")
    return progress, came, card_with(server.source(), second)


def goes_on(card: TaskCard, server: Server, cache: Path) -> None:
    """Half a file is hidden, and fetching again gets the rest of it and the other file."""
    assert finished(cache) == {}
    [half] = (cache / "downloads").rglob("*.part")
    kept = half.stat().st_size
    assert 0 < kept < len(CONTENT)
    server.meanwhile = lambda: None
    server.asked.clear()
    server.paths.clear()
    fetch(card, 1, Progress(quiet=True))
    assert dict(zip(server.paths, server.asked, strict=True)) == {
        "/sounds.zip": f"bytes={kept}-",
        "/b.zip": None,
    }
    assert finished(cache) == {"a.zip": CONTENT, "b.zip": OTHER}


def test_an_interrupted_fetch_ends_keeps_what_came_and_goes_on_from_there(
    half_way: tuple[Watched, threading.Event, TaskCard],
    server: Server,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    progress, came, card = half_way

    def interrupted(waiting: Mapping[object, object]) -> tuple[()]:
        assert came.wait(60)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "as_completed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(card, 1, progress)
    assert server.paths == ["/sounds.zip"]
    goes_on(card, server, cache)


def test_a_fetch_that_another_thread_stops_says_so_keeps_what_came_and_goes_on_from_there(
    half_way: tuple[Watched, threading.Event, TaskCard], server: Server, cache: Path
) -> None:
    progress, came, card = half_way

    def stop() -> None:
        assert came.wait(60)
        progress.stop()

    other = threading.Thread(target=stop)
    other.start()
    with pytest.raises(Stopped):
        fetch(card, 1, progress)
    other.join()
    goes_on(card, server, cache)


def test_a_pause_between_two_tries_ends_with_the_fetch(server: Server) -> None:
    class StopsInThePause(Progress):
        def pause(self, seconds: float) -> None:
            assert seconds == 60
            self.stop()
            super().pause(seconds)

    server.headers["Retry-After"] = "60"
    server.faults = ["503"] * 2
    with pytest.raises(Stopped):
        fetch(card_with(server.source()), 1, StopsInThePause(quiet=True))
    assert len(server.asked) == 1


def test_a_half_file_never_stands_under_the_final_name(
    server: Server, progress: Progress, cache: Path
) -> None:
    seen: list[dict[str, bytes]] = []
    server.meanwhile = lambda: seen.append(finished(cache))
    fetch(card_with(server.source()), 1, progress)
    assert seen == [{}]
    assert len(CONTENT) > HALF, "or there is no meanwhile"
    assert finished(cache) == {"a.zip": CONTENT}


def test_what_is_left_to_fetch_is_known_before_and_after(
    four: TaskCard, server: Server, progress: Progress
) -> None:
    del server.more["/b.zip"]
    assert not any(each.is_here() for each in downloads(four))
    with pytest.raises(UserError):
        fetch(four, 2, progress)
    assert [each.is_here() for each in downloads(four)] == [True, False, True, True]
