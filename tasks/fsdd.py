"""Free Spoken Digit Dataset: ten digits by six speakers.

recordings/{digit}_{speaker}_{index}.wav        index 0-49
"""

import re
from pathlib import Path

from lape_bench.task import ClipEntry, Reader, TaskCard, locate

NAME = re.compile(r"(?P<digit>[^_]+)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav", re.IGNORECASE)
FOLDS = {"george": 1, "jackson": 1, "lucas": 2, "nicolas": 2, "theo": 3, "yweweler": 3}
OFFICIAL_TEST_BELOW = 5


class FreeSpokenDigits(Reader):
    """Digits by pairs of speakers in three folds, or by the official index split."""

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the clips; the variant `official` puts indices 0-4 of every speaker into test."""
        listing = []
        for path in sorted((locate(root, "recordings/*") / "recordings").iterdir()):
            name = NAME.fullmatch(path.name)
            if not name:
                continue
            clip = (path.stem, path, name["digit"])
            if card.variant == "official":
                is_test = int(name["index"]) < OFFICIAL_TEST_BELOW
                listing.append(ClipEntry(*clip, "test" if is_test else "train", None, None))
            else:
                listing.append(ClipEntry(*clip, None, FOLDS.get(name["speaker"]), name["speaker"]))
        return listing
