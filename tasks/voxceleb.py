"""VoxCeleb1: speaker identification in videos (Nagrani et al., 2017).

wav/{speaker}/{video}/{utterance}.wav         also below dev/ and test/, as the archives unpack
iden_split.txt                                lines of `1 id10001/video/00001.wav`: 1 train, 2 val, 3 test
"""

from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.task import ClipEntry, Reader, SplitName, TaskCard, folders, locate, read_list

SIDES: dict[str, SplitName] = {"1": "train", "2": "val", "3": "test"}


class VoxCeleb1(Reader):
    """Speakers by the official list for identification."""

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the utterances that the list names and the folders hold."""
        path = locate(root, "iden_split.txt") / "iden_split.txt"
        speakers: dict[str, list[Path]] = {}
        for folder in folders(root, "wav/id*"):
            for place in (folder / "wav").glob("id*"):
                speakers.setdefault(place.name, []).append(place)
        if not speakers:
            raise UserError(
                f"{root} does not have the expected layout: no wav/id* in it",
                next_step="unpack the audio beside iden_split.txt; 'bench tasks show voxceleb1' says how",
            )
        listing = []
        # No speaker's name holds a byte that is not UTF-8.
        lines = read_list(path, "replace").splitlines()
        for number, line in enumerate(map(str.strip, lines), 1):
            if not line:
                continue
            side, _, name = line.partition(" ")
            parts = Path(name.strip()).parts
            if side not in SIDES or len(parts) != 3:
                raise UserError(
                    f"{path}: line {number} is not of the form '1 id10001/video/00001.wav'"
                )
            speaker, video, utterance = parts
            if speaker in speakers:
                clips = [place / video / utterance for place in speakers[speaker]]
                clip = next((path for path in clips if path.is_file()), clips[0])
                clip_id = f"{speaker}/{video}/{clip.stem}"
                group = f"{speaker}/{video}"
                listing.append(ClipEntry(clip_id, clip, speaker, SIDES[side], None, group))
        return listing
