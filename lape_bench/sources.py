"""Archives: downloaded, checked against the card, and unpacked without leaving their folder."""

import hashlib
import logging
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pooch
import requests

from lape_bench.errors import UserError, writing
from lape_bench.paths import home, staged_folder
from lape_bench.progress import Running
from lape_bench.task import Source, TaskCard

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
TIMEOUT_SECONDS = 30
# What zipfile and tarfile raise, in their several ways, for an archive that ends early or was damaged.
DAMAGED = (zipfile.BadZipFile, tarfile.ReadError, EOFError, zlib.error, lzma.LZMAError, OSError)


class DownloadBar:
    """A running task as a progress bar that pooch's downloader can drive."""

    def __init__(self, running: Running) -> None:
        self.running = running

    @property
    def total(self) -> int | None:
        """Bytes to come."""
        return self.running.total

    @total.setter
    def total(self, total: int) -> None:
        self.running.total = total

    def update(self, count: int) -> None:
        """Count bytes that came."""
        self.running.advance(count)

    def reset(self) -> None:
        """Start anew, as pooch does at the end before it fills the bar."""
        self.running.done = 0

    def close(self) -> None:
        """Do nothing: whoever opened the task ends it."""


def is_archive(path: Path) -> bool:
    """Tell by its name whether a path is an archive that `unpack` reads."""
    return path.name.lower().endswith(ARCHIVES)


def downloads(card: TaskCard) -> list[tuple[Source, Path]]:
    """Return the card's fetchable sources, each with the place `fetch` puts it."""
    return [
        (
            source,
            home()
            / "downloads"
            / hashlib.sha256(source.url.encode()).hexdigest()[:12]
            / source.file,
        )
        for source in card.sources
        if source.url
    ]


def fetch(source: Source, path: Path, bar: DownloadBar) -> None:
    """Download a source to `path`, checked; what is there already is not fetched again.

    Args:
        source: a source with a url.
        path: where the file goes; it appears there whole or not at all.
        bar: told of each piece.

    Raises:
        UserError: the server cannot be reached or refuses, or the file is not the one the card names.
    """
    pooch.get_logger().setLevel(logging.WARNING)  # its own lines would come on top of the bar
    downloader = pooch.HTTPDownloader(progressbar=bar, timeout=TIMEOUT_SECONDS, chunk_size=2**16)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            pooch.retrieve(
                source.url,
                known_hash=f"sha256:{source.sha256}" if source.sha256 else None,
                fname=path.name,
                path=path.parent,
                downloader=downloader,
            )
    except requests.RequestException as error:
        raise UserError(
            f"{source.url} could not be fetched ({_reason(error)})",
            next_step="check the connection, or get the file by other means and give it to "
            "'bench data prepare TASK --from FILE'",
        ) from error
    except ValueError as error:  # pooch's word for a wrong checksum
        raise UserError(
            f"{source.url} is not the file the card names (its SHA-256 differs); nothing was kept",
            next_step="try again; if it stays so, the file was changed at its origin",
        ) from error
    try:
        check_size(path, source)
    except UserError:
        path.unlink()
        raise


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answered {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT_SECONDS} s"
    if isinstance(error, requests.ConnectionError):
        return "no connection to the server"
    return "the connection broke off"


def check(path: Path, card: TaskCard) -> str:
    """Hold an archive against the card's source of the same name; return its SHA-256.

    Raises:
        UserError: size or checksum differ from the card's.
    """
    found = _sha256(path)
    for source in card.sources:
        if source.file != path.name:
            continue
        check_size(path, source)
        if source.sha256 and source.sha256 != found:
            raise UserError(
                f"{path} has the SHA-256 {found[:12]}..., but the card of {card.name} names "
                f"{source.sha256[:12]}... for {source.file}",
                next_step="get the archive again; for data of your own, unpack it and give the folder",
            )
    return found


def check_size(path: Path, source: Source) -> None:
    """Say that a file's size is not the card's, where the card knows it."""
    size = path.stat().st_size
    if source.bytes is not None and size != source.bytes:
        raise UserError(
            f"{path} holds {size:,} bytes, but the card names {source.bytes:,} for {source.file}",
            next_step="it is cut off or another file: get it again",
        )


def unpack(archive: Path, checksum: str, on_member: Callable[[], None] = lambda: None) -> Path:
    """Unpack an archive into the cache and return its folder; a second call finds it there.

    Args:
        archive: a ZIP or tar file.
        checksum: its SHA-256, which names the folder.
        on_member: called after each member.

    Raises:
        UserError: a member would leave the folder, or is a link or device; the archive is damaged.
    """
    parent = home() / "data"
    name = f"{archive.name.split('.')[0]}-{checksum[:16]}"
    if (parent / name).is_dir():
        return parent / name
    with staged_folder(parent) as staging:
        try:
            if archive.name.lower().endswith(".zip"):
                _unzip(archive, staging.path, on_member)
            else:
                _untar(archive, staging.path, on_member)
        except (RuntimeError, NotImplementedError) as error:  # zipfile: password, unknown method
            raise UserError(f"{archive} cannot be unpacked ({error})") from error
        except DAMAGED as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk, not of the archive
            raise UserError(
                f"{archive} is truncated or damaged", next_step="get the archive again"
            ) from error
        staging.name = name
    return parent / name


def _unzip(archive: Path, folder: Path, on_member: Callable[[], None]) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        for member in members:
            is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
            _refuse_unsafe(archive, member.filename, is_link)
        for member in members:
            opened.extract(member, folder)
            on_member()


def _untar(archive: Path, folder: Path, on_member: Callable[[], None]) -> None:
    # The first releases of Python 3.11 lack filters; members are refused here either way.
    filtered: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(archive) as opened:
        for member in opened:
            _refuse_unsafe(archive, member.name, not (member.isfile() or member.isdir()))
            opened.extract(member, folder, **filtered)
            on_member()
        # tarfile takes the end of the file for the end of the archive, which is a block of zeros, and does
        # not read on to the checksum that compressed data ends with.
        if opened.fileobj is None or opened.fileobj.tell() == opened.offset:
            raise tarfile.ReadError("no end of archive")
        while opened.fileobj.read(2**20):
            pass


def _refuse_unsafe(archive: Path, name: str, is_special: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    has_drive = len(name) > 1 and name[1] == ":"
    if path.is_absolute() or has_drive or ".." in path.parts or is_special:
        kind = "is a link or a device" if is_special else "would be written outside the folder"
        raise UserError(
            f"{archive} is not safe to unpack: its member '{name}' {kind}",
            next_step="get the archive from its authors; nothing was unpacked",
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
