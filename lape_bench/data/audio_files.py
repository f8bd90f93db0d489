"""The files below a folder that are audio by their endings; what is passed over is told."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lape_bench.core.errors import UserError
from lape_bench.data.audio import SUFFIXES
from lape_bench.data.clip_names import printable
from lape_bench.task import may_hold_data

logger = logging.getLogger(__name__)


def is_audio(path: Path) -> bool:
    """Tell by its ending whether a file is audio."""
    return path.suffix.lower() in SUFFIXES


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, sorted, without hidden ones; links to folders are followed, except back up.

    Raises:
        UserError: a folder cannot be read.
    """
    for found in _walk(folder):
        yield from (found.place / name for name in found.files if not name.startswith("."))


def warn_of_passed_over(folder: Path) -> None:
    """Tell of audio files that are hidden, or whose folder is, and of links that lead back to a folder above."""
    hidden: list[Path] = []
    for found in _walk(folder):
        # Beside each file, a Mac leaves a hidden one without audio, "._" before its name.
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
    """What lies in one folder, each sorted; only what is in neither of the last two is walked."""

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
        back = [each for each in visible if _leads_back(place / each)]
        inside[:] = [each for each in visible if each not in back]
        yield _Found(place, sorted(files), sorted(hidden), back)


def _leads_back(path: Path) -> bool:
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())
