"""ESC-10: environmental sounds in five official folds (Piczak, 2015).

{NNN} - {Class name}/{fold}-{Freesound id}-{take}.ogg
"""

import re
from pathlib import Path

from lape_bench.task import ClipEntry, Reader, TaskCard, locate

FOLDER = re.compile(r"\d{3} - (?P<label>.+)")
NAME = re.compile(r"(?P<fold>\d)-(?P<recording>\d+)-[A-Z]\.ogg", re.IGNORECASE)


class Esc10(Reader):
    """Sound classes by folder; fold and source recording by file name."""

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the clips of all folds."""
        listing = []
        for path in sorted(locate(root, "[0-9][0-9][0-9] - *").glob("*/*")):
            folder, name = FOLDER.fullmatch(path.parent.name), NAME.fullmatch(path.name)
            if folder and name:
                clip_id = f"{folder['label']}/{path.stem}"
                fold, recording = int(name["fold"]), name["recording"]
                listing.append(ClipEntry(clip_id, path, folder["label"], None, fold, recording))
        return listing
