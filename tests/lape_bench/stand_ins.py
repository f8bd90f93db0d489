"""Manifests in the shape that a card describes, without recordings."""

from pathlib import Path

import numpy as np
import pandas as pd

from lape_bench.data.catalog import load_card, synthetic
from lape_bench.data.drawn_split import draw_split
from lape_bench.data.manifest import COLUMNS, Manifest, ManifestInfo
from lape_bench.plugins.registry import TASKS
from lape_bench.task import ClipEntry, TaskCard

GROUPS_A_SIDE = 12
MOST_CLIPS = 5_000


def all_references() -> list[str]:
    """Every registered task and each of its variants; of a large one, its synthetic version."""
    references = []
    for name in TASKS.names():
        card = load_card(name)
        if card.expected.clips > MOST_CLIPS:
            card = load_card(synthetic(name))
        variants = [card.with_variant(name) for name in card.variants]
        references += [each.reference for each in (card, *variants)]
    return references


def stand_in(card: TaskCard) -> Manifest:
    """As many clips of each side as the card expects, classes in turn, groups within a side."""
    random = np.random.default_rng(0)
    clips = card.expected.clips
    places = card.expected.per_side or {"drawn": clips}
    if card.split.folds and not card.expected.per_side:
        places = {str(fold): clips // card.split.folds for fold in card.folds}
    listing = []
    for side, count in places.items():
        for number in range(count):
            clip_id = f"{side}/{number:05d}"
            label = card.classes[number % len(card.classes)]
            group = f"{side}-{random.integers(GROUPS_A_SIDE)}" if card.group else None
            place = (None, int(side)) if card.split.folds else (side, None)
            listing.append(ClipEntry(clip_id, Path(clip_id), label, *place, group))
    if card.split.rule == "drawn":
        listing = draw_split(listing, card)
    return as_manifest(card, listing)


def as_manifest(card: TaskCard, listing: list[ClipEntry]) -> Manifest:
    """A manifest of these clips, a second long, each with audio of its own."""
    rows = [
        (
            c.clip_id,
            str(c.path),
            np.nan,
            c.label,
            c.split,
            c.fold or 0,
            c.group,
            1.0,
            16_000,
            f"content-{c.clip_id}",
        )
        for c in sorted(listing)
    ]
    return Manifest(info_for(card), pd.DataFrame(rows, columns=COLUMNS))


def info_for(card: TaskCard) -> ManifestInfo:
    """What a manifest of this card says beside its clips."""
    return ManifestInfo(
        task=card.name,
        variant=card.variant,
        card_version=card.version,
        data=card.data,
        classes=card.classes,
        root="nowhere",
        source="a stand-in",
        store_key="none",
    )
