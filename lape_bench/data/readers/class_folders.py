"""One folder per class, optionally below folders for the sides: the usual layout of one's own recordings.

    [{train, val or test}/]{class}/.../{clip}.wav        or another extension of `audio.SUFFIXES`

Links to folders are followed. Files that are not audio are skipped. Hidden files and folders are skipped with a
warning.
"""

import unicodedata
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.data.audio_files import files_below, is_audio, warn_of_passed_over
from lape_bench.task import SIDE_NAMES, ClipEntry, Reader, SplitName, TaskCard, may_hold_data


class ClassFolders(Reader):
    """Classes are folders. If the split of the card is official, sides are the folders above them."""

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List every audio file below the class folders."""
        return list_clips(root, card.split.rule == "official")


def list_clips(root: Path, with_sides: bool) -> list[ClipEntry]:
    """List every audio file below class folders.

    Args:
        root: the folder that holds them.
        with_sides: whether class folders are below folders for the sides; see `has_sides`.
    """
    warn_of_passed_over(root)
    places = _sides(root) if with_sides else {root: None}
    return [
        ClipEntry(path.relative_to(root).with_suffix("").as_posix(), path, label, side, None, None)
        for place, side in places.items()
        for folder in subfolders(place)
        for label in [class_name(folder)]
        for path in files_below(folder)
        if is_audio(path)
    ]


def has_sides(root: Path) -> bool:
    """Return True if the folders below `root` are sides and not classes.

    A folder `train` alone is a class, such as trains on rails. Beside `test` it is a side.

    Raises:
        UserError: there are sides and other folders, or sides without train or test.
    """
    holding = [folder for folder in subfolders(root) if any(map(is_audio, files_below(folder)))]
    names = [folder.name for folder in holding]
    others = [name for name in names if name.lower() not in SIDE_NAMES]
    sides = {SIDE_NAMES[name.lower()] for name in names if name not in others}
    if others:
        if {"train", "test"} <= sides:
            raise UserError(
                f"{root} has folders for sides and also '{others[0]}'",
                allowed="either class folders, or folders train, test and perhaps val with class folders below",
                next_step="move the other folders away, or rename a class that has the name of a side",
            )
        return False
    if len(names) < 2:  # none, or a single class
        return False
    if not {"train", "test"} <= sides:
        raise UserError(
            f"{root} has {' and '.join(names)}, which are sides, but not both train and test",
            allowed="folders train and test, and perhaps val",
            next_step="rename them, or put the class folders together and let sides be drawn",
        )
    return True


def class_name(folder: Path) -> str:
    """Return the name of a class folder in the spelling that is the same on every machine.

    Raises:
        UserError: the name is not UTF-8.
    """
    try:
        folder.name.encode()
    except UnicodeEncodeError as error:
        shown = str(folder).encode("utf-8", "backslashreplace").decode()
        raise UserError(
            f"the name of the folder {shown} is not UTF-8", next_step="rename it"
        ) from error
    return unicodedata.normalize("NFC", folder.name)


def subfolders(root: Path) -> list[Path]:
    """Return the folders in a folder, sorted, without hidden ones."""
    return sorted(path for path in root.iterdir() if path.is_dir() and may_hold_data(path))


def _sides(root: Path) -> dict[Path, SplitName | None]:
    """Map the folders for the sides to the sides. Other folders are skipped."""
    places = {folder: SIDE_NAMES.get(folder.name.lower()) for folder in subfolders(root)}
    return {folder: side for folder, side in places.items() if side is not None}
