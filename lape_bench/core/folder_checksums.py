"""Checksums of the files in a folder, compared before the files are used.

They reveal damage: flipped bits, a missing part, an edited file. They are not a signature. They are stored in the
folder or elsewhere.
"""

import os
import random
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lape_bench.core.errors import DamagedFile, UserError
from lape_bench.core.sealed_json import read_sealed_json, write_sealed_json

CHECKSUMS, COMPARED = ".checksums.json", ".compared.json"
BLOCK = 2**20  # bytes per checksum
SPOT_CHECKS = 4  # blocks that are compared in a file that nobody has written to since the last full comparison


class FileChecksums(NamedTuple):
    """The size of a file and the CRC-32 of each of its blocks."""

    bytes: int
    blocks: list[int]


class ChecksummingWriter:
    """Computes the checksums of a file while it is written.

    Args:
        file: the file that is written.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes, self._crc = 0, 0
        self._blocks: list[int] = []

    def write(self, data: bytes | memoryview) -> int:
        """Write bytes."""
        if not memoryview(data).nbytes:
            return 0  # `cast` refuses an empty view
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
        """Return the number of bytes written so far."""
        return self._bytes

    def checksums(self) -> FileChecksums:
        """Return the checksums of the bytes written so far."""
        partial = [self._crc] if self._bytes % BLOCK else []
        return FileChecksums(self._bytes, self._blocks + partial)


def write_checksums(
    folder: Path, known: Mapping[str, FileChecksums] | None = None, to: Path | None = None
) -> None:
    """Write the checksums of all files in a folder.

    Args:
        folder: the folder.
        known: checksums that were computed while files were written, by file name.
        to: the file for the checksums; by default a hidden file in the folder.
    """
    known = known or {}
    write_sealed_json(
        to or folder / CHECKSUMS,
        {name: known.get(name) or _checksums(folder / name) for name in _names(folder)},
    )


def find_damage(
    folder: Path, remember: bool = False, threads: int = 1, checksums: Path | None = None
) -> str:
    """Return a message that names the first damaged file of a folder; empty if every file matches its checksums.

    Args:
        folder: a folder that has checksums, see `write_checksums`.
        remember: if nobody has written to a file since it was last compared in full, compare only a few of its blocks,
            and remember the files that are compared in full now. If False, every file is compared in full.
        threads: number of threads that compare files.
        checksums: the file with the checksums, if it is not in the folder.
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

    if compared:  # Reading a few blocks is faster than starting threads.
        problem = next(filter(None, map(damage, sorted(expected))), "")
    else:
        with ThreadPoolExecutor(threads) as pool:
            problem = next(filter(None, pool.map(damage, sorted(expected))), "")
    if remember:
        remember_compared(folder, intact=not problem)
    return problem


def remember_compared(folder: Path, intact: bool) -> None:
    """Remember that the files of a folder match their checksums now, or forget it."""
    with suppress(OSError, UserError):  # a read-only cache
        if not intact:
            (folder / COMPARED).unlink(missing_ok=True)
            return
        versions = {name: _version(folder / name) for name in _names(folder)}
        if versions != _read_compared(folder):
            write_sealed_json(folder / COMPARED, versions)


def _names(folder: Path) -> set[str]:
    """Return the relative paths of the files in a folder, without hidden files at its top."""

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
    """Return size, times and inode of a file. One changes with every write, since programs cannot set the ctime."""
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
        # Not from the run's seed: over many runs every block is compared.
        numbers = random.SystemRandom().sample(numbers, SPOT_CHECKS)
    with path.open("rb") as file:
        for number in numbers:
            file.seek(number * BLOCK)
            if zlib.crc32(file.read(BLOCK)) != expected.blocks[number]:
                return False
    return True
