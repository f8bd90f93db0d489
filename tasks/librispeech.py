"""LibriSpeech train-clean-100: speaker identification (Panayotov et al., 2015).

LibriSpeech/train-clean-100/{speaker}/{chapter}/{speaker}-{chapter}-{utterance}.flac
"""

import re
from pathlib import Path

from lape_bench.task import ClipEntry, Reader, TaskCard, locate

SUBSET = "train-clean-100"
NAME = re.compile(r"(?P<speaker>\d+)-(?P<chapter>\d+)-\d+\.(flac|wav)", re.IGNORECASE)


class LibriSpeechSpeakers(Reader):
    """Speakers by folder; the variant `chapters` keeps what a speaker read in one chapter together."""

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the utterances; their sides are drawn."""
        is_it = root.name == SUBSET and any(root.glob("[0-9]*/[0-9]*"))
        folder = root if is_it else locate(root, f"{SUBSET}/*/*") / SUBSET
        listing = []
        for path in sorted(folder.glob("*/*/*")):
            name = NAME.fullmatch(path.name)
            if name:
                chapter = f"{name['speaker']}-{name['chapter']}" if card.group else None
                listing.append(ClipEntry(path.stem, path, name["speaker"], None, None, chapter))
        return listing
