"""Open files of others safely: without following links, waiting at a FIFO, or reading more than a given size."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lape_bench.core.errors import UserError

# Windows has neither O_NOFOLLOW nor O_NONBLOCK.
FLAGS = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

MOST_TABLE_BYTES = 2**31  # of a CSV file


@contextmanager
def open_regular(path: Path, most_bytes: int) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Args:
        path: the file; folders on the way to it may be links.
        most_bytes: the largest size that is opened.

    Raises:
        UserError: the path is a link, a folder, a FIFO or a device, or the file is too large.
        OSError: it is missing or cannot be read.
    """
    descriptor, _ = _open(path, most_bytes)
    with os.fdopen(descriptor, "rb") as file:
        yield file


def read_regular(path: Path, most_bytes: int) -> bytes:
    """Read a regular file; see `open_regular`."""
    # Without a file object, which takes twice the time of the reading: a report reads thousands of files.
    descriptor, size = _open(path, most_bytes)
    try:
        content = os.read(descriptor, size + 1)
        while len(content) <= size and (part := os.read(descriptor, size + 1 - len(content))):
            content += part
    finally:
        os.close(descriptor)
    if len(content) > most_bytes:  # it has grown since it was opened
        raise UserError(f"{path} has more than {most_bytes:,} bytes")
    return content


def read_text(path: Path, most_bytes: int, errors: str = "strict") -> str:
    """Read a UTF-8 text file that a user names, which may be a link; a byte order mark is left out.

    Args:
        path: the file.
        most_bytes: the largest size that is read.
        errors: what to do with bytes that are not UTF-8, as for `bytes.decode`.

    Raises:
        UserError: the path is a folder, a FIFO or a device, or the file is too large.
        OSError: it is missing or cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_regular(Path(os.path.realpath(path)), most_bytes).decode("utf-8-sig", errors)


def _open(path: Path, most_bytes: int) -> tuple[int, int]:
    """Open a file as `open_regular` does; return its descriptor and its size."""
    try:
        descriptor = os.open(path, FLAGS | getattr(os, "O_BINARY", 0))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{path} is a link, and links are not followed here") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is not a regular file")
        if status.st_size > most_bytes:
            raise UserError(
                f"{path} has {status.st_size:,} bytes", allowed=f"at most {most_bytes:,}"
            )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status.st_size
