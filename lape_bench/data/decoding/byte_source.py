"""Read bytes at any place of a file, or a range of bytes as a file. The file may be on disk or in memory."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

BUFFER_BYTES = 2**16


@dataclass(frozen=True)
class FileContent:
    """The content of a file in memory, such as a member of a tar file. It opens as a `Path` does.

    Attributes:
        name: its name; only the extension matters.
        content: its bytes.
    """

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name

    @property
    def suffix(self) -> str:
        """Its extension, with the dot."""
        return Path(self.name).suffix

    def open(self, mode: str = "rb", buffering: int = -1) -> BinaryIO:
        """Return a file object that reads the content."""
        return io.BytesIO(self.content)


AudioFile = Path | FileContent


class ByteSource:
    """A file that can be read at any place. Use it in a `with` statement."""

    def __init__(self, path: AudioFile) -> None:
        self._file: BinaryIO = path.open("rb", buffering=BUFFER_BYTES)
        self.size = self._file.seek(0, io.SEEK_END)

    def at(self, start: int, count: int) -> bytes:
        """Return up to `count` bytes from `start`; fewer at the end of the file."""
        self._file.seek(start)
        return self._file.read(count)

    def find(self, pattern: bytes, start: int) -> int:
        """Return the first place of `pattern` at or after `start`, or -1."""
        overlap = len(pattern) - 1
        while start + overlap < self.size:
            block = self.at(start, min(2**20, self.size - start))
            if (place := block.find(pattern)) >= 0:
                return start + place
            if len(block) <= overlap:  # the file has become shorter
                break
            start += len(block) - overlap
        return -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


class FileRange(io.RawIOBase):
    """The bytes from `start` to `end` of a file, as a file."""

    def __init__(self, path: AudioFile, start: int, end: int) -> None:
        super().__init__()
        self._file: BinaryIO = path.open("rb", buffering=BUFFER_BYTES)
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
