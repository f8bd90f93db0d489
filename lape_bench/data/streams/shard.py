"""The interface of a shard: a file that holds many encoded audio files and gives access to each of them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, NamedTuple

from lape_bench.core.errors import UserError
from lape_bench.data.recording import FileVersion


class Member(NamedTuple):
    """An audio file in a shard.

    Attributes:
        name: its name in the shard.
        block: number of the part of the shard that is read at once; 0 if members are read one by one.
        place: first byte in the file, or row in the block.
        size: bytes; 0 if it is only known after reading.
        problem: why it cannot be read at its place; empty if it can.
    """

    name: str
    block: int
    place: int
    size: int
    problem: str = ""


class Shard(ABC):
    """A file that holds many encoded audio files.

    Attributes:
        path: the file.
        version: of the file, when the shard was found; None if its status cannot be read.
        in_blocks: true if members of a block are read together, so that random access is slow.
    """

    in_blocks: ClassVar[bool]

    def __init__(self, path: Path) -> None:
        self.path, self.version = path, FileVersion.of(path)

    @abstractmethod
    def members(self) -> Iterator[Member]:
        """Yield the audio files in their order, without reading them.

        Raises:
            UserError: the shard is damaged, or has no place for audio.
        """

    @abstractmethod
    def read(self, member: Member) -> bytes:
        """Return the content of an audio file; it may be called from several threads.

        Raises:
            UserError: the shard cannot be read, or has changed since it was found.
        """

    def refuse_changed(self) -> None:
        """Raise a `UserError` if the file has changed since it was found; call it after reading."""
        now = FileVersion.of(self.path)
        # Without the inode, whose number is not constant on some network file systems.
        if now is None or self.version is None or now[:3] != self.version[:3]:
            raise UserError(
                f"the shard {self.path} has changed since the run began",
                next_step="run the same command again, which lists the shard again",
            )

    def unreadable(self, reason: object) -> UserError:
        """Return the error of a shard that cannot be read.

        Raises:
            UserError: the reason is that the file has changed since it was found.
        """
        self.refuse_changed()
        return UserError(
            f"the shard {self.path} cannot be read ({reason})",
            next_step="copy or download it again, or leave it out of the corpus",
        )
