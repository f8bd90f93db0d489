"""What became of a task's table, folder and recordings since it was prepared."""

import time
from collections.abc import Iterator

from lape_bench.core.errors import UserError
from lape_bench.core.paths import home
from lape_bench.data.audio import AudioProblem
from lape_bench.data.audio_store import STORE_RATE
from lape_bench.data.catalog import load_reader
from lape_bench.data.clip_names import printable
from lape_bench.data.decoded_before import store_name, versions_when_decoded
from lape_bench.data.listing import list_task
from lape_bench.data.manifest import Manifest
from lape_bench.data.recording import FileVersion, Recording
from lape_bench.task import ClipEntry, TaskCard

MOST_LISTED = 20_000  # clips of a registered task that every run lists
MOST_DECODED = 20  # files that were written to since
SHARE = 0.02  # of a process's time that it may take to look for changes
NAMED = 3
FIELDS = ("label", "split", "fold", "group")

_looked: dict[tuple[str, str], tuple[float, float]] = {}  # when a process looked, and for how long


def refuse_changed_source(card: TaskCard, manifest: Manifest) -> None:
    """Refuse a task that a user keeps in a folder, and that is no longer as it was prepared.

    A process that looks often, such as for each cell of a sweep, does so only now and then.

    Raises:
        UserError: names what changed.
    """
    if card.recordings is None and len(manifest) > MOST_LISTED:
        return
    key, began = (manifest.reference, manifest.hash), time.monotonic()
    last, took = _looked.get(key, (-float("inf"), 0.0))
    if began - last < took / SHARE:
        return
    changes = source_changes(card, manifest)
    if changes:
        raise UserError(
            f"'{card.reference}' is not as it was prepared: {'; '.join(changes)}",
            next_step=f"run 'bench data prepare {card.name}' again, as it was prepared before",
        )
    _looked[key] = began, time.monotonic() - began


def source_changes(card: TaskCard, manifest: Manifest) -> list[str]:
    """Say how the recordings of a task differ from its manifest, a line each; empty if they do not.

    Only recordings outside the cache are looked at, and only if their folder is there: runs do not need it. Files are
    decoded if something has written to them, up to `MOST_DECODED`.

    Args:
        card: the card, as its variant has it.
        manifest: its manifest.
    """
    root = manifest.root
    if card.data == "synthetic" or root.is_relative_to(home()) or not root.is_dir():
        return []
    try:
        listing, _ = list_task(load_reader(card), card, root, skip_bad=True)
    except UserError as error:
        return [error.what]
    return [*_changes_of_listing(listing, manifest), *_changes_of_audio(card, manifest)]


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


def _changes_of_audio(card: TaskCard, manifest: Manifest) -> Iterator[str]:
    """Decode the files that something has written to since they were decoded, and compare their audio."""
    versions = versions_when_decoded(store_name(card.name, STORE_RATE))
    written = [
        recording
        for recording in manifest.recordings()
        if recording.path in versions
        and (now := FileVersion.of(recording.path)) is not None
        and now[:2] != versions[recording.path][:2]  # a copy has another inode
    ]
    changed = [str(r.path) for r in written[:MOST_DECODED] if _has_other_audio(r)]
    yield from _names("recordings of other audio", changed)


def _has_other_audio(recording: Recording) -> bool:
    try:
        return recording.content_hash() != recording.content
    except AudioProblem:
        return True


def _names(what: str, names: list[str]) -> Iterator[str]:
    if names:
        more = ", ..." if len(names) > NAMED else ""
        yield f"{what}: {len(names):,}, such as {printable(', '.join(names[:NAMED]))}{more}"
