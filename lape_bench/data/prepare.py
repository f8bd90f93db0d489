"""Prepare a task from archives or folders: list, decode and check its clips, and write a manifest.

A task and its variants are prepared together, since they share their recordings.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lape_bench.core.errors import DamagedFile, UserError, did_you_mean
from lape_bench.core.paths import manifest_path, within_home
from lape_bench.core.progress import Progress
from lape_bench.data import audio_store
from lape_bench.data.audio_store import STORE_RATE
from lape_bench.data.catalog import load_card, load_reader
from lape_bench.data.clip_names import printable, shortened, spaces_shown
from lape_bench.data.decoding.version import decoder_version
from lape_bench.data.listing import Reason, learned_and_tested, list_task, side_of
from lape_bench.data.manifest import COLUMNS, Manifest, ManifestInfo, SkippedClip, load_manifest
from lape_bench.data.recording import ClipFacts, Recording
from lape_bench.data.source_changes import refuse_changed_source
from lape_bench.data.sources import archives
from lape_bench.data.sources.gather import Gathered, gather
from lape_bench.task import ClipEntry, TaskCard

logger = logging.getLogger(__name__)

NAMED = 10  # bad clips that a message names; it counts all of them
SIDES_BY_TRUST = {
    "test": 0,
    "val": 1,
    "train": 2,
}  # which copy of a recording is kept with --skip-bad


def prepare(
    card: TaskCard,
    given: Path | Sequence[Path] | None,
    progress: Progress,
    skip_bad: bool = False,
) -> list[Manifest]:
    """Prepare a task and all its variants.

    Args:
        card: the base card, without a variant.
        given: archives and folders; empty for a generated task, or if `bench data fetch` downloaded the recordings.
        progress: counts the clips.
        skip_bad: leave out unusable clips and copies across sides, instead of stopping.

    Returns:
        The saved manifests of the card and its variants. A variant that needs more recordings is left out, with a
        warning.

    Raises:
        UserError: the source is missing, unsafe, damaged or has another layout, or clips cannot be used.
    """
    if isinstance(given, Path):
        given = [given]
    gathered = gather(card, given or (), progress, skip_bad)
    reader, root = load_reader(card), gathered.root
    listings = [(card, *list_task(reader, card, root, skip_bad))]
    for variant in (card.with_variant(name) for name in sorted(card.variants)):
        try:
            listed = list_task(reader, variant, root, skip_bad)
        except UserError as error:  # such as an archive that only this variant needs
            logger.error(f"left out {variant.reference}: {error}")
            # A manifest from other data must not remain.
            manifest_path(variant.reference).unlink(missing_ok=True)
        else:
            listings.append((variant, *listed))
    recordings = _recordings(card, [listing for _, listing, _ in listings])
    if not skip_bad:
        _refuse_missing(card, recordings)
    manifests: list[Manifest] = []

    def accept(facts: list[ClipFacts]) -> None:
        facts_of = {r.clip_id: fact for r, fact in zip(recordings, facts, strict=True)}
        key = audio_store.key_of(recordings, facts)
        for each, listing, twice in listings:
            usable, skipped = _usable(each, listing, facts_of, skip_bad)
            left_out = [*gathered.skipped, *twice, *skipped.items()]
            manifests.append(_manifest(each, usable, left_out, facts_of, gathered, key))

    with progress.task(f"decoding {card.name}", len(recordings), "clips") as task:
        audio_store.build_store(recordings, STORE_RATE, task.advance, accept, name=card.name)
    for manifest in manifests:
        manifest.save()
    return manifests


def ensure_prepared(card: TaskCard, progress: Progress) -> Manifest:
    """Return the manifest of a task, and prepare the task first if the user need not provide anything.

    A generated task is made if it is missing or its card has changed. A damaged manifest is made again from the user's
    own folder or from downloaded files.

    Raises:
        UserError: the task is not prepared, or its recordings have changed since.
    """
    try:
        manifest = load_manifest(card)
    except DamagedFile as error:
        own = card.recordings is not None
        if card.data == "real" and not own and not archives.is_fetched(card):
            raise
        logger.warning(f"preparing {card.name} again: {error.what}")
    except UserError:
        if card.data == "real":
            raise
    else:
        refuse_changed_source(card, manifest)
        return manifest
    prepare(load_card(card.name), None, progress)
    return load_manifest(card)


def _refuse_missing(card: TaskCard, recordings: Sequence[Recording]) -> None:
    """Raise a `UserError` for missing recordings, before any is decoded."""
    missing = [str(r.path) for r in recordings if not os.path.lexists(r.path)]
    if missing:
        more = f", and {len(missing) - NAMED:,} more" if len(missing) > NAMED else ""
        raise UserError(
            f"{len(missing):,} of {len(recordings):,} clips of {card.name} cannot be used, since their recordings are missing: {printable(', '.join(missing[:NAMED]))}{more}",
            next_step="add them, or leave them out with --skip-bad",
        )


def _recordings(card: TaskCard, listings: Iterable[list[ClipEntry]]) -> list[Recording]:
    clips = {clip.clip_id: clip for listing in listings for clip in listing}
    return [
        Recording(
            clip_id,
            clips[clip_id].path,
            segment=clips[clip_id].segment,
            shortest_seconds=card.shortest_seconds,
        )
        for clip_id in sorted(clips)
    ]


def _usable(
    card: TaskCard, listing: list[ClipEntry], facts_of: dict[str, ClipFacts], skip_bad: bool
) -> tuple[list[ClipEntry], dict[str, str]]:
    """Separate usable clips from unusable ones, and return the reason for each unusable clip.

    Raises:
        UserError: some cannot be used and `skip_bad` is not given, or none can be used.
    """
    bad = {
        clip.clip_id: problem
        for clip in listing
        if (problem := facts_of[clip.clip_id].problem or _unfit(clip, card))
    }
    if card.state:  # published data sets are used with their known mistakes, as in published scores
        bad |= _of_two_classes(listing, facts_of)
    if bad and not skip_bad:
        named = [
            f"{printable(clip.path)}: {bad[clip.clip_id]}"
            for clip in listing
            if clip.clip_id in bad
        ]
        more = f", and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise UserError(
            f"{len(bad)} of {len(listing)} clips of {card.reference} cannot be used: "
            + ", ".join(named[:NAMED])
            + more,
            allowed=f"the card's classes are {', '.join(card.classes)}"
            if any(clip.label not in card.classes for clip in listing)
            else "",
            next_step="fix them, or leave them out with --skip-bad",
        )
    usable = [clip for clip in listing if clip.clip_id not in bad]
    copies = _copies_across_sides(usable, facts_of)
    if copies and not skip_bad:
        dropped, kept = next(iter(copies.items()))
        raise UserError(
            f"the same audio is on two sides of {card.reference}, {len(copies)} times: "
            f"'{dropped.clip_id}' ({side_of(dropped)}) is '{kept.clip_id}' ({side_of(kept)})",
            next_step="remove one of each pair, or leave out the copies with --skip-bad",
        )
    bad |= {
        dropped.clip_id: f"same audio as {kept.clip_id} ({side_of(kept)})"
        for dropped, kept in copies.items()
    }
    usable = [clip for clip in usable if clip not in copies]
    if not usable:
        raise UserError(f"no usable clip of {card.reference} is left")
    _warn_of_lost_classes(card, listing, usable)
    return usable, bad


def _warn_of_lost_classes(
    card: TaskCard, listing: Sequence[ClipEntry], usable: Sequence[ClipEntry]
) -> None:
    """Warn about classes that cannot be learned and tested without the clips that were left out."""
    left = learned_and_tested(card, usable)
    lost = sorted((learned_and_tested(card, listing) - left).intersection(card.classes))
    if lost:
        logger.warning(
            f"{card.reference}: without the clips that were left out, {len(lost)} of {len(card.classes)} classes are not both in train and in test: {shortened(lost)}"
        )


def _of_two_classes(listing: list[ClipEntry], facts_of: dict[str, ClipFacts]) -> dict[str, str]:
    """Map each clip whose audio also has another class to the clip of that class."""
    alike: dict[str, list[ClipEntry]] = defaultdict(list)
    for clip in listing:
        facts = facts_of[clip.clip_id]
        if not facts.problem:
            alike[facts.content].append(clip)
    bad: dict[str, str] = {}
    for clips in alike.values():
        of_label = {clip.label: clip for clip in reversed(clips)}
        for clip in clips if len(of_label) > 1 else ():
            other = next(each for label, each in of_label.items() if label != clip.label)
            bad[clip.clip_id] = f"same audio as {other.clip_id}, of class '{other.label}'"
    return bad


def _unfit(clip: ClipEntry, card: TaskCard) -> str:
    """Return the reason why the label or side of a clip does not match the card; empty if both do."""
    if clip.label not in card.classes:
        hint = did_you_mean(clip.label, card.classes)
        label = spaces_shown(clip.label)
        return f"label '{label}' is not a class of the card" + (f" ({hint})" if hint else "")
    placed = clip.fold in card.folds if card.split.folds else clip.split is not None
    return "" if placed else "the split has no side for it"


def _manifest(
    card: TaskCard,
    usable: list[ClipEntry],
    skipped: list[Reason],
    facts_of: dict[str, ClipFacts],
    gathered: Gathered,
    store_key: str,
) -> Manifest:
    rows = []
    for clip in usable:
        facts = facts_of[clip.clip_id]
        path = clip.path.relative_to(gathered.root).as_posix()
        start = clip.segment.start_seconds if clip.segment else np.nan
        place = (clip.clip_id, path, start, clip.label, clip.split, clip.fold or 0, clip.group)
        rows.append((*place, facts.seconds, facts.rate, facts.content))
    info = ManifestInfo(
        task=card.name,
        variant=card.variant,
        card_version=card.version,
        data=card.data,
        classes=card.classes,
        root=str(within_home(gathered.root)),
        source=gathered.origin,
        store_key=store_key,
        shortest_seconds=card.shortest_seconds,
        level_dbfs=card.level_dbfs,
        card_state=card.state,
        skipped=tuple(
            SkippedClip(clip_id=clip_id, reason=reason) for clip_id, reason in sorted(skipped)
        ),
        decoder=decoder_version(),
    )
    return Manifest(info, pd.DataFrame(rows, columns=COLUMNS))


def _copies_across_sides(
    listing: list[ClipEntry], facts_of: dict[str, ClipFacts]
) -> dict[ClipEntry, ClipEntry]:
    """Map each clip whose audio is also on a side with priority to the clip there."""
    same: dict[str, list[ClipEntry]] = defaultdict(list)
    for clip in listing:
        same[facts_of[clip.clip_id].content].append(clip)
    copies: dict[ClipEntry, ClipEntry] = {}
    for clips in same.values():
        kept = min(
            clips, key=lambda clip: (SIDES_BY_TRUST.get(clip.split or "", 0), clip.fold or 0)
        )
        copies |= {clip: kept for clip in clips if side_of(clip) != side_of(kept)}
    return copies
