"""IEMOCAP: acted emotion in five sessions of two speakers (Busso et al., 2008).

    Session{1-5}/sentences/wav/{dialogue}/{dialogue}_{speaker's letter}{number}.wav
    Session{1-5}/dialog/EmoEvaluation/{dialogue}.txt

A dialogue is Ses{session}{letter}_impro{..} or Ses{session}{letter}_script{..}. The second field of a line such as
`[6.2901 - 8.2357]	Ses01F_impro01_F000	neu	[2.5000, 2.5000, 2.5000]` names the utterance, the third the emotion
that the evaluators agreed on.
"""

import re
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.task import ClipEntry, Reader, TaskCard, locate, read_list

LINE = re.compile(r"\[[^\]]+\]\t(?P<name>\S+)\t(?P<emotion>\w+)\t.*")
NAME = re.compile(r"(?P<dialogue>Ses0(?P<session>[1-5])[FM]_\w+)_(?P<letter>[FM])\w+")


class Iemocap(Reader):
    """Emotions by session; variants merge excitement into happiness, or leave out scripted dialogues."""

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the utterances whose emotion the card has."""
        folder = locate(root, "Session[1-5]/dialog/EmoEvaluation")
        listing = []
        for path in sorted(folder.glob("Session[1-5]/dialog/EmoEvaluation/Ses*.txt")):
            text = read_list(path, "replace")
            for line in filter(None, map(LINE.fullmatch, text.splitlines())):
                name = NAME.fullmatch(line["name"])
                emotion = line["emotion"]
                if emotion == "exc" and card.variant == "excited":
                    emotion = "hap"
                if name is None or emotion not in card.classes:
                    continue
                if card.variant == "improvised" and "_script" in name["dialogue"]:
                    continue
                session = int(name["session"])
                sentences = folder / f"Session{session}" / "sentences" / "wav"
                clip = sentences / name["dialogue"] / f"{line['name']}.wav"
                if not sentences.is_dir():
                    raise UserError(
                        f"{path} names {line['name']}, but {sentences} is missing",
                        next_step="unpack the full release, which has sentences/wav in every session",
                    )
                speaker = f"{session}{name['letter']}"
                listing.append(ClipEntry(line["name"], clip, emotion, None, session, speaker))
        return listing
