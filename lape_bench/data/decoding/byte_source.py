"""Read bytes at any place of a file, or a range of bytes as a file."""

import io
from pathlib import Path
from typing import Self

BUFFER_BYTES = 2**16


class ByteSource:
    """A file that can be read at any place. Use it in a `with` statement."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=BUFFER_BYTES)
        self.size = self._file.seek(0, io.SEEK_END)

    def at(self, start: int, count: int) -> bytes:
        """Return up to `count` bytes from `start`; fewer at the end of the file."""
        self._file.seek(start)
        return self._file.read(count)

    def find(self, pattern: bytes, start: int) -> int:
        """Return the first place of `pattern` at or after `start`, or -1."""
        overlap = len(pattern) - 1
        while block := self.at(start, 2**20):
            if (place := block.find(pattern)) >= 0:
                return start + place
            if len(block) <= overlap:
                break
            start += len(block) - overlap
        return -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


class FileRange(io.RawIOBase):
    """The bytes from `start` to `end` of a file, as a file."""

    def __init__(self, path: Path, start: int, end: int) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=BUFFER_BYTES)
        self._start, self._size, self._place = start, end - start, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position in the range, and return it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        """Return the position in the range."""
        return self._place

    def read(self, count: int = -1) -> bytes:
        """Return up to `count` bytes; all remaining bytes if it is negative."""
        left = max(0, self._size - self._place)
        self._file.seek(self._start + self._place)
        content = self._file.read(left if count < 0 else min(count, left))
        self._place += len(content)
        return content

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]  # buffers have a type from Python 3.12 on
        """Fill a buffer, and return the number of bytes read."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()
