"""Arabic Speech Commands: keywords by speakers in rounds (Ghandoura et al., 2021).

    dataset/{keyword}/{speaker, 8 digits}_NO_{round, 2 digits}.wav or .flac
    train.csv  val.csv  test.csv        columns file,class

The tasks are defined on 20 of the 40 keywords and 5 of the 10 rounds; from the full data set the
reader takes just those clips.
"""

import csv
import re
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.task import ClipEntry, Reader, SplitName, TaskCard, locate, read_list

KEYWORDS = (
    "backward", "close", "direction", "down", "enable", "five", "four", "move", "nine", "ok",
    "open", "previous", "record", "rotate", "seven", "start", "three", "undo", "yes", "zoom in",
)  # fmt: skip
ROUNDS: dict[str, SplitName] = {
    "01": "train",
    "03": "train",
    "05": "train",
    "07": "val",
    "09": "test",
}
NAME = re.compile(r"(?P<speaker>\d{8})_NO_(?P<round>\d\d)\.(wav|flac)", re.IGNORECASE)


class ArabicSpeechCommands(Reader):
    """Keywords by the official, speaker-disjoint lists, or speakers by rounds."""

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the clips; the card's name tells which of the two tasks is meant."""
        folder = locate(root, "dataset/*/*")
        by_speaker = card.name == "asc-speaker"
        sides = {} if by_speaker else _official_sides(folder)
        listing = []
        for path in sorted((folder / "dataset").glob("*/*")):
            name = NAME.fullmatch(path.name)
            keyword = path.parent.name
            if not name or name["round"] not in ROUNDS or keyword not in KEYWORDS:
                continue
            clip_id = f"{keyword}/{path.stem}"
            if by_speaker:
                listing.append(
                    ClipEntry(clip_id, path, name["speaker"], ROUNDS[name["round"]], None, None)
                )
            elif clip_id in sides:
                listing.append(
                    ClipEntry(clip_id, path, keyword, sides[clip_id], None, name["speaker"])
                )
            else:
                raise UserError(f"{path} is in none of train.csv, val.csv and test.csv")
        return listing


def _official_sides(folder: Path) -> dict[str, SplitName]:
    sides: dict[str, SplitName] = {}
    names: tuple[SplitName, ...] = ("train", "val", "test")
    for side in names:
        path = folder / f"{side}.csv"
        if not path.is_file():
            raise UserError(f"{path} is missing", allowed="the official lists are beside dataset/")
        try:
            rows = list(csv.DictReader(read_list(path).splitlines()))
        except (UnicodeDecodeError, csv.Error) as error:
            raise UserError(f"{path} is not a readable list ({error})") from error
        for row in rows:
            listed = Path(row.get("file") or "")
            clip_id = f"{listed.parent.name}/{listed.stem}"
            if sides.setdefault(clip_id, side) != side:
                raise UserError(f"{path} lists '{clip_id}', which {sides[clip_id]}.csv lists too")
    return sides
