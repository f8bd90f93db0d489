"""Bird detection: freefield1010 and warblrb10k (Stowell et al., 2019, arXiv:1807.05812).

    {archive}/wav/{item}.wav
    ff1010bird_metadata.csv  warblrb10k_public_metadata.csv          columns itemid, hasbird, perhaps others

Which wav/ belongs to which set shows in the items: numbers in freefield1010, UUIDs in warblrb10k.
"""

import csv
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.task import ClipEntry, Reader, TaskCard, folders, locate, read_list

METADATA = {
    "ff1010bird": "ff1010bird_metadata*.csv",
    "warblrb10k_public": "warblrb10k_public_metadata*.csv",
}
LABELS = {"0": "no bird", "1": "bird"}


class BirdDetection(Reader):
    """Whether a bird is heard, in both sets together; sides are drawn."""

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the recordings that the metadata of both sets name."""
        audio = {
            path.name: path
            for folder in folders(root, "wav/*")
            for path in (folder / "wav").iterdir()
        }
        listing = []
        for name, pattern in METADATA.items():
            path = next(iter(sorted(locate(root, pattern).glob(pattern))))
            try:
                rows = list(csv.DictReader(read_list(path).splitlines()))
                labels = {row["itemid"].strip(): LABELS[row["hasbird"].strip()] for row in rows}
            except (UnicodeDecodeError, KeyError, csv.Error, AttributeError) as error:
                raise UserError(
                    f"{path} is not the metadata of {name} ({error!r})",
                    allowed="columns itemid and hasbird, the latter 0 or 1",
                ) from error
            here = [audio[f"{item}.wav"] for item in labels if f"{item}.wav" in audio]
            if not here:
                raise UserError(
                    f"{root} does not have the expected layout: none of the recordings that {path.name} names is in a wav/",
                    next_step=f"unpack the archive of {name} beside its metadata, or give both: --from A --from B",
                )
            for item, label in labels.items():
                # A recording that is nowhere is listed beside another, so that it is reported as missing.
                clip = audio.get(f"{item}.wav", here[0].with_name(f"{item}.wav"))
                listing.append(ClipEntry(f"{name}/{item}", clip, label, None, None, None))
        return listing
