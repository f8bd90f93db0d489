"""Checksums of the files in a folder, kept in the folder or elsewhere, and compared before the files are trusted.

They tell damage: bits that flipped, a part that is gone, a file that somebody changed. They are no signature.
"""

import os
import random
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lape_bench.core.errors import DamagedFile
from lape_bench.core.sealed_json import read_sealed_json, write_sealed_json

CHECKSUMS, COMPARED = ".checksums.json", ".compared.json"
BLOCK = 2**20  # bytes that share a checksum
SPOT_CHECKS = 4  # blocks of a file that is trusted because nothing has written to it


class FileChecksums(NamedTuple):
    """The size of a file and the CRC-32 of each of its blocks."""

    bytes: int
    blocks: list[int]


class ChecksummingWriter:
    """Computes the checksums of a file while it is written.

    Args:
        file: takes the bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes, self._crc = 0, 0
        self._blocks: list[int] = []

    def write(self, data: bytes | memoryview) -> int:
        """Write bytes."""
        if not memoryview(data).nbytes:
            return 0  # which `cast` refuses
        data = memoryview(data).cast("B")
        start = 0
        while start < len(data):
            part = data[start : start + BLOCK - self._bytes % BLOCK]
            self._crc = zlib.crc32(part, self._crc)
            self._bytes += len(part)
            start += len(part)
            if self._bytes % BLOCK == 0:
                self._blocks.append(self._crc)
                self._crc = 0
        return self._file.write(data)

    def tell(self) -> int:
        """Return how many bytes were written."""
        return self._bytes

    def checksums(self) -> FileChecksums:
        """Return the checksums of what was written so far."""
        partial = [self._crc] if self._bytes % BLOCK else []
        return FileChecksums(self._bytes, self._blocks + partial)


def write_checksums(
    folder: Path, known: Mapping[str, FileChecksums] | None = None, to: Path | None = None
) -> None:
    """Write the checksums of all files in a folder.

    Args:
        folder: the folder.
        known: checksums that were computed while a file was written, by its name.
        to: the file that takes them; by default a hidden one in the folder.
    """
    known = known or {}
    write_sealed_json(
        to or folder / CHECKSUMS,
        {name: known.get(name) or _checksums(folder / name) for name in _names(folder)},
    )


def find_damage(
    folder: Path, remember: bool = False, threads: int = 1, checksums: Path | None = None
) -> str:
    """Say which file of a folder is not as its checksums have it; empty if all are.

    Args:
        folder: a folder that `write_checksums` was called for.
        remember: take a file as it is if nothing has written to it since it was last compared in full, but for a few
            blocks, and remember the files that are compared in full now. Otherwise every file is compared in full.
        threads: that compare files.
        checksums: the file of the checksums, if it is not in the folder.
    """
    checksums = checksums or folder / CHECKSUMS
    try:
        expected = {n: FileChecksums(*v) for n, v in read_sealed_json(checksums).items()}
        names = _names(folder)
    except DamagedFile as error:
        return error.what
    except OSError as error:
        return f"{error.filename or checksums} cannot be read ({error.strerror})"
    for name in sorted(expected.keys() ^ names):
        return f"{folder / name} is " + ("missing" if name in expected else "new")
    compared = _read_compared(folder) if remember else {}

    def damage(name: str) -> str:
        path = folder / name
        try:
            trusted = remember and compared.get(name) == _version(path)
            return "" if _fits(path, expected[name], spots=trusted) else f"{path} is damaged"
        except OSError as error:
            return f"{path} cannot be read ({error.strerror})"

    if compared:  # a few blocks, which are faster read than threads are started
        problem = next(filter(None, map(damage, sorted(expected))), "")
    else:
        with ThreadPoolExecutor(threads) as pool:
            problem = next(filter(None, pool.map(damage, sorted(expected))), "")
    if remember:
        remember_compared(folder, intact=not problem)
    return problem


def remember_compared(folder: Path, intact: bool) -> None:
    """Note that the files of a folder fit their checksums as they are now, or forget it."""
    with suppress(OSError):  # a cache that may only be read
        if not intact:
            (folder / COMPARED).unlink(missing_ok=True)
            return
        versions = {name: _version(folder / name) for name in _names(folder)}
        if versions != _read_compared(folder):
            write_sealed_json(folder / COMPARED, versions)


def _names(folder: Path) -> set[str]:
    """Return the relative paths of the files in a folder; hidden files at its top are left out."""

    def refuse(error: OSError) -> None:
        raise error

    names = set()
    for place, _, files in os.walk(folder, onerror=refuse):
        relative = Path(place).relative_to(folder)
        names |= {(relative / name).as_posix() for name in files}
    return {name for name in names if not name.startswith(".") or "/" in name}


def _read_compared(folder: Path) -> dict[str, list[int]]:
    try:
        compared: dict[str, list[int]] = read_sealed_json(folder / COMPARED)
    except (OSError, DamagedFile):
        return {}
    return compared


def _version(path: Path) -> list[int]:
    """Return what changes if anything writes to a file; nobody can set the time of the last change to its inode."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _checksums(path: Path) -> FileChecksums:
    with path.open("rb") as file:
        blocks = [zlib.crc32(block) for block in iter(lambda: file.read(BLOCK), b"")]
        return FileChecksums(file.tell(), blocks)


def _fits(path: Path, expected: FileChecksums, spots: bool) -> bool:
    """Compare a file with its checksums: all of it, or a few blocks at random places."""
    if path.stat().st_size != expected.bytes:
        return False
    numbers: Sequence[int] = range(len(expected.blocks))
    if spots and len(numbers) > SPOT_CHECKS:
        # Not from a run's seed: in time every block is looked at.
        numbers = random.SystemRandom().sample(numbers, SPOT_CHECKS)
    with path.open("rb") as file:
        for number in numbers:
            file.seek(number * BLOCK)
            if zlib.crc32(file.read(BLOCK)) != expected.blocks[number]:
                return False
    return True
