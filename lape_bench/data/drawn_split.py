"""Draw the split of a data set that has no official one, by hashing, so that it is the same on every machine.

The split depends neither on the order of files nor on random numbers. A missing clip moves few others.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

from lape_bench.task import SIDES, ClipEntry, SplitName, TaskCard

FAR = 0.05  # difference between the share of a side and its target above which a note is shown
Unit = tuple[str, list[ClipEntry]]  # clips that stay together, and the group that they share


def draw_split(listing: Sequence[ClipEntry], card: TaskCard) -> list[ClipEntry]:
    """Assign each clip to a side, by the shares in the card.

    If the card has groups, clips of a group stay together as one unit; otherwise each clip is a unit. Shares are met as
    closely as the units allow, for each class and for units with several classes. If a class has two units, train and
    test get one each. If it has three, validation gets one too, if the card has a validation side.

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
    """Return a message that names sides far from their shares; empty if there are none.

    Args:
        counts: clips of each side.
        n_classes: number of classes; rounding may move one clip per class.
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
    # Without the variant, so that all variants of a card have the same split. A synthetic version has another name, and
    # so another split.
    return hashlib.sha256(f"{card.name}/{card.split.seed}/{unit}".encode()).digest()


def _cut(sizes: Sequence[int], shares: Mapping[SplitName, float]) -> list[SplitName]:
    """Place units end to end, divide the line by the shares, and assign each unit to the side in which its middle
    falls.
    """
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
            # Take it from the side with the most units. A later side may end up with none.
            spare = [s for s in order if sides.count(s) > (s not in needed[rank:])]
            if spare:
                giver = max(spare, key=sides.count)
                own = [index for index, side in enumerate(sides) if side == giver]
                # The smallest: it moves the shares least.
                sides[min(own, key=lambda index: sizes[index])] = lacking
    return sides
