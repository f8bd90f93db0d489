"""Manifests in the shape that a card describes, without recordings."""

import numpy as np
import pandas as pd

from lape_bench.manifest import COLUMNS, Manifest, ManifestInfo
from lape_bench.registry import TASKS
from lape_bench.task import TaskCard, load_card

GROUPS_A_SIDE = 12


def all_references() -> list[str]:
    """Every registered task, and each of its variants."""
    cards = [load_card(name) for name in TASKS.names()]
    return [
        each.reference
        for card in cards
        for each in [card, *(card.with_variant(name) for name in card.variants)]
    ]


def stand_in(card: TaskCard) -> Manifest:
    """As many clips of each side as the card expects, classes in turn, groups within a side."""
    random = np.random.default_rng(0)
    rows = []
    for side, count in card.expected.per_side.items():
        for number in range(count):
            clip_id = f"{side}/{number:05d}"
            label = card.classes[number % len(card.classes)]
            group = f"{side}-{random.integers(GROUPS_A_SIDE)}" if card.group else None
            place = (None, int(side)) if card.split.folds else (side, 0)
            rows.append((clip_id, clip_id, label, *place, group, 1.0, 16_000, f"content-{clip_id}"))
    table = pd.DataFrame(rows, columns=COLUMNS).sort_values("clip_id", ignore_index=True)
    return Manifest(info_for(card), table)


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
