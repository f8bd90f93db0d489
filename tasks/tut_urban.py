"""TUT Urban Acoustic Scenes 2018, development set (Mesaros et al., 2018, arXiv:1807.09840).

meta.csv                                        filename, scene_label, identifier, source_label; by tabs
evaluation_setup/fold1_train.txt                `audio/{file}.wav` and its scene, by a tab
evaluation_setup/fold1_evaluate.txt             the same
audio/{scene}-{city}-{place}-{segment}-{device}.wav             in 13 archives
"""

import csv
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.task import ClipEntry, Reader, SplitName, TaskCard, folders, locate, read_list

LISTS: dict[str, SplitName] = {"fold1_train.txt": "train", "fold1_evaluate.txt": "test"}


class TutUrban2018(Reader):
    """Scenes by the official first fold, which keeps places apart."""

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the segments of both lists."""
        audio = {
            path.name: path
            for folder in folders(root, "audio/*.wav")
            for path in (folder / "audio").iterdir()
        }
        meta = locate(root, "meta.csv") / "meta.csv"
        facts = _facts(meta)
        listing = []
        for name, side in LISTS.items():
            path = locate(root, f"evaluation_setup/{name}") / "evaluation_setup" / name
            # No segment's name holds a byte that is not UTF-8.
            for line in read_list(path, "replace").splitlines():
                file_name = Path(line.split("\t")[0].strip()).name
                if not line.strip():
                    continue
                if file_name not in facts:
                    raise UserError(f"{path} lists '{file_name}', which {meta.name} does not have")
                # A segment that is nowhere is listed where it would be, so that it is reported as missing.
                clip = audio.get(file_name, meta.parent / "audio" / file_name)
                scene, place = facts[file_name]
                listing.append(ClipEntry(clip.stem, clip, scene, side, None, place))
        return listing


def _facts(meta: Path) -> dict[str, tuple[str, str]]:
    """Map each file's name to its scene and its place."""
    try:
        rows = csv.DictReader(read_list(meta).splitlines(), delimiter="\t")
        return {
            Path(row["filename"]).name: (row["scene_label"].strip(), row["identifier"].strip())
            for row in rows
        }
    except (UnicodeDecodeError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise UserError(
            f"{meta} is not the list of segments that the data set comes with ({error!r})",
            allowed="columns filename, scene_label and identifier, parted by tabs",
        ) from error
