"""Check the sides, groups and classes of a task before its card is written, and note what its user should check."""

import re
from collections import defaultdict
from collections.abc import Sequence

from lape_bench.core.errors import UserError
from lape_bench.data.clip_names import caseless, shortened
from lape_bench.data.listing import learned_and_tested, refuse_overlaps, shared_groups, side_of
from lape_bench.task import ClipEntry, TaskCard

UNGROUPED = "clips of one recording or speaker may be on two sides, which makes scores too high; a CSV file with a column 'group' keeps them on one side"

SEVERAL = re.compile(r"[;|&+]|\band\b")  # between the members of a group, such as two speakers


def check_sides(card: TaskCard, listing: Sequence[ClipEntry]) -> list[str]:
    """Return notes on the split of a new task, one sentence each.

    Args:
        card: the drafted card.
        listing: the clips, with their sides.

    Raises:
        UserError: a side or a fold is empty, a group or a stretch of audio is on several sides, or a class of a drawn
            split is not both in train and in test.
    """
    _refuse_missing_sides(card, listing)
    _refuse_shared_groups(card, listing)
    refuse_overlaps(card, listing)
    return [*_check_classes(card, listing), *_similar_groups(card, listing)]


def _refuse_missing_sides(card: TaskCard, listing: Sequence[ClipEntry]) -> None:
    """Raise a `UserError` for an official split without train or test, or folds with a gap."""
    if card.split.rule == "drawn":
        return
    if card.split.folds:
        folds = {clip.fold for clip in listing}
        missing = [str(fold) for fold in card.folds if fold not in folds]
    else:
        missing = sorted({"train", "test"} - {clip.split for clip in listing})
    if missing and card.split.folds:
        raise UserError(
            f"no clip of {card.name} is in fold {', '.join(missing)}",
            allowed="folds are numbered without a gap, two at least",
            next_step="fix the table, or leave its folds out with --column fold=, and sides are drawn",
        )
    if missing:
        raise UserError(
            f"no clip of {card.name} is in {', '.join(missing)}",
            allowed="train and test, and perhaps val",
            next_step="put clips there, or leave the sides out, with --column split= or without folders of theirs, and they "
            "are drawn",
        )


def _refuse_shared_groups(card: TaskCard, listing: Sequence[ClipEntry]) -> None:
    """Raise a `UserError` if clips of one group are on several sides."""
    shared = shared_groups(listing)
    if shared:
        has_column = card.recordings is not None and card.recordings.columns.group is not None
        instead = (
            "leave the groups out with --column group="
            if has_column
            else "name other groups in a column, with --column group=NAME"
        )
        n_groups = len({clip.group for clip in listing} - {None})
        raise UserError(
            f"{len(shared)} of {n_groups} groups ({card.group}) are on several sides: {shortened(shared)}",
            allowed="all clips of a group belong on one side, or scores are too high",
            next_step="leave the sides out with --column split= or --column fold=, and they are drawn again; or "
            + instead,
        )


def _check_classes(card: TaskCard, listing: Sequence[ClipEntry]) -> list[str]:
    """Return notes on classes that are not both in train and in test; refuse them if the sides are drawn."""
    drawn = card.split.rule == "drawn"
    usable = learned_and_tested(card, listing)
    lacking = [name for name in card.classes if name not in usable]
    if not lacking:
        return [UNGROUPED] if drawn and card.group is None else []
    note = f"{len(lacking)} of {len(card.classes)} classes are not both in train and in test: {shortened(lacking)}"
    if not drawn:
        return [note]
    raise UserError(
        note,
        allowed=f"two clips of each class at least, of different {card.group}"
        if card.group
        else "two clips of each class at least",
        next_step="add some, or leave these classes out",
    )


def _similar_groups(card: TaskCard, listing: Sequence[ClipEntry]) -> list[str]:
    """Return a note on groups on different sides whose names differ in capitals or spaces alone, or share a member."""
    of_member: dict[str, dict[str, str]] = defaultdict(dict)  # the side of each group with it
    for clip in listing:
        for member in SEVERAL.split(clip.group or ""):
            if clip.group is not None and member.strip():
                of_member[caseless(member)][clip.group] = side_of(clip)
    apart = {
        " and ".join(f"'{group}'" for group in sorted(sides))
        for sides in of_member.values()
        if len(set(sides.values())) > 1
    }
    if not apart:
        return []
    return [
        f"one {card.group} may be on two sides, by the names of its groups: {shortened(sorted(apart))}"
    ]
