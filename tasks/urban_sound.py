"""UrbanSound8K: urban sounds in ten official folds (Salamon et al., 2014).

metadata/UrbanSound8K.csv                       slice_file_name, fsID, ..., fold, classID, class
audio/fold{1-10}/{slice_file_name}
"""

import csv
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.task import ClipEntry, Reader, TaskCard, locate, read_list


class UrbanSound8K(Reader):
    """Sounds by the official folds; slices of one Freesound recording share a fold."""

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the slices."""
        folder = locate(root, "metadata/UrbanSound8K.csv")
        path = folder / "metadata" / "UrbanSound8K.csv"
        listing = []
        try:
            for row in csv.DictReader(read_list(path).splitlines()):
                name, fold = row["slice_file_name"], int(row["fold"])
                clip = folder / "audio" / f"fold{fold}" / name
                clip_id = f"fold{fold}/{clip.stem}"
                label = row["class"].strip()
                listing.append(ClipEntry(clip_id, clip, label, None, fold, row["fsID"].strip()))
        except (KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
            raise UserError(
                f"{path} is not the list of slices that the data set comes with ({error!r})",
                allowed="columns slice_file_name, fsID, fold and class",
            ) from error
        return listing
