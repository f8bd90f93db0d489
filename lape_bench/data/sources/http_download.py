"""Download one file over HTTP, resume if the connection breaks, try mirrors in turn, and check the file.

urllib3 retries requests that get no answer or a temporary refusal. It does not resume a body that breaks off, so this
is done here. The partial file has a hidden name beside the file and is kept after a kill, together with the version
that the server gives (RFC 9110: ETag or Last-Modified). The file itself appears whole or not at all.
"""

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import requests
import urllib3
from filelock import FileLock, Timeout
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from lape_bench.core.errors import UserError, explain_write_errors
from lape_bench.core.paths import digest, sha256, write_text
from lape_bench.core.progress import Running
from lape_bench.data.sources import checksum_pins
from lape_bench.task import Source

TIMEOUT_SECONDS = 30.0  # seconds without a byte
TRIES = 5  # retries of a request, and of resuming after a try that brought no new bytes
BACKOFF_SECONDS = 1.0  # doubled with each retry
LONGEST_PAUSE_SECONDS = 60.0
PASSING = {408, 425, 429, 500, 502, 503, 504}  # status codes that may change after a pause
WHOLE, PART, NOTHING_MORE = 200, 206, 416
CHUNK = 1 << 16


class _BrokenOff(Exception):
    """A body ended early, for a reason that may be temporary."""


class _Refused(Exception):
    """An address does not have the file."""


class _AnotherFile(_Refused):
    """An address has another file than the one in the card or the pin."""


class _Retry(Retry):
    """Retries of urllib3, with pauses that are shown and that end if the download is stopped.

    Args:
        running: shows the pauses.
        pause: waits for a number of seconds.
        how: see `Retry`.
    """

    def __init__(self, running: Running, pause: Callable[[float], None], **how: Any) -> None:
        super().__init__(**how)
        self.running, self.pause = running, pause

    def new(self, **how: Any) -> Self:
        """See `Retry`."""
        return super().new(running=self.running, pause=self.pause, **how)

    def sleep(self, response: urllib3.BaseHTTPResponse | None = None) -> None:
        """Wait as long as the server asks, or longer with each retry."""
        seconds = None
        with suppress(urllib3.exceptions.InvalidHeader):
            seconds = self.get_retry_after(response) if response is not None else None
        if seconds is None:
            seconds = self.get_backoff_time()
        error = self.history[-1].error
        reason = _reason(error) if error else f"the server answered {self.history[-1].status}"
        _wait(min(seconds, LONGEST_PAUSE_SECONDS), reason, self.running, self.pause)


def _wait(seconds: float, reason: str, running: Running, pause: Callable[[float], None]) -> None:
    running.note(waiting=f"{seconds:.0f} s, {reason}")
    pause(seconds)
    running.notes.pop("waiting")


def download(
    source: Source,
    path: Path,
    running: Running,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Download a source to `path`, unless the file is already there with the right size and checksum.

    Args:
        source: a source with a url.
        path: path of the file.
        running: counts the bytes.
        pause: waits for a number of seconds before another try.

    Raises:
        UserError: no address has the card's file, or the connection keeps breaking off.
    """
    assert source.url is not None
    if path.is_file() and _is_the_cards(path, source):
        running.resume_at(path.stat().st_size)
        return
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        _wait_for(lock, running)
        try:
            if not path.is_file() or not _is_the_cards(path, source):
                with _session(running, pause) as session:
                    _from_any_address(session, source, path, running, pause)
        finally:
            lock.release()


def _wait_for(lock: FileLock, running: Running) -> None:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        running.note(waiting="waiting for another process that downloads it")
        while not lock.is_locked:
            running.advance(0)  # ends here once it is stopped
            with suppress(Timeout):
                lock.acquire(timeout=1)
        running.notes.clear()


def _session(running: Running, pause: Callable[[float], None]) -> requests.Session:
    """Return a session that retries requests after no answer or a temporary refusal."""
    retry = _Retry(
        running,
        pause,
        total=TRIES - 1,
        other=0,  # such as a certificate that is not trusted
        status_forcelist=PASSING,
        raise_on_status=False,  # the last answer is handled like others
        backoff_factor=BACKOFF_SECONDS,
        backoff_max=LONGEST_PAUSE_SECONDS,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _from_any_address(
    session: requests.Session,
    source: Source,
    path: Path,
    running: Running,
    pause: Callable[[float], None],
) -> None:
    part = _Part(path)
    if (
        _has_checksum(source) and part.size and _is_the_cards(part.path, source)
    ):  # killed at the very end
        part.becomes(path)
        return
    addresses = [url for url in (source.url, *source.mirrors) if url is not None]
    failures: list[str] = []
    next_step = (
        "check the connection, or get the file by other means and give it to "
        "'bench data prepare TASK --from FILE'"
    )
    for url in addresses:
        try:
            _from_address(session, url, source, part, running, pause)
            if part.pieced and not _is_the_cards(part.path, source):
                part.drop()  # the bytes of an earlier process may be wrong
                _from_address(session, url, source, part, running, pause)
            if not _is_the_cards(part.path, source):
                part.drop()
                claim = checksum_pins.claim(source.url, source.sha256)
                raise _AnotherFile(f"it is not the file {claim}: size or checksum differ")
        except (_BrokenOff, _Refused) as error:
            failures.append(f"{url} could not be fetched ({error})")
            if isinstance(error, _AnotherFile) and str(checksum_pins.lock_file()) in str(error):
                next_step = f"if the new file is right, remove the line of {source.url} there"
        else:
            part.becomes(path)
            return
    kept = ""
    if part.size and (_has_checksum(source) or any(part.mark(url) for url in addresses)):
        kept = f"; {part.size:,} bytes are kept, and the same command resumes"
    raise UserError("; ".join(failures) + kept, next_step=next_step)


def part_of(whole: Path) -> Path:
    """Return the path of the partial file."""
    return whole.with_name(f".{whole.name}.part")


class _Part:
    """The partial file of a download to `whole`, with notes on its origin.

    Attributes:
        path: the partial file.
        pieced: whether this process resumed bytes of an earlier one.
    """

    def __init__(self, whole: Path) -> None:
        self.path = part_of(whole)
        self._notes = whole.with_name(f".{whole.name}.part.json")
        self.pieced = False

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def mark(self, url: str) -> str | None:
        """Return the version that the server at `url` gave, if it gave one."""
        noted = self._noted()
        mark = noted.get("mark")
        return mark if noted.get("url") == url and isinstance(mark, str) else None

    @property
    def total(self) -> int | None:
        """Size of the whole file in bytes, as first given by the server."""
        total = self._noted().get("total")
        return total if isinstance(total, int) else None

    def _noted(self) -> dict[str, Any]:
        try:
            noted = json.loads(self._notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return noted if isinstance(noted, dict) else {}

    def start(self, url: str, mark: str | None, total: int | None) -> None:
        """Discard the bytes so far, and note the origin of the next ones."""
        self.drop()
        write_text(self._notes, json.dumps({"url": url, "mark": mark, "total": total}))

    def drop(self) -> None:
        """Discard the bytes so far."""
        self.pieced = False
        for path in (self.path, self._notes):
            path.unlink(missing_ok=True)

    def becomes(self, path: Path) -> None:
        """Move the complete file to its path."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())
        self.path.replace(path)
        self.drop()


def _from_address(
    session: requests.Session,
    url: str,
    source: Source,
    part: _Part,
    running: Running,
    pause: Callable[[float], None],
) -> None:
    """Complete the partial file from one address, with another request after each break."""
    tries, most = TRIES, part.size
    while True:
        try:
            return _request(session, url, source, part, running)
        except _BrokenOff as error:
            tries = TRIES if part.size > most else tries - 1
            most = max(most, part.size)
            if not tries:
                raise
            _wait(BACKOFF_SECONDS, str(error), running, pause)


def _request(
    session: requests.Session, url: str, source: Source, part: _Part, running: Running
) -> None:
    """Request the missing bytes, and write them."""
    headers = {"Accept-Encoding": "identity"}  # uncompressed, so that sizes match
    mark = part.mark(url)
    if part.size and (
        mark or _has_checksum(source)
    ):  # without a version the checksum decides in the end
        headers["Range"] = f"bytes={part.size}-"
        if mark:
            headers["If-Range"] = mark
    try:
        response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS)
    except requests.RequestException as error:
        raise _Refused(_reason(error)) from error
    except (ValueError, OSError) as error:  # a redirect to no address, missing certificates
        raise _Refused(str(error)) from error
    with response:
        _receive(response, url, source, part, running)


def _receive(
    response: requests.Response, url: str, source: Source, part: _Part, running: Running
) -> None:
    """Check an answer, and write its bytes to the partial file."""
    if response.status_code == NOTHING_MORE:
        if response.headers.get("Content-Range") != f"bytes */{part.size}":
            part.drop()
            raise _BrokenOff("the server has fewer bytes than before")
        return
    if response.status_code not in (WHOLE, PART):
        raise _Refused(f"the server answered {response.status_code}")
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity" and not _has_checksum(source):
        raise _Refused("the server sends it compressed, so its checksum could not be compared")
    total = _total(response, url, source, part)
    if response.status_code == WHOLE:
        part.start(url, _mark(response), total)
    _write_body(response, part, total, running)


def _total(response: requests.Response, url: str, source: Source, part: _Part) -> int | None:
    """Return the size of the whole file in bytes, from the server or the card.

    Raises:
        _AnotherFile: the two differ.
        _BrokenOff: see `_total_of_part`.
    """
    total: int | None
    if response.status_code == PART:
        total = _total_of_part(response, url, part)
    else:
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdecimal() else None
    if total is None or source.bytes is None:
        return source.bytes if total is None else total
    if total != source.bytes:
        # The earlier bytes are kept, since the answer may be a page and not the file.
        claim = checksum_pins.claim(source.url, source.sha256)
        raise _AnotherFile(f"it holds {total:,} bytes, but {claim} {source.bytes:,}")
    return total


def _write_body(
    response: requests.Response, part: _Part, total: int | None, running: Running
) -> None:
    """Append the bytes of an answer to the partial file."""
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
        raise _BrokenOff(f"{part.size:,} of {total:,} bytes received")
    if not part.size:
        part.drop()
        raise _Refused("it is empty")


def _total_of_part(response: requests.Response, url: str, part: _Part) -> int:
    """Read the size of the whole file from an answer that continues it.

    Raises:
        _BrokenOff: the answer does not start where the partial file ends, or has another version; the partial file is
            deleted.
    """
    sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    mark = part.mark(url)
    of_version = mark in (None, response.headers.get("ETag"), response.headers.get("Last-Modified"))
    total = None
    if sent is not None and int(sent[1]) == part.size and of_version:
        total = int(sent[2]) if sent[2] != "*" else part.total
    if total is None:
        part.drop()
        raise _BrokenOff("the server sent another part of the file than requested")
    return total


def _mark(response: requests.Response) -> str | None:
    """Return what identifies this version of the file exactly."""
    tag = response.headers.get("ETag")
    if tag is None:
        return response.headers.get("Last-Modified")
    return None if tag.startswith("W/") else tag  # a weak ETag may be the same for other bytes


def _has_checksum(source: Source) -> bool:
    return bool(source.sha256 or source.md5)


def _is_the_cards(path: Path, source: Source) -> bool:
    """Return True if a file has the size and checksum in the card, as far as the card has them."""
    if source.bytes is not None and path.stat().st_size != source.bytes:
        return False
    if source.sha256 is not None:
        return sha256(path) == source.sha256
    return source.md5 is None or digest(path, "md5") == source.md5


def _reason(error: Exception) -> str:
    """Return in words why a request failed. The first matching kind of error counts."""
    cause = error.args[0] if error.args else None
    if isinstance(cause, urllib3.exceptions.MaxRetryError) and isinstance(
        cause.reason, urllib3.exceptions.TimeoutError
    ):
        error = cause.reason  # requests reports it like other connection errors
    kinds: list[tuple[type[Exception], str]] = [
        (requests.exceptions.SSLError, "its certificate is not trusted"),
        (requests.exceptions.ProxyError, "the proxy does not answer"),
        (requests.exceptions.TooManyRedirects, "it redirects without end"),
        (urllib3.exceptions.NewConnectionError, "no connection to the server"),
        (requests.Timeout, f"no answer within {TIMEOUT_SECONDS:.0f} s"),
        (urllib3.exceptions.TimeoutError, f"no byte within {TIMEOUT_SECONDS:.0f} s"),
        (requests.ConnectionError, "no connection to the server"),
        (ValueError, "it is not the address of a file on the web"),
    ]
    return next(
        (words for kind, words in kinds if isinstance(error, kind)), "the connection broke off"
    )
