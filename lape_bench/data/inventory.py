"""Find what is on disk for each task."""

import itertools
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lape_bench.core.errors import DamagedFile, UserError
from lape_bench.core.paths import home, manifest_path, write_text
from lape_bench.data.manifest import Manifest, load_manifest
from lape_bench.data.source_changes import source_changes
from lape_bench.data.sources.archives import downloads
from lape_bench.data.sources.http_download import part_of
from lape_bench.task import TaskCard


class DiskUsage(NamedTuple):
    """The state of a task on this machine, and the files and folders that belong to it.

    The state is missing, some of its files fetched, fetched, prepared, verified, damaged or changed since it was
    prepared.
    """

    state: str
    places: frozenset[Path]


def disk_usage(card: TaskCard) -> DiskUsage:
    """Find the downloads, recordings, manifest and store of a task in the cache folder.

    Recordings that a user keeps elsewhere are not counted.
    """
    files = downloads(card)
    here = [file for file in files if file.is_here()]
    parts = {part for file in files if (part := part_of(file.path)).is_file()}
    places = {file.path for file in here} | {file.unpacked() for file in here} | parts
    by_hand = sum(source.url is None for source in card.sources) if card.obtain else 0
    state = "missing"
    if here or parts:
        every = len(files) + by_hand
        state = "fetched" if len(here) == every else f"{len(here)} of {every} fetched"
    manifest = None
    try:
        manifest = load_manifest(card)
    except DamagedFile:
        state = "damaged"
    except UserError:
        if state == "missing" and manifest_path(card.reference).is_file():
            state = "changed"
    if manifest is not None:
        state = "verified" if _verified(card) == manifest.hash else "prepared"
        if source_changes(card, manifest):
            state = "changed"
        places.add(manifest.root)
        places |= set((home() / "store").glob(f"{manifest.info.store_key[:32]}-*"))
    return DiskUsage(state, frozenset(place for place in places if place is not None))


def measure(usages: Sequence[DiskUsage]) -> tuple[list[int], int]:
    """Return the size of each task's files in the cache folder, and the total, in bytes. The total counts shared files
    once.
    """
    places = {place for usage in usages for place in usage.places}
    files = {place: _files(place) for place in places}
    each = [_sum(files[place] for place in usage.places) for usage in usages]
    return each, _sum(files.values())


def note_verified(manifest: Manifest) -> None:
    """Remember that a manifest was verified. A changed manifest has to be verified again."""
    write_text(_note(manifest.reference), json.dumps({"manifest": manifest.hash}))


def _verified(card: TaskCard) -> str | None:
    try:
        noted: str = json.loads(_note(card.reference).read_text(encoding="utf-8"))["manifest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return noted


def _note(reference: str) -> Path:
    return manifest_path(reference).with_suffix(".verified.json")


def _files(place: Path) -> dict[Path, int]:
    """Return the files at or below a path that are in the cache folder, with their sizes in bytes. Links are
    followed.
    """
    below = home().resolve()
    files = {place.resolve()}
    for folder, folders, names in os.walk(place, followlinks=True):
        resolved = Path(folder).resolve()
        if not resolved.is_relative_to(below):
            folders.clear()
            continue
        paths = (resolved / name for name in names)
        files |= {path.resolve() if path.is_symlink() else path for path in paths}
    return {
        file: file.stat().st_size for file in files if file.is_file() and file.is_relative_to(below)
    }


def _sum(files: Iterable[dict[Path, int]]) -> int:
    return sum(dict(itertools.chain.from_iterable(each.items() for each in files)).values())
