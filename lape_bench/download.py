"""One file over HTTP: gone on with after a break, tried again with growing pauses, from its mirrors in turn, and checked.

What came so far lies beside the file under a hidden name, with the server's mark of its version (RFC 9110: ETag or
Last-Modified), and outlasts a kill. The file itself appears whole or not at all.
"""

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import requests
import urllib3
from filelock import FileLock

from lape_bench.errors import UserError, writing
from lape_bench.paths import sha256, write_text
from lape_bench.progress import Running
from lape_bench.task import Source

TIMEOUT_SECONDS = 30.0  # without a byte
TRIES = 5  # of an address, each after one that brought nothing new
FIRST_PAUSE_SECONDS = 1.0  # doubled after each try
LONGEST_PAUSE_SECONDS = 60.0
PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that another try may better
CHUNK = 1 << 16


class _BrokenOff(Exception):
    """A try that ended early, for a reason that may pass."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause  # seconds the server asks for


class _Refused(Exception):
    """An address that does not have the file."""


def download(
    source: Source,
    path: Path,
    running: Running,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Download a source to `path`; what is there already, and is the card's, is not fetched again.

    Args:
        source: a source with a url.
        path: where the file goes.
        running: told of each piece.
        sleep: waits so many seconds before another try.

    Raises:
        UserError: no address has the file, the connection keeps breaking off, or the file is not the card's.
    """
    assert source.url is not None
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.is_file() and _is_the_cards(path, source):
                running.resume_at(path.stat().st_size)
                return
            part = _Part(path)
            said: list[str] = []
            for url in (source.url, *source.mirrors):
                try:
                    _from_address(url, source, part, running, sleep)
                except (_BrokenOff, _Refused) as error:
                    said.append(f"{url} could not be fetched ({error})")
                    continue
                try:
                    _check(part.path, source, url)
                except UserError:
                    part.drop()
                    raise
                part.becomes(path)
                return
    kept = f"; {part.size:,} bytes are kept, and the same command goes on from there" * (
        part.size > 0
    )
    raise UserError(
        "; ".join(said) + kept,
        next_step="check the connection, or get the file by other means and give it to "
        "'bench data prepare TASK --from FILE'",
    )


@dataclass
class _Part:
    """What came so far of a file that will be at `whole`."""

    whole: Path

    @property
    def path(self) -> Path:
        return self.whole.with_name(f".{self.whole.name}.part")

    @property
    def _notes(self) -> Path:
        return self.whole.with_name(f".{self.whole.name}.part.json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def mark(self, url: str) -> str | None:
        """Return the server's mark of the version that came from `url`, if it gave one."""
        try:
            notes = json.loads(self._notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        mark = notes.get("mark")
        return mark if notes.get("url") == url and isinstance(mark, str) else None

    def start(self, url: str, mark: str | None) -> None:
        """Forget what came, and note where the next bytes come from."""
        self.drop()
        write_text(self._notes, json.dumps({"url": url, "mark": mark}))

    def drop(self) -> None:
        """Forget what came."""
        for path in (self.path, self._notes):
            path.unlink(missing_ok=True)

    def becomes(self, path: Path) -> None:
        """Put the whole file in its place."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(path)
        self.drop()


def _from_address(
    url: str, source: Source, part: _Part, running: Running, sleep: Callable[[float], None]
) -> None:
    """Bring the part to its full size from one address."""
    pause, tries = FIRST_PAUSE_SECONDS, TRIES
    while True:
        before = part.size
        try:
            _one_try(url, source, part, running)
        except _BrokenOff as error:
            came = part.size > before  # something new: it is worth going on
            tries = TRIES if came else tries - 1
            pause = FIRST_PAUSE_SECONDS if came else pause
            if not tries:
                raise
            running.note(waiting=f"{error.pause or pause:.0f} s, {error}")
            sleep(min(error.pause or pause, LONGEST_PAUSE_SECONDS))
            pause *= 2
        else:
            return


def _one_try(url: str, source: Source, part: _Part, running: Running) -> None:
    """Ask for what is missing, and write what comes."""
    headers = {"Accept-Encoding": "identity"}  # the file's own bytes, and their number
    offset, mark = part.size, part.mark(url)
    if offset and (mark or source.sha256):  # without a mark the checksum tells in the end
        headers["Range"] = f"bytes={offset}-"
        if mark:
            headers["If-Range"] = mark
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                part.drop()  # longer than the file is now
                raise _BrokenOff("the server's file is shorter than what came before")
            if response.status_code in PASSING:
                pause = _asked_pause(response.headers.get("Retry-After"))
                raise _BrokenOff(f"the server answered {response.status_code}", pause)
            if not response.ok:
                raise _Refused(f"the server answered {response.status_code}")
            total = _total(response, offset)
            if response.status_code != requests.codes.partial_content:
                part.start(url, _mark(response))
                offset = 0
            _refuse_another_size(total, source, url, part)
            running.total = total
            running.resume_at(offset)
            with part.path.open("ab") as file:
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    file.write(chunk)
                    running.advance(len(chunk))
            if total is not None and part.size != total:
                raise _BrokenOff(f"{part.size:,} of {total:,} bytes came")
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _BrokenOff(_reason(error)) from error


def _total(response: requests.Response, offset: int) -> int | None:
    """Read the size of the whole file off an answer.

    Raises:
        _BrokenOff: a part was sent that does not go on where ours ends.
    """
    if response.status_code != requests.codes.partial_content:
        length = response.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if sent is None or int(sent[1]) != offset:
        raise _Refused("the server sent another part of the file than was asked for")
    return int(sent[2]) if sent[2] != "*" else None


def _mark(response: requests.Response) -> str | None:
    """Return what tells this version of the file from another, byte by byte."""
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):  # a weak one may stand for other bytes
        return tag
    return response.headers.get("Last-Modified")


def _asked_pause(after: str | None) -> float | None:
    """Read Retry-After: seconds, or a date."""
    if after is None:
        return None
    if after.isdecimal():
        return float(after)
    try:
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    except ValueError:
        return None


def _refuse_another_size(total: int | None, source: Source, url: str, part: _Part) -> None:
    """Stop before gigabytes come that the card does not mean."""
    if total is not None and source.bytes is not None and total != source.bytes:
        part.drop()
        raise UserError(
            f"{url} holds {total:,} bytes, but the card names {source.bytes:,} for {source.file}",
            next_step="the file was changed at its origin; get the card's by other means",
        )


def _is_the_cards(path: Path, source: Source) -> bool:
    """Tell whether a file has the card's size and checksum, as far as the card knows them."""
    if source.bytes is not None and path.stat().st_size != source.bytes:
        return False
    return source.sha256 is None or sha256(path) == source.sha256


def _check(path: Path, source: Source, url: str) -> None:
    if not _is_the_cards(path, source):
        raise UserError(
            f"{url} is not the file the card names (its size or its SHA-256 differs); nothing was kept",
            next_step="try again; if it stays so, the file was changed at its origin",
        )


def _reason(error: Exception) -> str:
    if isinstance(error, (requests.Timeout, urllib3.exceptions.TimeoutError)):
        return f"no answer within {TIMEOUT_SECONDS:.0f} s"
    if isinstance(
        error, requests.exceptions.ChunkedEncodingError | urllib3.exceptions.ProtocolError
    ):
        return "the connection broke off"
    if isinstance(error, requests.ConnectionError):
        return "no connection to the server"
    return f"the connection broke off: {type(error).__name__}"
