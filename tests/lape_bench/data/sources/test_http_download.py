"""Downloads of one file: whole, broken off, refused, from mirrors."""

import hashlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
from filelock import FileLock

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress, Running, Stopped
from lape_bench.data.sources import http_download as module
from lape_bench.data.sources.http_download import TRIES, download
from lape_bench.task import Source
from tests.lape_bench.http_server import CONTENT, HALF, OTHER, Server, sha256

MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def running(progress: Progress) -> Iterator[Running]:
    with progress.task("fetching", None, "bytes") as task:
        yield task


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "downloads" / "a.zip"


def files(path: Path) -> set[str]:
    """Names beside the download, its lock left out."""
    return {each.name for each in path.parent.iterdir() if not each.name.endswith(".lock")}


def get(source: Source, path: Path, running: Running) -> list[float]:
    """Download and return the pauses that were made."""
    pauses: list[float] = []
    download(source, path, running, pauses.append)
    return pauses


def refused(source: Source, path: Path, running: Running) -> str:
    with pytest.raises(UserError) as caught:
        get(source, path, running)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what comes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "known", [{}, {"sha256": sha256(CONTENT), "bytes": len(CONTENT)}, {"md5": MD5}]
)
def test_a_downloaded_file_holds_the_servers_bytes_and_nothing_lies_beside_it(
    known: dict[str, object], server: Server, path: Path, running: Running
) -> None:
    assert get(server.source(**known), path, running) == []
    assert path.read_bytes() == CONTENT
    assert files(path) == {"a.zip"}
    assert (running.done, running.total) == (len(CONTENT), len(CONTENT))


@pytest.mark.parametrize("known", [{}, {"sha256": sha256(CONTENT)}, {"bytes": len(CONTENT)}])
def test_what_is_there_is_not_downloaded_again(
    known: dict[str, object], server: Server, path: Path, running: Running
) -> None:
    for _ in range(2):
        get(server.source(**known), path, running)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "known", [{"sha256": sha256(CONTENT)}, {"bytes": len(CONTENT)}, {"md5": MD5}]
)
def test_a_file_that_is_not_the_cards_is_downloaded_again(
    known: dict[str, object], server: Server, path: Path, running: Running
) -> None:
    path.parent.mkdir()
    path.write_bytes(b"half")
    get(server.source(**known), path, running)
    assert path.read_bytes() == CONTENT


def test_a_server_that_tells_no_size_is_believed_to_the_end(
    server: Server, path: Path, running: Running
) -> None:
    server.faults = ["no length"]
    get(server.source(bytes=len(CONTENT)), path, running)
    assert path.read_bytes() == CONTENT


# --- breaks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["ETag", "Last-Modified"])
def test_a_broken_download_goes_on_where_it_broke_off(
    mark: str, server: Server, path: Path, running: Running
) -> None:
    server.headers = {"ETag": '"one"'} if mark == "ETag" else {mark: formatdate(0, usegmt=True)}
    server.faults = ["breaks off", "breaks off"]
    assert get(server.source(), path, running) == [1.0, 1.0]
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={HALF}-", f"bytes={2 * HALF}-"]
    assert running.done == len(CONTENT)


def test_a_stalled_download_goes_on(
    server: Server, path: Path, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.3)
    server.faults = ["stalls"]
    get(server.source(), path, running)
    assert path.read_bytes() == CONTENT
    # Less than a chunk may be lost with the connection.
    assert server.asked == [None, f"bytes={HALF // module.CHUNK * module.CHUNK}-"]


KILLED = """
import os, sys
from pathlib import Path
from lape_bench.data.sources import http_download
from lape_bench.core.progress import Progress
from lape_bench.task import Source

class Dies:
    total = None
    def resume_at(self, done): pass
    def advance(self, count):
        self.came = getattr(self, "came", 0) + count
        if self.came >= 150_000:
            os._exit(9)

http_download.download(Source(file="a.zip", url=sys.argv[1]), Path(sys.argv[2]), Dies())
"""


def test_a_killed_download_goes_on_in_another_process(
    server: Server, path: Path, running: Running
) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, server.url, str(path)], check=False)
    assert done.returncode == 9
    assert not path.exists()
    get(server.source(), path, running)
    assert path.read_bytes() == CONTENT
    [first, second] = server.asked
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").removesuffix("-")) > 0


def test_a_file_that_changed_in_between_starts_anew(
    server: Server, path: Path, running: Running
) -> None:
    def changes(_: float) -> None:
        server.content, server.headers = OTHER, {"ETag": '"two"'}

    server.faults = ["breaks off"]
    download(server.source(), path, running, changes)
    assert path.read_bytes() == OTHER


@pytest.mark.parametrize("headers", [{}, {"ETag": 'W/"weak"'}], ids=["no mark", "weak mark"])
@pytest.mark.parametrize(
    "known", [{"sha256": sha256(CONTENT)}, {"md5": MD5}], ids=["SHA-256", "MD5"]
)
def test_without_a_mark_only_a_checksum_lets_a_download_go_on(
    headers: dict[str, str], known: dict[str, str], server: Server, path: Path, running: Running
) -> None:
    server.headers, server.faults = headers, ["breaks off"]
    get(server.source(**known), path, running)
    assert server.asked == [None, f"bytes={HALF}-"]
    path.unlink()
    server.asked.clear()
    server.faults = ["breaks off"]
    get(server.source(), path, running)
    assert server.asked == [None, None]
    assert path.read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_is_taken_from_the_start(
    server: Server, path: Path, running: Running
) -> None:
    server.ranges, server.faults = False, ["breaks off"]
    get(server.source(), path, running)
    assert path.read_bytes() == CONTENT
    assert running.done == len(CONTENT)


def test_a_file_that_became_shorter_than_what_came_starts_anew(
    server: Server, path: Path, running: Running
) -> None:
    def shrinks(_: float) -> None:
        server.content = CONTENT[: HALF // 2]

    server.faults = ["breaks off"]
    download(server.source(), path, running, shrinks)
    assert path.read_bytes() == CONTENT[: HALF // 2]


# --- answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["429", "500", "503"])
def test_a_passing_refusal_is_tried_again_after_growing_pauses(
    answer: str, server: Server, path: Path, running: Running
) -> None:
    server.faults = [answer] * 3
    assert get(server.source(), path, running) == [0.0, 2.0, 4.0]
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(("asked", "waited"), [("7", 7.0), ("4000", 60.0), ("soon", 0.0)])
def test_the_pause_that_a_server_asks_for_is_made_up_to_a_minute(
    asked: str, waited: float, server: Server, path: Path, running: Running
) -> None:
    server.headers["Retry-After"] = asked
    server.faults = ["429"]
    assert get(server.source(), path, running) == [waited]


def test_a_pause_until_a_date_is_made(server: Server, path: Path, running: Running) -> None:
    server.headers["Retry-After"] = formatdate(time.time() + 30, usegmt=True)
    server.faults = ["503"]
    assert get(server.source(), path, running) == [pytest.approx(30, abs=5)]


def test_a_server_that_keeps_failing_is_left_after_some_tries(
    server: Server, path: Path, running: Running
) -> None:
    server.faults = ["500"] * 100
    assert "the server answered 500" in refused(server.source(), path, running)
    assert len(server.asked) == TRIES
    assert files(path) == set()


def test_tries_are_counted_from_the_last_byte_that_came(
    server: Server, path: Path, running: Running
) -> None:
    server.faults = ["500"] * (TRIES - 1) + ["breaks off"] + ["500"] * (TRIES - 1)
    get(server.source(), path, running)
    assert path.read_bytes() == CONTENT


def test_what_came_is_kept_where_a_server_fails_for_good_and_said(
    server: Server, path: Path, running: Running
) -> None:
    server.faults = ["breaks off"] + ["500"] * TRIES
    assert f"{HALF:,} bytes are kept" in refused(server.source(), path, running)
    get(server.source(), path, running)
    assert path.read_bytes() == CONTENT
    assert server.asked[-1] == f"bytes={HALF}-"


@pytest.mark.parametrize("fault", ["elsewhere", "no range", "other mark"])
def test_another_part_than_was_asked_for_is_dropped_and_all_of_it_asked_for(
    fault: str, server: Server, path: Path, running: Running
) -> None:
    server.faults = ["breaks off", fault]
    get(server.source(), path, running)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={HALF}-", None]


def test_a_part_of_a_file_of_untold_size_goes_on_to_the_size_told_at_first(
    server: Server, path: Path, running: Running
) -> None:
    server.faults = ["breaks off", "short part", "short part"]
    get(server.source(), path, running)
    assert path.read_bytes() == CONTENT


def test_a_server_that_never_lets_a_download_go_on_is_left_in_the_end(
    server: Server, path: Path, running: Running
) -> None:
    server.headers, server.faults = {}, ["breaks off", "breaks early"] * 100
    refused(server.source(), path, running)
    assert len(server.asked) <= 2 * TRIES


@pytest.mark.parametrize("answer", ["202", "204", "304", "403", "200"])
def test_an_answer_without_the_file_is_no_file(
    answer: str, server: Server, path: Path, running: Running
) -> None:
    server.faults = [answer]
    refused(server.source(), path, running)
    assert files(path) == set()


def test_a_compressed_answer_is_refused_where_no_checksum_would_tell(
    server: Server, path: Path, running: Running
) -> None:
    server.headers["Content-Encoding"] = "gzip"
    assert "compressed" in refused(server.source(), path, running)
    get(server.source(sha256=sha256(CONTENT)), path, running)
    assert path.read_bytes() == CONTENT


def test_a_whole_part_left_by_a_kill_is_not_downloaded_again(
    server: Server, path: Path, running: Running
) -> None:
    def left() -> None:
        path.unlink(missing_ok=True)
        server.faults = ["breaks off"] + ["500"] * TRIES
        refused(server.source(), path, running)
        path.with_name(".a.zip.part").write_bytes(CONTENT)
        server.asked.clear()

    left()
    get(server.source(), path, running)  # the server says that there is no more
    assert (path.read_bytes(), server.asked) == (CONTENT, [f"bytes={len(CONTENT)}-"])
    left()
    get(server.source(sha256=sha256(CONTENT)), path, running)
    assert (path.read_bytes(), server.asked) == (CONTENT, [])
    assert files(path) == {"a.zip"}


def test_an_answer_of_another_size_does_not_cost_what_came(
    server: Server, path: Path, running: Running
) -> None:
    server.faults = ["breaks off"] + ["500"] * TRIES
    source = server.source(bytes=len(CONTENT))
    refused(source, path, running)
    server.content, server.headers = b"log in here", {}
    assert "but the card names" in refused(source, path, running)
    server.content, server.headers = CONTENT, {"ETag": '"one"'}
    get(source, path, running)
    assert server.asked[-1] == f"bytes={HALF}-"
    assert path.read_bytes() == CONTENT


def test_a_wrong_piece_is_found_by_the_checksum_and_all_of_it_asked_for(
    server: Server, path: Path, running: Running
) -> None:
    server.headers, server.faults = {}, ["breaks off"] + ["500"] * TRIES
    source = server.source(sha256=sha256(CONTENT))
    refused(source, path, running)
    path.with_name(".a.zip.part").write_bytes(OTHER[:HALF])
    get(source, path, running)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("known", [{}, {"bytes": len(CONTENT)}])
def test_a_file_of_unknown_length_that_ends_early_is_held_against_the_cards_size(
    known: dict[str, object], server: Server, path: Path, running: Running
) -> None:
    server.faults = ["no length, breaks off"]
    get(server.source(**known), path, running)
    assert path.stat().st_size == (len(CONTENT) if known else HALF)


@pytest.mark.parametrize("url", ["ftp://example.org/a.zip", "a.zip", "http://[::1/a.zip"])
def test_no_address_is_said_at_once(url: str, path: Path, running: Running) -> None:
    said = refused(Source(file="a.zip", url=url), path, running)
    assert "not the address of a file on the web" in said


def nobody_listens() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/sounds.zip"


@pytest.mark.parametrize(
    ("how", "reason", "tries"),
    [
        (lambda server: {"url": f"{server.address}/moved.zip"}, "answered 404", 1),
        (lambda server: {"url": nobody_listens()}, "no connection to the server", 0),
        (lambda server: {"bytes": 300_001}, "but the card names 300,001", 1),
        (lambda server: {"sha256": "0" * 64}, "not the file the card names", 1),
        (lambda server: {"md5": "0" * 32}, "not the file the card names", 1),
    ],
    ids=["404", "nobody listens", "another size", "another file", "another MD5"],
)
def test_a_download_that_cannot_succeed_says_why_and_keeps_nothing(
    how: Callable[[Server], dict[str, object]],
    reason: str,
    tries: int,
    server: Server,
    path: Path,
    running: Running,
) -> None:
    source = server.source(**how(server))
    said = refused(source, path, running)
    assert reason in said
    assert source.url is not None
    assert source.url in said
    assert files(path) == set()
    assert len(server.asked) == tries


def test_another_size_is_refused_before_its_bytes_come(
    server: Server, path: Path, running: Running
) -> None:
    refused(server.source(bytes=5), path, running)
    assert running.done == 0


# --- mirrors ----------------------------------------------------------------------------------------------


def test_mirrors_are_tried_in_turn(server: Server, path: Path, running: Running) -> None:
    moved = f"{server.address}/moved.zip"
    get(server.source(url=moved, mirrors=[nobody_listens(), server.url]), path, running)
    assert path.read_bytes() == CONTENT


def test_where_no_mirror_has_the_file_each_is_named(
    server: Server, path: Path, running: Running
) -> None:
    addresses = [f"{server.address}/{name}" for name in ("one", "two")]
    said = refused(server.source(url=addresses[0], mirrors=addresses[1:]), path, running)
    assert all(address in said for address in addresses)


def test_a_mirror_goes_on_with_what_came_from_another_where_a_checksum_will_tell(
    server: Server, path: Path, running: Running
) -> None:
    server.faults = ["breaks off"] + ["500"] * TRIES
    mirror = server.url.replace("127.0.0.1", "localhost")
    for known, expected in (({"sha256": sha256(CONTENT)}, f"bytes={HALF}-"), ({}, None)):
        path.unlink(missing_ok=True)
        server.asked.clear()
        server.faults = ["breaks off"] + ["500"] * TRIES
        get(server.source(mirrors=[mirror], **known), path, running)
        assert path.read_bytes() == CONTENT
        assert server.asked[-1] == expected


# --- the disk ---------------------------------------------------------------------------------------------


def test_a_cache_that_cannot_be_written_is_said(
    server: Server, running: Running, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in refused(server.source(), tmp_path / "file" / "a.zip", running)


def test_two_processes_download_a_file_once(server: Server, path: Path, progress: Progress) -> None:
    def fetch() -> None:
        with progress.task("fetching", None, "bytes") as task:
            download(server.source(), path, task)

    threads = [threading.Thread(target=fetch) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_download_that_waits_for_another_process_can_be_stopped(
    server: Server, path: Path
) -> None:
    progress = Progress(quiet=True)
    path.parent.mkdir()
    with FileLock(path.with_name(".a.zip.lock")), progress.task("", None, "bytes") as running:
        progress.stop()
        with pytest.raises(Stopped):
            get(server.source(), path, running)
    assert server.asked == []
