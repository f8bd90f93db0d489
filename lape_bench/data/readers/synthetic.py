"""Synthetic versions of tasks: the same classes, splits, folds and groups with generated clips, without a download.

    {class}/{side or fold}-{take}.wav

The synthetic version of `us8k` is the task `us8k-synthetic`. All clips last about a second.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from math import log2
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from lape_bench.core.seeding import Seeds
from lape_bench.task import SIDES, ClipEntry, Expected, Generator, SplitName, TaskCard

VERSION = 1  # raised whenever the clips change
SUFFIX = "-synthetic"
CLIPS = 320  # clips of a task, as far as the takes below allow
FEWEST_TAKES, MOST_TAKES = 5, 80  # of a class
SHARES: dict[SplitName, float] = {"train": 0.6, "val": 0.2, "test": 0.2}
GROUPS = 3  # on each side, in each fold
DRAWN_GROUPS = 12  # takes per class, if sides are drawn
SECONDS = (0.7, 1.3)
WINDOW_SECONDS = 1.0
# Standard deviation of the background noise, relative to that of the sound, for four classes; lower for more classes.
# It keeps the log-mel baseline below 95 %.
NOISE = {"speech": 0.6, "music": 0.8, "bioacoustics": 2.5, "sound": 4.0}


class PlannedClip(NamedTuple):
    """A clip before it is generated."""

    label: str
    side: SplitName | None
    fold: int | None
    group: str
    take: int

    @property
    def path(self) -> str:
        """The file, relative to the folder of the data set."""
        place = self.side or f"fold{self.fold or 0}"
        return f"{quote(self.label, safe=' ')}/{place}-{self.take:02d}.wav"


def synthetic_card(card: TaskCard) -> TaskCard:
    """Return the card of the synthetic version of a task."""
    split = card.split.model_copy(update={"origin": f"generated, with the split of {card.name}"})
    variants = {}
    for name, variant in card.variants.items():
        own: dict[str, Any] = {
            "window_seconds": WINDOW_SECONDS,
            "expected": _expected(card.with_variant(name)),
        }
        if variant.split is not None:
            own["split"] = variant.split.model_copy(update={"origin": split.origin})
        variants[name] = variant.model_copy(update=own)
    changes = {
        "name": card.name + SUFFIX,
        "version": card.version + VERSION - 1,
        "title": f"{card.title}, synthetic version",
        "about": f"generated clips with the classes, sides and groups of {card.name}",
        "suite": card.suite + SUFFIX,
        "data": "synthetic",
        "window_seconds": WINDOW_SECONDS,
        "shortest_seconds": 0.1,
        "split": split,
        "sources": (),
        "recordings": None,
        "obtain": "",
        "license": "Apache-2.0",
        "citation": "lape_bench",
        "expected": _expected(card),
        "variants": variants,
    }
    return card.model_copy(update=changes)


class SyntheticReader(Generator):
    """Generates the clips of a synthetic version and lists them."""

    def generate(self, root: Path, card: TaskCard) -> None:
        """Write 16-bit mono WAV files for the card and its variants."""
        # Here, since SciPy is slow to import and listing the tasks does not need it.
        import soundfile

        from lape_bench.data.readers.synthesis import RATE, render

        seeds = Seeds(card.version, card.name)
        cards = [card, *(card.with_variant(name) for name in card.variants)]
        for path, clip in {clip.path: clip for each in cards for clip in _plan(each)}.items():
            of_clip = seeds.numpy(path)
            wave = render(
                card.domain,
                seeds.numpy("class", clip.label),
                seeds.numpy("group", clip.group),
                of_clip,
                of_clip.uniform(*SECONDS),
                NOISE[card.domain] * min(1, 2 / log2(len(card.classes))),
            )
            (root / path).parent.mkdir(exist_ok=True)
            soundfile.write(root / path, wave, RATE, subtype="PCM_16")

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the clips of the card."""
        return [
            ClipEntry(
                clip.path.removesuffix(".wav"),
                root / clip.path,
                clip.label,
                clip.side,
                clip.fold,
                clip.group if card.group else None,
            )
            for clip in _plan(card)
        ]


def _plan(card: TaskCard) -> Iterator[PlannedClip]:
    """Plan equally many takes of each class, for each side or fold, with its groups in turn."""
    takes = min(MOST_TAKES, max(FEWEST_TAKES, round(CLIPS / len(card.classes))))
    for label in card.classes:
        if card.split.rule == "drawn":
            for take in range(takes):
                yield PlannedClip(label, None, None, f"{label}.{take % DRAWN_GROUPS}", take)
        elif card.split.folds:
            for fold, take in itertools.product(
                card.folds, range(max(1, takes // len(card.folds)))
            ):
                yield PlannedClip(label, None, fold, f"fold{fold}.{take % GROUPS}", take)
        else:
            for side in (each for each in SIDES if each in (card.expected.per_side or SIDES)):
                for take in range(max(1, int(SHARES[side] * takes))):
                    shared = card.split.may_share
                    place = " and ".join(shared) if side in shared else side
                    yield PlannedClip(label, side, None, f"{place}.{take % GROUPS}", take)


def _expected(card: TaskCard) -> Expected:
    clips = list(_plan(card))
    places = Counter(str(clip.side or clip.fold) for clip in clips if clip.side or clip.fold)
    per_class = Counter(clip.label for clip in clips)
    return Expected(clips=len(clips), per_class=dict(per_class), per_side=dict(places))
