"""Find the audio files below a folder by their extensions, and warn about files that are skipped."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lape_bench.core.errors import UserError
from lape_bench.data.audio import SUFFIXES
from lape_bench.data.clip_names import printable
from lape_bench.task import leads_back, may_hold_data

logger = logging.getLogger(__name__)


def is_audio(path: Path) -> bool:
    """Return True if the extension of a file is one of audio."""
    return path.suffix.lower() in SUFFIXES


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, sorted, without hidden ones. Links to folders are followed unless they lead back
    up.

    Raises:
        UserError: a folder cannot be read.
    """
    for found in _walk(folder):
        yield from (found.place / name for name in found.files if not name.startswith("."))


def warn_of_passed_over(folder: Path) -> None:
    """Warn about hidden audio files, audio files in hidden folders, and links that lead back to a folder above."""
    hidden: list[Path] = []
    for found in _walk(folder):
        # macOS writes a hidden file without audio beside each file; its name starts with "._".
        hidden += [
            found.place / name
            for name in found.files
            if name.startswith(".") and not name.startswith("._") and is_audio(Path(name))
        ]
        for name in found.hidden_folders:
            hidden += filter(is_audio, (found.place / name).rglob("*"))
        for name in found.links_back:
            link = printable(found.place / name)
            logger.warning(f"passed over: {link}, a link that leads back to a folder above it")
    if hidden:
        logger.warning(
            f"passed over: {len(hidden)} hidden audio files below {printable(folder)}, such as {printable(hidden[0])}"
        )


class _Found(NamedTuple):
    """The entries of a folder, each list sorted. Folders in the last two lists are not walked."""

    place: Path
    files: list[str]
    hidden_folders: list[str]
    links_back: list[str]


def _walk(folder: Path) -> Iterator[_Found]:
    """Walk a folder, through links too.

    Raises:
        UserError: a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise UserError(
            f"the folder {printable(error.filename)} cannot be read ({error.strerror})",
            next_step="allow it to be read, or move it away",
        ) from error

    for name, inside, files in os.walk(folder, followlinks=True, onerror=refuse):
        place = Path(name)
        hidden = [each for each in inside if not may_hold_data(Path(each)) and each != "__MACOSX"]
        visible = sorted(each for each in inside if may_hold_data(Path(each)))
        back = [each for each in visible if leads_back(place / each)]
        inside[:] = [each for each in visible if each not in back]
        yield _Found(place, sorted(files), sorted(hidden), back)
