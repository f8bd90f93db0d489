"""Archives: checked against the card, and unpacked without leaving their folder."""

import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from lape_bench.errors import UserError
from lape_bench.paths import home, sha256, staged_folder
from lape_bench.task import Source, TaskCard

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# What zipfile and tarfile raise, in their several ways, for an archive that ends early or was damaged.
DAMAGED = (zipfile.BadZipFile, tarfile.ReadError, EOFError, zlib.error, lzma.LZMAError, OSError)


def is_archive(path: Path) -> bool:
    """Tell by its name whether a path is an archive that `unpack` reads."""
    return path.name.lower().endswith(ARCHIVES)


def downloads(card: TaskCard) -> list[tuple[Source, Path]]:
    """Return the card's fetchable sources, each with the place where `bench data fetch` puts it."""
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


def check(path: Path, card: TaskCard) -> str:
    """Hold an archive against the card's source of the same name; return its SHA-256.

    Raises:
        UserError: size or checksum differ from the card's.
    """
    found = sha256(path)
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
