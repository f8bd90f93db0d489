"""Read tar files without taking damage for the end: `tarfile` stops without an error at a damaged header."""

import tarfile
from collections.abc import Callable
from typing import Self

AT_ONCE = 2**20  # bytes


class StrictTarInfo(tarfile.TarInfo):
    """A member of an archive; pass this class to `tarfile.open` as `tarinfo`."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Read the next header.

        Raises:
            tarfile.ReadError: it is damaged, or the file ends without the zeros that mark the end of an archive.
            tarfile.EOFHeaderError: the archive ends.
        """
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # not in the stubs
            raise
        except tarfile.HeaderError as error:
            place = f"truncated or damaged at byte {archive.offset:,}"
            raise tarfile.ReadError(f"{place}: {error}") from error


def is_followed(read: Callable[[int], bytes]) -> bool:
    """Read a file after the end of its archive. Return True if there is more than zeros, such as a second archive.

    Args:
        read: returns up to a number of bytes; none at the end of the file.
    """
    followed = False
    while block := read(AT_ONCE):
        followed = followed or bool(block.strip(b"\0"))
    return followed
