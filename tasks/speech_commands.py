"""Speech Commands: one-word recordings by many speakers (Warden, 2018, arXiv:1804.03209).

    {word}/{speaker, 8 hex digits}_nohash_{take}.wav
    _background_noise_/{name}.wav
    validation_list.txt  testing_list.txt           paths relative to the root, one per line

and, in an archive of its own, the test set of the 12-class task, whose unknown words keep their word in the name:

    {command, _unknown_ or _silence_}/*.wav
"""

import re
from collections.abc import Iterator
from pathlib import Path

import soundfile

from lape_bench.core.errors import UserError
from lape_bench.core.regular_files import MOST_TABLE_BYTES, open_regular
from lape_bench.task import (
    ClipEntry,
    Reader,
    Segment,
    SplitName,
    TaskCard,
    folders,
    locate,
    read_list,
)

NAME = re.compile(r"(?:[a-z]+_)?(?P<speaker>[0-9a-f]{8})_nohash_\d+(?:\.wav)?\.wav", re.IGNORECASE)
LISTS: dict[str, SplitName] = {"validation_list.txt": "val", "testing_list.txt": "test"}
NOISE, SILENCE, UNKNOWN = "_background_noise_", "_silence_", "_unknown_"
VALIDATION_NOISE = "running_tap"
SILENCE_SECONDS, SILENCE_HOP_SECONDS = 1.0, 0.5


class SpeechCommands(Reader):
    """Words by the official lists; with 12 classes, other words are unknown and stretches of noise silence.

    The variant of the card decides if the 12 classes are tested on their own archive or on the testing list:
    `test-archive` or `testing-list`.
    """

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the clips; the card's classes tell whether other words and noise belong to the task."""
        folder = locate(root, "testing_list.txt")
        sides = _listed_sides(folder)
        twelve = SILENCE in card.classes
        from_archive = (
            twelve
            and card.variant != "testing-list"
            and (card.name == "sc-v2-12" or card.variant == "test-archive")
        )
        listing = []
        for path in sorted(folder.glob("[a-z]*/*")):
            name, word = NAME.fullmatch(path.name), path.parent.name
            if not name:
                continue
            clip_id = f"{word}/{path.stem}"
            side = sides.get(clip_id.lower(), "train")
            if from_archive and side == "test":
                continue
            label = word if word in card.classes or not twelve else UNKNOWN
            listing.append(ClipEntry(clip_id, path, label, side, None, name["speaker"].lower()))
        if twelve:
            listing += _silence(folder)
        if from_archive:
            listing += _test_archive(root, folder)
        return listing


def _listed_sides(folder: Path) -> dict[str, SplitName]:
    """Map each clip id of the lists, in lower case, to its side."""
    sides: dict[str, SplitName] = {}
    for name, side in LISTS.items():
        path = folder / name
        try:
            lines = read_list(path).splitlines()
        except (UserError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path} cannot be read ({error})",
                allowed="the official lists are beside the folders of words",
            ) from error
        for number, line in enumerate(map(str.strip, lines), 1):
            word, _, name = line.partition("/")
            if not line:
                continue
            if not word or not NAME.fullmatch(name):
                raise UserError(
                    f"{path}: line {number} is not of the form 'bed/0a7c2a8d_nohash_0.wav'"
                )
            clip_id = Path(line).with_suffix("").as_posix().lower()
            if sides.setdefault(clip_id, side) != side:
                raise UserError(f"{path} lists '{clip_id}', which the other list has too")
    return sides


def _silence(folder: Path) -> Iterator[ClipEntry]:
    """Cut the noise recordings into windows that overlap by half; one that ends with its file is left out."""
    paths = [
        path for path in sorted((folder / NOISE).glob("[!.]*")) if path.suffix.lower() == ".wav"
    ]
    if not paths:
        raise UserError(
            f"{folder / NOISE} holds no recording, and silence is cut from it",
            next_step="get the archive again, or run a task without silence, such as sc-v2-35",
        )
    for path in paths:
        try:
            with open_regular(path, MOST_TABLE_BYTES) as file:  # a named pipe would never end
                seconds = soundfile.info(file).duration
        except soundfile.SoundFileError as error:
            raise UserError(f"{path} is not readable as audio ({error})") from error
        number = 0
        while number * SILENCE_HOP_SECONDS + SILENCE_SECONDS < seconds:
            segment = Segment(number * SILENCE_HOP_SECONDS, SILENCE_SECONDS)
            side: SplitName = "val" if path.stem == VALIDATION_NOISE else "train"
            clip_id = f"{SILENCE}/{path.stem}-{number:03d}"
            yield ClipEntry(clip_id, path, SILENCE, side, None, f"{NOISE}/{path.stem}", segment)
            number += 1


def _test_archive(root: Path, main: Path) -> Iterator[ClipEntry]:
    """List the archive that was made to test 12 classes; its silence comes one second a file.

    Args:
        root: the folder that holds both archives.
        main: the folder of the other archive, which also has folders named after words.
    """
    folder = next(folders(root, f"{UNKNOWN}/*"), None)
    if folder is None:
        raise UserError(
            f"{root} lacks the test archive of the 12-class task: no folder {UNKNOWN} with clips in it",
            next_step="unpack it beside the other archive, or give both: --from A --from B",
        )
    if folder == main:
        raise UserError(
            f"both archives were unpacked into {folder}, so train and test clips are mixed",
            next_step="unpack each archive into a folder of its own, and give both: --from A --from B",
        )
    for path in sorted(folder.glob("*/[!.]*")):
        if path.suffix.lower() != ".wav":
            continue
        name = NAME.fullmatch(path.name)
        clip_id = f"test/{path.parent.name}/{path.name.split('.')[0]}"
        # Silence was cut from the noise recordings by its authors, who do not say from which.
        group = name["speaker"].lower() if name else clip_id
        yield ClipEntry(clip_id, path, path.parent.name, "test", None, group)
