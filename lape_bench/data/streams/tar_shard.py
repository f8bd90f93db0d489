"""Shards of WebDataset: tar files whose members are read at their place, without unpacking."""

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath

from lape_bench.data.audio import SUFFIXES
from lape_bench.data.clip_names import spelled
from lape_bench.data.streams.shard import Member, Shard
from lape_bench.data.strict_tar import StrictTarInfo, is_followed


class TarShard(Shard):
    """An uncompressed tar file. Its audio is recognized by the extension, other members are left alone."""

    in_blocks = False

    def members(self) -> Iterator[Member]:
        """Yield the audio files; see `Shard.members`."""
        try:
            with (
                self.path.open("rb") as file,
                tarfile.open(fileobj=file, mode="r:", tarinfo=StrictTarInfo) as archive,
            ):
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # not in the stubs; otherwise all stay in memory
                    if _is_audio(member):
                        place = (0, member.offset_data, member.size)
                        yield Member(spelled(member.name), *place, _problem(member))
                if is_followed(file.read):
                    raise tarfile.ReadError(
                        "more data follows the end of the archive; join tar files by tar --concatenate"
                    )
        except (OSError, tarfile.TarError) as error:
            raise self.unreadable(error) from error

    def read(self, member: Member) -> bytes:
        """Return the content of an audio file; see `Shard.read`."""
        try:
            with self.path.open("rb") as file:
                file.seek(member.place)
                content = file.read(member.size)
        except OSError as error:
            raise self.unreadable(error.strerror) from error
        self.refuse_changed()
        if len(content) < member.size:
            raise self.unreadable("unexpected end of data")
        return content


def _is_audio(member: tarfile.TarInfo) -> bool:
    name = PurePosixPath(member.name)
    of_macos = name.name.startswith("._")  # macOS adds such a file beside each file
    return not member.isdir() and not of_macos and name.suffix.lower() in SUFFIXES


def _problem(member: tarfile.TarInfo) -> str:
    """Return why a member cannot be read at its place; empty if it can."""
    if any(part.startswith(".") and part != ".." for part in PurePosixPath(member.name).parts):
        return "hidden by its name"
    if member.issparse():
        return "a sparse file; pack it without --sparse"
    if member.islnk() or member.issym():
        return "a link; pack files with tar --dereference --hard-dereference"
    return "" if member.isreg() else "not a file"
