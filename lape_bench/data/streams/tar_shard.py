"""Shards of WebDataset: tar files whose members are read at their place, without unpacking."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath

from lape_bench.data.audio import SUFFIXES
from lape_bench.data.clip_names import spelled
from lape_bench.data.streams.shard import Member, Shard


class TarShard(Shard):
    """An uncompressed tar file. Its audio is recognized by the extension, other members are left alone."""

    in_blocks = False

    def members(self) -> Iterator[Member]:
        """Yield the audio files; see `Shard.members`."""
        try:
            with tarfile.open(self.path, "r:") as archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # not in the stubs; otherwise all stay in memory
                    name = PurePosixPath(member.name)
                    hidden = name.name.startswith(".")  # macOS adds such a file beside each file
                    if member.isreg() and not hidden and name.suffix.lower() in SUFFIXES:
                        yield Member(spelled(member.name), 0, member.offset_data, member.size)
        except (OSError, tarfile.TarError) as error:
            raise self.unreadable(error) from error

    def read(self, member: Member) -> bytes:
        """Return the content of an audio file; see `Shard.read`."""
        try:
            with self.path.open("rb", buffering=0) as file:
                return os.pread(file.fileno(), member.size, member.place)
        except OSError as error:
            raise self.unreadable(error.strerror) from error
