"""Sides that no author of a data set made: drawn by hashes, so that every machine draws the same.

Neither the order of files nor a generator of random numbers enters, and a clip that is missing moves few others.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from lape_bench.task import SIDES, ClipEntry, SplitName, TaskCard

FAR = 0.05  # of all clips, by which a side may miss its share before that is told
Unit = tuple[str, list[ClipEntry]]  # clips that stay together, with what they share


def draw_split(listing: Sequence[ClipEntry], card: TaskCard) -> list[ClipEntry]:
    """Give each clip its side, by the shares of a card whose split is drawn.

    Clips that share their group stay together where the card has groups; otherwise each goes its own way. Shares are
    kept as nearly as such units allow, within the units of each class, and within those of several classes together.
    Where a class has two units, train and test have one each; where it has three, validation too, if the card has it.

    Args:
        listing: the clips, in any order.
        card: a card with `rule: drawn`.

    Returns:
        The clips with their sides.
    """
    assert card.split.shares is not None
    units: dict[str, list[ClipEntry]] = defaultdict(list)
    for clip in listing:
        together = clip.group if card.group is not None and clip.group is not None else clip.clip_id
        units[together].append(clip)
    strata: dict[str | None, list[Unit]] = defaultdict(list)
    for name, clips in units.items():
        one_class = len({clip.label for clip in clips}) == 1
        strata[clips[0].label if one_class else None].append((name, clips))
    drawn = []
    for stratum in strata.values():
        stratum.sort(key=lambda unit: _position(unit[0], card))
        sides = _cut([len(clips) for _, clips in stratum], card.split.shares)
        for (_, clips), side in zip(stratum, sides, strict=True):
            drawn += [clip._replace(split=side) for clip in clips]
    return drawn


def missed_shares(
    counts: Mapping[str, int], n_classes: int, shares: Mapping[SplitName, float]
) -> str:
    """Say which sides of a drawn split are far from their shares; empty if none is.

    Args:
        counts: clips of each side.
        n_classes: of each, a clip more or less comes from rounding.
        shares: of each side.
    """
    total = sum(counts.values())
    far = [
        f"{100 * counts.get(side, 0) / total:.0f} % {side} instead of {100 * share:.0f} %"
        for side, share in shares.items()
        if abs(counts.get(side, 0) - share * total) > max(FAR * total, n_classes)
    ]
    return ", ".join(far)


def _position(unit: str, card: TaskCard) -> bytes:
    # Not the variant: those of one card draw alike. A synthetic version has another name, and so another draw.
    return hashlib.sha256(f"{card.name}/{card.split.seed}/{unit}".encode()).digest()


def _cut(sizes: Sequence[int], shares: Mapping[SplitName, float]) -> list[SplitName]:
    """Lay units end to end, cut the line by the shares, and see where the middle of each unit falls."""
    order = [side for side in SIDES if side in shares]
    ends = list(accumulate(shares[side] for side in order))
    total = sum(sizes)
    sides = []
    for before, after in pairwise(accumulate(sizes, initial=0)):
        middle = (before + after) / 2 / total
        sides.append(
            next((s for s, end in zip(order, ends, strict=True) if middle < end), order[-1])
        )
    needed: tuple[SplitName, ...] = ("train", "test", "val")
    for rank, lacking in enumerate(needed):
        if lacking in shares and lacking not in sides:
            # Of the sides with units to spare the one with most; a later side may be left with none.
            spare = [s for s in order if sides.count(s) > (s not in needed[rank:])]
            if spare:
                giver = max(spare, key=sides.count)
                own = [index for index, side in enumerate(sides) if side == giver]
                # The smallest: it moves the shares least.
                sides[min(own, key=lambda index: sizes[index])] = lacking
    return sides
