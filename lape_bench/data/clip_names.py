"""Give clips the same names on every machine: composed Unicode, with bytes escaped that are not UTF-8."""

import os
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from lape_bench.task import ClipEntry

NAMED = 5  # names in a message


def named_alike(clip: ClipEntry) -> ClipEntry:
    """Return a clip with ID and group in the common spelling."""
    group = None if clip.group is None else spelled(clip.group)
    return clip._replace(clip_id=spelled(clip.clip_id), group=group)


def spelled(name: str) -> str:
    """Return a name in composed Unicode, with bytes escaped that are not UTF-8."""
    return unicodedata.normalize("NFC", printable(name))


def printable(name: str | Path) -> str:
    """Return a printable name: bytes that are not UTF-8 are escaped."""
    return str(name).encode("utf-8", "backslashreplace").decode("utf-8")


def spaces_shown(label: str) -> str:
    """Return a label with unusual and invisible spaces escaped."""
    return "".join(
        ascii(letter)[1:-1]
        if letter != " " and (letter.isspace() or not letter.isprintable())
        else letter
        for letter in label
    )


def caseless(name: str) -> str:
    """Return a name in lower case, with every kind of space replaced by a single plain one, to compare names."""
    composed = unicodedata.normalize("NFKC", name).casefold()
    visible = "".join(letter for letter in composed if unicodedata.category(letter) != "Cf")
    return " ".join(visible.split())


def shortened(names: Sequence[str]) -> str:
    """Return names as a text for a message, which counts those after the first few."""
    more = f", and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return printable(", ".join(names[:NAMED])) + more


def find_spelled_alike(path: Path, root: Path) -> Path:
    """Return the file whose name matches a path in another Unicode form or in Latin-1; `path` if there is none.

    Archives from macOS decompose accented letters, and old archives hold names in Latin-1.
    """
    if os.path.lexists(path):
        return path
    place = root
    for part in path.relative_to(root).parts:
        if not os.path.lexists(place / part):
            part = _names_in(place, _changed_at(place)).get(_letters(part), part)
        place /= part
    return place if os.path.lexists(place) else path


@lru_cache(maxsize=64)
def _names_in(folder: Path, changed_at: int) -> dict[str, str]:
    """Map the comparable form of each name in a folder to the name. Forms that two names share are left out.

    Args:
        folder: the folder.
        changed_at: time of its last change, so that an outdated listing is not reused.
    """
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError:
        return {}
    by_letters: dict[str, str] = {}
    for name in names:
        letters = _letters(name)
        by_letters[letters] = "" if letters in by_letters else name
    return {letters: name for letters, name in by_letters.items() if name}


def _changed_at(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _letters(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError:
        name = os.fsencode(name).decode("latin-1")
    return unicodedata.normalize("NFC", name)
