"""One file over HTTP: gone on with after a break, tried again with growing pauses, from its mirrors in turn, and checked.

What came so far lies beside the file under a hidden name, with the server's mark of its version (RFC 9110: ETag or
Last-Modified), and outlasts a kill. The file itself appears whole or not at all.
"""

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import requests
import urllib3
from filelock import FileLock, Timeout

from lape_bench.core.errors import UserError, writing
from lape_bench.core.paths import digest, sha256, write_text
from lape_bench.core.progress import Running
from lape_bench.data.sources import checksum_pins
from lape_bench.task import Source

TIMEOUT_SECONDS = 30.0  # without a byte
TRIES = 5  # of an address, each after one that brought nothing new
FIRST_PAUSE_SECONDS = 1.0  # doubled after each try
LONGEST_PAUSE_SECONDS = 60.0
PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers that another try may better
WHOLE, PART, NOTHING_MORE = 200, 206, 416
CHUNK = 1 << 16
# Another try would end the same way.
HOPELESS = (
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.SSLError,
    requests.exceptions.TooManyRedirects,
)


class _BrokenOff(Exception):
    """A try that ended early, for a reason that may pass."""

    def __init__(self, reason: str, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause  # seconds the server asks for


class _Refused(Exception):
    """An address that does not have the file."""


class _AnotherFile(_Refused):
    """An address that has another file than the card or the pin names."""


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
        UserError: no address has the card's file, or the connection keeps breaking off.
    """
    assert source.url is not None
    if path.is_file() and _is_the_cards(path, source):
        running.resume_at(path.stat().st_size)
        return
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        _wait_for(lock, running)
        try:
            if not path.is_file() or not _is_the_cards(path, source):
                _from_any_address(source, path, running, sleep)
        finally:
            lock.release()


def _wait_for(lock: FileLock, running: Running) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        running.note(waiting="another process downloads it")
        while not lock.is_locked:
            running.advance(0)  # ends here once it is stopped
            with suppress(Timeout):
                lock.acquire(timeout=1)
        running.notes.clear()


def _from_any_address(
    source: Source, path: Path, running: Running, sleep: Callable[[float], None]
) -> None:
    part = _Part(path)
    if (
        _has_checksum(source) and part.size and _is_the_cards(part.path, source)
    ):  # killed at the very end
        part.becomes(path)
        return
    addresses = [url for url in (source.url, *source.mirrors) if url is not None]
    said: list[str] = []
    next_step = (
        "check the connection, or get the file by other means and give it to "
        "'bench data prepare TASK --from FILE'"
    )
    for url in addresses:
        try:
            _from_address(url, source, part, running, sleep)
            if part.pieced and not _is_the_cards(part.path, source):
                part.drop()  # one of the pieces may be at fault
                _from_address(url, source, part, running, sleep)
            if not _is_the_cards(part.path, source):
                part.drop()
                claim = checksum_pins.claim(source.url, source.sha256)
                raise _AnotherFile(f"it is not the file {claim}: size or checksum differ")
        except (_BrokenOff, _Refused) as error:
            said.append(f"{url} could not be fetched ({error})")
            if isinstance(error, _AnotherFile) and str(checksum_pins.lock_file()) in str(error):
                next_step = f"if the new file is right, remove the line of {source.url} there"
        else:
            part.becomes(path)
            return
    kept = ""
    if part.size and (_has_checksum(source) or any(part.mark(url) for url in addresses)):
        kept = f"; {part.size:,} bytes are kept, and the same command goes on from there"
    raise UserError("; ".join(said) + kept, next_step=next_step)


def part_of(whole: Path) -> Path:
    """Return where the bytes lie that came so far of a file."""
    return whole.with_name(f".{whole.name}.part")


class _Part:
    """What came so far of a file that will be at `whole`, and notes on where it came from.

    Attributes:
        path: the bytes.
        pieced: whether this process went on with bytes that came earlier.
    """

    def __init__(self, whole: Path) -> None:
        self.path = part_of(whole)
        self._notes = whole.with_name(f".{whole.name}.part.json")
        self.pieced = False

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def mark(self, url: str) -> str | None:
        """Return the server's mark of the version that came from `url`, if it gave one."""
        noted = self._noted()
        mark = noted.get("mark")
        return mark if noted.get("url") == url and isinstance(mark, str) else None

    @property
    def total(self) -> int | None:
        """Bytes of the whole file, as its server said at first."""
        total = self._noted().get("total")
        return total if isinstance(total, int) else None

    def _noted(self) -> dict[str, Any]:
        try:
            noted = json.loads(self._notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def start(self, url: str, mark: str | None, total: int | None) -> None:
        """Forget what came, and note where the next bytes come from."""
        self.drop()
        write_text(self._notes, json.dumps({"url": url, "mark": mark, "total": total}))

    def drop(self) -> None:
        """Forget what came."""
        self.pieced = False
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
    pause, tries, most = FIRST_PAUSE_SECONDS, TRIES, part.size
    while True:
        try:
            _one_try(url, source, part, running)
        except _BrokenOff as error:
            if part.size > most:  # something new: it is worth going on
                pause, tries, most = FIRST_PAUSE_SECONDS, TRIES, part.size
            else:
                tries -= 1
            if not tries:
                raise
            wait = min(pause if error.pause is None else error.pause, LONGEST_PAUSE_SECONDS)
            running.note(waiting=f"{wait:.0f} s, {error}")
            sleep(wait)
            running.notes.pop("waiting")
            pause *= 2
        else:
            return


def _one_try(url: str, source: Source, part: _Part, running: Running) -> None:
    """Ask for what is missing, and write what comes."""
    headers = {"Accept-Encoding": "identity"}  # the file's own bytes, and their number
    mark = part.mark(url)
    if part.size and (
        mark or _has_checksum(source)
    ):  # without a mark the checksum tells in the end
        headers["Range"] = f"bytes={part.size}-"
        if mark:
            headers["If-Range"] = mark
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS)
    except HOPELESS as error:
        raise _Refused(_reason(error)) from error
    except requests.RequestException as error:
        raise _BrokenOff(_reason(error)) from error
    except (ValueError, OSError) as error:  # a redirect to no address, certificates not there
        raise _Refused(str(error)) from error
    with response:
        _receive(response, url, source, part, running)


def _receive(
    response: requests.Response, url: str, source: Source, part: _Part, running: Running
) -> None:
    """Judge an answer, and write its bytes to the part."""
    status = response.status_code
    if status in PASSING:
        pause = _asked_pause(response.headers.get("Retry-After"))
        raise _BrokenOff(f"the server answered {status}", pause)
    if status == NOTHING_MORE:
        whole = response.headers.get("Content-Range") == f"bytes */{part.size}"
        if not whole:
            part.drop()
            raise _BrokenOff("the server has less than what came before")
        return
    if status not in (WHOLE, PART):
        raise _Refused(f"the server answered {status}")
    if response.headers.get("Content-Encoding", "identity") != "identity" and not _has_checksum(
        source
    ):
        raise _Refused("the server sends it compressed, and no checksum would tell the file by")
    total: int | None
    if status == PART:
        total = _total_of_part(response, url, part)
    else:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
    if None not in (total, source.bytes) and total != source.bytes:
        # What came before is kept: the answer may be another page than the file.
        claim = checksum_pins.claim(source.url, source.sha256)
        raise _AnotherFile(f"it holds {total:,} bytes, but {claim} {source.bytes:,}")
    total = source.bytes if total is None else total
    if status == WHOLE:
        part.start(url, _mark(response), total)
    running.total = total
    running.resume_at(part.size)
    part.pieced = part.size > 0
    with part.path.open("ab") as file:
        try:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                file.write(chunk)
                running.advance(len(chunk))
        except urllib3.exceptions.HTTPError as error:
            raise _BrokenOff(_reason(error)) from error
    if total is not None and part.size != total:
        raise _BrokenOff(f"{part.size:,} of {total:,} bytes came")
    if not part.size:
        part.drop()
        raise _Refused("it is empty")


def _total_of_part(response: requests.Response, url: str, part: _Part) -> int:
    """Read the size of the whole file off an answer that goes on with it.

    Raises:
        _BrokenOff: it does not go on where the part ends, or is of another version; the part is dropped.
    """
    sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    mark = part.mark(url)
    of_version = mark in (None, response.headers.get("ETag"), response.headers.get("Last-Modified"))
    total = None
    if sent is not None and int(sent[1]) == part.size and of_version:
        total = int(sent[2]) if sent[2] != "*" else part.total
    if total is None:
        part.drop()
        raise _BrokenOff("the server sent another part of the file than was asked for")
    return total


def _mark(response: requests.Response) -> str | None:
    """Return what tells this version of the file from another, byte by byte."""
    tag = response.headers.get("ETag")
    if tag is None:
        return response.headers.get("Last-Modified")
    return None if tag.startswith("W/") else tag  # a weak one may stand for other bytes


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


def _has_checksum(source: Source) -> bool:
    return bool(source.sha256 or source.md5)


def _is_the_cards(path: Path, source: Source) -> bool:
    """Tell whether a file has the card's size and checksum, as far as the card knows them."""
    if source.bytes is not None and path.stat().st_size != source.bytes:
        return False
    if source.sha256 is not None:
        return sha256(path) == source.sha256
    return source.md5 is None or digest(path, "md5") == source.md5


def _reason(error: Exception) -> str:
    """Say in words why a request failed; the first kind that fits counts."""
    kinds: list[tuple[type[Exception], str]] = [
        (requests.exceptions.SSLError, "its certificate is not trusted"),
        (requests.exceptions.ProxyError, "the proxy does not answer"),
        (requests.exceptions.TooManyRedirects, "it redirects without end"),
        (requests.Timeout, f"no answer within {TIMEOUT_SECONDS:.0f} s"),
        (urllib3.exceptions.TimeoutError, f"no byte within {TIMEOUT_SECONDS:.0f} s"),
        (requests.ConnectionError, "no connection to the server"),
        (ValueError, "it is no address of a file on the web"),
    ]
    return next(
        (words for kind, words in kinds if isinstance(error, kind)), "the connection broke off"
    )
