"""The parts of a data set: folders, files and archives."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class UnpackedPart(NamedTuple):
    """A folder or file of the recordings, its place among the others, and its origin."""

    path: Path
    place: str
    origin: str


class Archive(NamedTuple):
    """An archive that has not been unpacked yet.

    Attributes:
        path: its file.
        place: the place of its part among the others.
        check: compares it with the card or its pin, and returns its SHA-256.
        is_optional: whether it is one of many archives, some of which may be left out.
    """

    path: Path
    place: str
    check: Callable[[], str]
    is_optional: bool = False
