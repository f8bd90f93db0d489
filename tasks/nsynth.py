"""NSynth: single notes of many instruments (Engel et al., 2017).

nsynth-{train, valid or test}/examples.json          keys are notes
nsynth-{train, valid or test}/audio/{note}.wav
"""

import json
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.task import ClipEntry, Reader, SplitName, TaskCard, locate, read_list

SIDES: dict[str, SplitName] = {"train": "train", "valid": "val", "test": "test"}


class NSynth(Reader):
    """Instrument families by the official sides."""

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the notes whose family the card has."""
        listing = []
        for name, side in SIDES.items():
            folder = locate(root, f"nsynth-{name}/examples.json") / f"nsynth-{name}"
            path = folder / "examples.json"
            try:
                notes = json.loads(read_list(path))
                for note, facts in notes.items():
                    family, instrument = facts["instrument_family_str"], facts["instrument_str"]
                    if family in card.classes or not card.variant:
                        clip = folder / "audio" / f"{note}.wav"
                        listing.append(ClipEntry(note, clip, family, side, None, instrument))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise UserError(
                    f"{path} is not the list of notes that NSynth comes with ({error!r})"
                ) from error
        return listing
