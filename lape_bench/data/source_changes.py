"""Find changes to the table, folder and recordings of a task since it was prepared."""

import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.data.audio import AudioProblem
from lape_bench.data.audio_store import STORE_RATE
from lape_bench.data.cached_copies import is_copy
from lape_bench.data.catalog import load_reader
from lape_bench.data.clip_names import printable
from lape_bench.data.decoded_before import store_name, versions_when_decoded
from lape_bench.data.listing import list_task
from lape_bench.data.manifest import Manifest
from lape_bench.data.recording import FileVersion, Recording
from lape_bench.task import ClipEntry, TaskCard

MOST_LISTED = 20_000  # a registered task with more clips is not listed again in every run
MOST_DECODED = 20  # changed files that a run decodes to compare their audio
SHARE = 0.02  # share of a process's time for the search for changes
NAMED = 3
FIELDS = ("label", "split", "fold", "group")
Versions = Mapping[Path, FileVersion]  # of files when they were last decoded

logger = logging.getLogger(__name__)

_looked: dict[
    tuple[str, str], tuple[float, float]
] = {}  # when a process last searched, and how long it took


def refuse_changed_source(card: TaskCard, manifest: Manifest) -> None:
    """Raise a `UserError` if the folder of a user's task has changed since the task was prepared.

    A process that calls this often, such as for each cell of a sweep, compares only now and then.

    Raises:
        UserError: the recordings have changed; the message says how.
    """
    if card.recordings is None and len(manifest) > MOST_LISTED:
        return
    key, began = (manifest.reference, manifest.hash), time.monotonic()
    last, took = _looked.get(key, (-float("inf"), 0.0))
    if began - last < took / SHARE:
        return
    changes = source_changes(card, manifest, MOST_DECODED)
    if changes:
        raise UserError(
            f"'{card.reference}' has changed since it was prepared: {'; '.join(changes)}",
            next_step=f"run 'bench data prepare {card.name}' again, with the same options as before",
        )
    _looked[key] = began, time.monotonic() - began


def source_changes(
    card: TaskCard, manifest: Manifest, most_decoded: int | None = None
) -> list[str]:
    """Return one line for each difference between the recordings of a task and its manifest.

    Only recordings that a user keeps are compared, not copies in the cache, and only if their folder exists, since runs
    do not need it. Files that have been written to are decoded.

    Args:
        card: the card, as its variant has it.
        manifest: its manifest.
        most_decoded: the largest number of files to decode, those of another size first; a warning says how many are
            left. None: all.
    """
    root = manifest.root
    if card.data == "synthetic" or not root.is_dir() or is_copy(root):
        return []
    try:
        listing, _ = list_task(load_reader(card), card, root, skip_bad=True)
    except UserError as error:
        return [error.what]
    versions = versions_when_decoded(store_name(card.name, STORE_RATE))
    return [
        *_changes_of_listing(listing, manifest),
        *_changes_of_audio(manifest, versions, most_decoded),
        *_changes_of_skipped(listing, manifest, versions, most_decoded),
    ]


def _changes_of_listing(listing: list[ClipEntry], manifest: Manifest) -> Iterator[str]:
    """Compare the clips that a reader finds now with those of a manifest."""
    now = {clip.clip_id: (clip.label, clip.split, clip.fold or 0, clip.group) for clip in listing}
    table = manifest.clips[["clip_id", *FIELDS]].astype(object)
    rows = table.where(table.notna(), None).itertuples(index=False, name=None)
    then = {clip_id: values for clip_id, *values in rows}
    skipped = {clip.clip_id for clip in manifest.info.skipped}
    yield from _names("new clips", sorted(now.keys() - then.keys() - skipped))
    yield from _names("clips that are gone", sorted(then.keys() - now.keys()))
    for number, name in enumerate(FIELDS):
        changed = [
            f"{clip_id} (was {then[clip_id][number]}, is {now[clip_id][number]})"
            for clip_id in sorted(then.keys() & now.keys())
            if then[clip_id][number] != now[clip_id][number]
        ]
        yield from _names(f"clips of another {name}", changed)


def _changes_of_audio(
    manifest: Manifest, versions: Versions, most_decoded: int | None
) -> Iterator[str]:
    """Decode the files that have been written to since they were decoded, and compare their audio."""
    written = [
        recording
        for recording in manifest.recordings()
        if recording.path in versions and _is_written(recording.path, versions)
    ]
    written.sort(key=lambda recording: _has_its_size(recording.path, versions))
    changed = [str(r.path) for r in written[:most_decoded] if _has_other_audio(r)]
    left = len(written[most_decoded:]) if most_decoded is not None else 0
    if left and not changed:
        logger.warning(
            f"{len(written):,} recordings of '{manifest.reference}' have been written to since they were decoded, and {left:,} "
            f"of them were not compared; 'bench data verify {manifest.reference}' compares them all"
        )
    yield from _names("recordings of other audio", changed)


def _changes_of_skipped(
    listing: list[ClipEntry], manifest: Manifest, versions: Versions, most_decoded: int | None
) -> Iterator[str]:
    """Decode the files of clips that were left out, if the files are new or have been written to since."""
    skipped = {clip.clip_id for clip in manifest.info.skipped}
    if not versions or not skipped:
        return
    shortest = manifest.info.shortest_seconds
    written = [
        Recording(clip.clip_id, clip.path, segment=clip.segment, shortest_seconds=shortest)
        for clip in listing
        if clip.clip_id in skipped and _is_written(clip.path, versions)
    ]
    usable = [str(r.path) for r in written[:most_decoded] if _is_usable(r)]
    yield from _names("recordings that were left out and can be used now", usable)


def _is_written(path: Path, versions: Versions) -> bool:
    """Return True if a file is there and has another size or time than when it was decoded."""
    now, then = FileVersion.of(path), versions.get(path)
    return now is not None and (then is None or now[:2] != then[:2])  # a copy has another inode


def _has_its_size(path: Path, versions: Versions) -> bool:
    now = FileVersion.of(path)
    return now is not None and now[0] == versions[path][0]


def _is_usable(recording: Recording) -> bool:
    try:
        recording.content_hash()
    except AudioProblem:
        return False
    return True


def _has_other_audio(recording: Recording) -> bool:
    try:
        return recording.content_hash() != recording.content
    except AudioProblem:
        return True


def _names(what: str, names: list[str]) -> Iterator[str]:
    if names:
        more = ", ..." if len(names) > NAMED else ""
        yield f"{what}: {len(names):,}, such as {printable(', '.join(names[:NAMED]))}{more}"
