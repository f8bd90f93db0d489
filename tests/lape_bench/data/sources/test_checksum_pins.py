"""Pins: what an address gave at first is what it must give later."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.data.sources import checksum_pins
from lape_bench.data.sources.archives import check_fetched, downloads
from lape_bench.data.sources.checksum_pins import Pin
from lape_bench.data.sources.fetch import fetch
from lape_bench.task import TaskCard
from tests.lape_bench.data.archives import card_with
from tests.lape_bench.http_server import CONTENT, OTHER, Server, sha256

URL = "http://one.example/a.zip"


def pin(letter: str, size: int = 5) -> Pin:
    return Pin(letter * 64, size)


def one_sentence(error: pytest.ExceptionInfo[UserError]) -> str:
    said = str(error.value)
    assert "\n" not in said
    assert ". " not in said
    return said


def path_of(card: TaskCard) -> Path:
    return downloads(card)[0].path


# --- the file ---------------------------------------------------------------------------------------------


def test_without_a_file_there_are_no_pins() -> None:
    assert checksum_pins.read() == {}


def test_a_pin_is_a_line_of_checksum_size_and_address(cache: Path) -> None:
    checksum_pins.add(URL, pin("a"))
    assert (cache / "sources.lock").read_text() == f"{'a' * 64}  5  {URL}\n"


@pytest.mark.parametrize("url", [URL, "http://one.example/Data set 1.zip"])
def test_an_address_is_pinned_once_and_for_all(url: str) -> None:
    for letter in "ab":
        checksum_pins.add(url, pin(letter))
    assert checksum_pins.read() == {url: pin("a")}


def test_of_two_lines_for_an_address_the_first_counts(cache: Path) -> None:
    cache.mkdir()
    checksum_pins.lock_file().write_text("".join(f"{letter * 64}  5  {URL}\n" for letter in "ab"))
    assert checksum_pins.read() == {URL: pin("a")}


def test_an_address_that_another_ends_with_is_pinned_too() -> None:
    for letter, url in (("a", f"http://mirror.example/?of={URL}"), ("b", URL)):
        checksum_pins.add(url, pin(letter))
    assert checksum_pins.read()[URL] == pin("b")


def test_a_file_without_a_last_line_end_is_added_to(cache: Path) -> None:
    cache.mkdir()
    checksum_pins.lock_file().write_text(f"{'a' * 64}  5  {URL}")
    for url in (URL, f"{URL}2"):
        checksum_pins.add(url, pin("b"))
    assert checksum_pins.read() == {URL: pin("a"), f"{URL}2": pin("b")}


@pytest.mark.parametrize(
    "line",
    ["", "a note", f"{'a' * 63}  5  {URL}", f"{'g' * 64}  5  {URL}", f"{'a' * 64}  five  {URL}",
     f"{'a' * 64}  5"],
    ids=["empty", "words", "short", "no hexadecimal", "no size", "no address"],
)  # fmt: skip
def test_a_damaged_line_is_named_by_file_and_number(line: str) -> None:
    checksum_pins.add(URL, pin("a"))
    with checksum_pins.lock_file().open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(UserError) as caught:
        checksum_pins.read()
    assert f"{checksum_pins.lock_file()}: line 2" in one_sentence(caught)


def test_threads_that_pin_at_once_lose_nothing() -> None:
    start = threading.Barrier(8)

    def add(letter: str) -> None:
        start.wait()
        for number in range(10):
            checksum_pins.add(f"{URL}/{letter}/{number}", pin(letter, number))

    threads = [threading.Thread(target=add, args=(letter,)) for letter in "abcdef01"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert checksum_pins.read() == {
        f"{URL}/{letter}/{number}": pin(letter, number)
        for letter in "abcdef01"
        for number in range(10)
    }


ADDS = """
import sys
from lape_bench.data.sources import checksum_pins
for number in range(100):
    checksum_pins.add(f"http://{sys.argv[1]}/{number}", checksum_pins.Pin(sys.argv[1] * 64, number))
    checksum_pins.add(f"http://shared/{number}", checksum_pins.Pin(sys.argv[1] * 64, number))
"""


def test_processes_that_pin_at_once_lose_nothing_and_pin_an_address_once() -> None:
    running = [subprocess.Popen([sys.executable, "-c", ADDS, letter]) for letter in "ab"]
    assert [process.wait() for process in running] == [0, 0]
    found = checksum_pins.read()
    for letter in "ab":
        assert all(found[f"http://{letter}/{n}"] == pin(letter, n) for n in range(100))
    assert len(checksum_pins.lock_file().read_text().splitlines()) == 300


# --- what is pinned, and held -----------------------------------------------------------------------------


def test_the_first_download_pins_its_checksum_and_size(server: Server, progress: Progress) -> None:
    fetch(card_with(server.source()), 1, progress)
    assert checksum_pins.read() == {server.url: Pin(sha256(CONTENT), len(CONTENT))}


@pytest.mark.parametrize("other", [OTHER, CONTENT[:-1]], ids=["other bytes", "another size"])
def test_another_file_at_a_pinned_address_is_refused_with_the_place_of_the_pin(
    other: bytes, server: Server, progress: Progress
) -> None:
    card = card_with(server.source())
    fetch(card, 1, progress)
    path_of(card).unlink()
    server.content = other
    with pytest.raises(UserError) as caught:
        fetch(card, 1, progress)
    said = one_sentence(caught)
    assert f"{server.url} could not be fetched" in said
    assert f"the first download, pinned in {checksum_pins.lock_file()}," in said
    assert f"remove the line of {server.url}" in said
    assert not path_of(card).exists()


def test_what_the_refusal_advises_lets_the_new_file_in(server: Server, progress: Progress) -> None:
    card = card_with(server.source())
    fetch(card, 1, progress)
    path_of(card).unlink()
    server.content, server.headers = OTHER, {"ETag": '"two"'}
    lines = checksum_pins.lock_file().read_text().splitlines(keepends=True)
    checksum_pins.lock_file().write_text("".join(line for line in lines if server.url not in line))
    fetch(card, 1, progress)
    assert path_of(card).read_bytes() == OTHER
    assert checksum_pins.read()[server.url].sha256 == sha256(OTHER)


def test_an_archive_that_its_server_makes_anew_is_never_pinned(
    server: Server, progress: Progress
) -> None:
    card = card_with(server.source(pinned=False))
    for content in (CONTENT, OTHER[1:]):
        server.content = content
        fetch(card, 1, progress)
        assert path_of(card).read_bytes() == content
        path_of(card).unlink()
    assert not checksum_pins.lock_file().exists()


def test_a_pin_of_another_card_does_not_hold_a_source_that_is_not_pinned(
    server: Server, progress: Progress
) -> None:
    checksum_pins.add(server.url, pin("a"))
    card = card_with(server.source(pinned=False))
    fetch(card, 1, progress)
    assert path_of(card).read_bytes() == CONTENT


def test_a_checksum_of_the_card_needs_no_pin_and_counts_more_than_one(
    server: Server, progress: Progress
) -> None:
    card = card_with(server.source(sha256=sha256(CONTENT)))
    fetch(card, 1, progress)
    assert not checksum_pins.lock_file().exists()
    checksum_pins.add(server.url, pin("a"))
    assert downloads(card)[0].source.sha256 == sha256(CONTENT)


def test_a_file_that_is_the_pinned_one_is_told_so_without_reading_all_pins_for_it(
    server: Server, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = card_with(*(server.source(file=f"{name}.zip") for name in "abcdef"))
    reads: list[int] = []
    read = checksum_pins.read
    monkeypatch.setattr(checksum_pins, "read", lambda: reads.append(1) or read())
    paths = fetch(card, 1, progress)
    assert len(reads) == 1
    found = downloads(card)
    reads.clear()
    assert [check_fetched(each) for each in found] == [sha256(CONTENT)] * 6
    assert reads == []
    paths[0].write_bytes(OTHER)
    with pytest.raises(UserError, match="pinned in"):
        check_fetched(found[0])


def test_a_lock_file_copied_to_another_cache_is_enforced_there(
    server: Server, progress: Progress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = card_with(server.source())
    fetch(card, 1, progress)
    text = checksum_pins.lock_file().read_text()
    monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "other"))
    server.content = OTHER
    fetch(card, 1, progress)  # nothing is known here yet
    checksum_pins.lock_file().write_text(text)
    with pytest.raises(UserError) as caught:
        fetch(card, 1, progress)
    assert str(tmp_path / "other" / "sources.lock") in one_sentence(caught)
