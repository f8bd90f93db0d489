"""List the clips of a task with their sides, with the same names on every machine."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.data.clip_names import named_alike, printable
from lape_bench.data.drawn_split import draw_split
from lape_bench.task import ClipEntry, Reader, Segment, TaskCard

SAME_SECONDS = (
    1e-6  # seconds by which a clip may start before another one ends, because of rounding
)
Reason = tuple[str, str]  # a clip or archive that is left out, and the reason


def list_task(
    reader: Reader, card: TaskCard, root: Path, skip_bad: bool
) -> tuple[list[ClipEntry], list[Reason]]:
    """List the clips of a task below a folder.

    Args:
        reader: the reader of the card's data set.
        card: the card, as its variant has it.
        root: the folder.
        skip_bad: leave out a clip if another one has the same ID, instead of refusing it.

    Returns:
        The clips, sorted by ID, and the clips that were left out.

    Raises:
        UserError: the folder has another layout, two clips have the same ID, or groups or overlapping clips are on
            several sides.
    """
    listing = reader.read(root, card)
    if not listing:
        raise UserError(
            f"{root} holds no clip of {card.reference}",
            next_step="give the folder or archive as the data set's authors publish it",
        )
    first: dict[str, ClipEntry] = {}
    twice: list[Reason] = []
    for clip in sorted(map(named_alike, listing), key=lambda clip: (clip.clip_id, clip.path)):
        before = first.setdefault(clip.clip_id, clip)
        if before is clip:
            continue
        if not skip_bad:
            raise UserError(
                f"{printable(before.path)} and {printable(clip.path)} have the same clip ID '{clip.clip_id}'",
                next_step="remove one of each such pair, or leave out the second with --skip-bad",
            )
        twice.append((clip.clip_id, f"{printable(clip.path)} is a second clip with this ID"))
    listing = list(first.values())
    if card.split.rule == "drawn":
        listing = sorted(draw_split(listing, card))
    if card.state:  # some published splits share groups by design, and `verify` says so
        _refuse_shared_groups(card, listing)
    refuse_overlaps(card, listing)
    return listing, twice


def shared_groups(listing: Sequence[ClipEntry]) -> list[str]:
    """Return the groups with clips on several sides, sorted."""
    sides: dict[str, set[str]] = defaultdict(set)
    for clip in listing:
        if clip.group is not None:
            sides[clip.group].add(side_of(clip))
    return sorted(group for group in sides if len(sides[group]) > 1)


def learned_and_tested(card: TaskCard, listing: Sequence[ClipEntry]) -> set[str]:
    """Return the classes with clips to train on and clips to test on: in train and test, or in two folds."""
    sides: dict[str, set[str]] = defaultdict(set)
    for clip in listing:
        sides[clip.label].add(side_of(clip))
    if card.split.folds:
        return {label for label in sides if len(sides[label]) > 1}
    return {label for label in sides if {"train", "test"} <= sides[label]}


def _refuse_shared_groups(card: TaskCard, listing: list[ClipEntry]) -> None:
    shared = shared_groups(listing)
    if shared:
        raise UserError(
            f"{len(shared)} groups ({card.group}) of {card.reference} are on several sides, such as '{shared[0]}'",
            next_step="fix the table: put all clips of a group on one side, or scores are too high",
        )


def refuse_overlaps(card: TaskCard, listing: Sequence[ClipEntry]) -> None:
    """Refuse overlapping clips of one recording that are on several sides, unless the card allows them.

    Raises:
        UserError: there are such clips; the message names two.
    """
    if card.split.may_overlap or card.recordings is None:
        return
    pairs = list(_overlaps(listing))
    if pairs:
        first, second = pairs[0]
        raise UserError(
            f"{len(pairs)} clips of {card.reference} overlap a clip on another side of the split, such as '{second.clip_id}' "
            f"({side_of(second)}) and '{first.clip_id}' ({side_of(first)})",
            allowed="clips of one recording on several sides must not share audio, unless the card says 'may_overlap: true' under 'split' (--may-overlap)",
            next_step="give them one group, or leave out the groups, so that a recording stays on one side"
            if card.split.rule == "drawn"
            else "fix the table",
        )


def _overlaps(listing: Sequence[ClipEntry]) -> Iterator[tuple[ClipEntry, ClipEntry]]:
    """Yield pairs of overlapping clips on different sides, the earlier one first."""
    stretches: dict[Path, list[tuple[Segment, ClipEntry]]] = defaultdict(list)
    for clip in listing:
        if clip.segment is not None:
            stretches[clip.path].append((clip.segment, clip))
    for of_file in stretches.values():
        latest: dict[str, tuple[float, ClipEntry]] = {}  # by side: the clip that ends last
        for segment, clip in sorted(of_file, key=lambda pair: pair[0]):
            end, side = segment.start_seconds + segment.seconds, side_of(clip)
            for other, (other_end, other_clip) in latest.items():
                if other != side and other_end > segment.start_seconds + SAME_SECONDS:
                    yield other_clip, clip
                    break
            if end > latest.get(side, (0.0, clip))[0]:
                latest[side] = end, clip


def side_of(clip: ClipEntry) -> str:
    """Return a clip's side or fold as a word for messages."""
    return clip.split or f"fold {clip.fold}"
