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
    """

    name: str
    block: int
    place: int
    size: int


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
            UserError: the shard cannot be read.
        """

    def unreadable(self, reason: object) -> UserError:
        """Return the error of a shard that cannot be read."""
        return UserError(
            f"the shard {self.path} cannot be read ({reason})",
            next_step="copy or download it again, or leave it out of the corpus",
        )
