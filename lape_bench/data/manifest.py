"""Manifest: the clips of a prepared task, and the hash that every record names.

Kept as a Parquet file in the cache, one for a task and each of its variants.
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lape_bench.core.config import Config
from lape_bench.core.errors import DamagedFile, UserError
from lape_bench.core.paths import home, manifest_path, new_file
from lape_bench.core.progress import Progress
from lape_bench.data import audio_store
from lape_bench.data.audio import SHORTEST_SECONDS
from lape_bench.data.audio_store import Clips
from lape_bench.data.recording import Recording
from lape_bench.task import TaskCard

COLUMNS = [
    "clip_id", "path", "start_seconds", "label", "split", "fold", "group", "seconds", "rate", "content",
]  # fmt: skip
IDENTITY = ["clip_id", "label", "split", "fold", "group", "content"]
INFO = b"lape_bench"


class SkippedClip(Config):
    """A clip that was left out with --skip-bad, and why."""

    clip_id: str
    reason: str


class ManifestInfo(Config):
    """What a manifest says beside its clips."""

    task: str
    variant: str
    card_version: int
    data: str
    classes: tuple[str, ...]
    root: str  # relative to the cache where it is inside
    source: str
    store_key: (
        str  # of what was decoded when it was prepared: these clips, and perhaps those of variants
    )
    shortest_seconds: float = SHORTEST_SECONDS
    level_dbfs: float | None = None  # RMS that clips are scaled to when they are opened
    card_state: str = ""  # of a user's own card
    skipped: tuple[SkippedClip, ...] = ()
    hash: str = ""
    checksum: str = ""  # of all of this and of every column


@dataclass(frozen=True)
class Manifest:
    """The clips of a task.

    Attributes:
        info: where the clips come from and what was skipped.
        clips: one row a clip, sorted by clip_id, with the columns `COLUMNS`; split is train, val, test or
            None, fold counts from 1 and is 0 without folds, group may be None, start_seconds is where a
            stretch of a longer file begins and NaN where the clip is the whole file, rate (Hz) is the file's
            own, seconds the clip's length at that rate, content is the hash of its decoded samples.
    """

    info: ManifestInfo
    clips: pd.DataFrame = field(repr=False)

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over task, classes, level, and each clip's id, label, split, fold, group and content."""
        info = self.info
        digest = hashlib.sha256()
        head = [info.task, info.variant, info.card_version, info.data, list(info.classes)]
        head += [] if info.level_dbfs is None else [info.level_dbfs]
        digest.update(json.dumps(head).encode())
        table = self.clips[IDENTITY].astype(object)
        for row in table.where(table.notna(), None).itertuples(index=False, name=None):
            digest.update(json.dumps(row).encode())
        return digest.hexdigest()

    def checksum(self) -> str:
        """Return the SHA-256 of everything that is kept, also of what is no part of the task's identity."""
        digest = hashlib.sha256(
            self.info.model_copy(update={"checksum": ""}).model_dump_json().encode()
        )
        for name in COLUMNS:
            column = self.clips[name].astype(object)
            digest.update(json.dumps(column.where(column.notna(), None).tolist()).encode())
        return digest.hexdigest()

    def groups_and_folds(
        self, rows: NDArray[np.int64]
    ) -> tuple[list[str | None], list[int | None]]:
        """Return the group and the fold of some clips; None for a clip without a group, and in a task without folds."""
        table = self.clips[["group", "fold"]].iloc[rows]
        groups = table["group"].astype(object)
        return (
            groups.where(groups.notna(), None).tolist(),
            [int(fold) or None for fold in table["fold"]],
        )

    @property
    def reference(self) -> str:
        """The task as a user asks for it: `name`, or `name@variant`."""
        variant = f"@{self.info.variant}" if self.info.variant else ""
        return self.info.task + variant

    @property
    def root(self) -> Path:
        """The folder that paths are relative to; inside the cache it moves with it."""
        return home() / self.info.root

    def recordings(self) -> list[Recording]:
        """Return every clip with the path of its file and the hash of its audio."""
        root = self.root
        columns = self.clips[["clip_id", "path", "content", "start_seconds", "seconds"]]
        return [
            Recording(
                clip_id,
                root / path,
                content,
                None if start != start else (start, seconds),  # NaN differs from itself
                self.info.shortest_seconds,
            )
            for clip_id, path, content, start, seconds in columns.itertuples(index=False, name=None)
        ]

    def open_clips(self, rate: int, progress: Progress | None = None) -> Clips:
        """Open the clips' audio at a rate in Hz and at the task's level, in the manifest's order; decode it if this rate is new.

        Args:
            rate: Hz.
            progress: shows how many clips are decoded; none: nothing is shown.

        Raises:
            UserError: the recordings are needed and no longer hold the audio they were prepared with.
        """
        ids = tuple(self.clips["clip_id"])
        pairs = list(zip(ids, self.clips["content"], strict=True))
        key = audio_store.audio_key(pairs)
        # A store that variants share cannot be made from these clips, so that it must be there and intact.
        if not audio_store.find_store_damage(self.info.store_key, rate):
            key = self.info.store_key
        progress = progress or Progress(quiet=True)
        with progress.task(f"decoding {self.reference}", len(self), "clips") as task:
            clips = audio_store.open_store(key, rate, self.recordings, task.advance)
        if clips.ids != ids:
            row = {clip_id: index for index, clip_id in enumerate(clips.ids)}
            clips = clips.view([row[clip_id] for clip_id in ids])
        return clips if self.info.level_dbfs is None else clips.leveled(self.info.level_dbfs)

    def save(self) -> Path:
        """Write the manifest to the cache, whole or not at all."""
        path = manifest_path(self.reference)
        table = pa.Table.from_pandas(self.clips[COLUMNS], preserve_index=False)
        info = self.info.model_copy(update={"hash": self.hash})
        info = info.model_copy(update={"checksum": Manifest(info, self.clips).checksum()})
        table = table.replace_schema_metadata({INFO: info.model_dump_json().encode()})
        with new_file(path) as temporary:
            pq.write_table(table, temporary)
        return path


def load_manifest(card: TaskCard) -> Manifest:
    """Read the manifest of a prepared task.

    Raises:
        DamagedFile: its manifest is damaged.
        UserError: the task is not prepared, or was prepared for another version of its card.
    """
    path = manifest_path(card.reference)
    known = card.data == "synthetic" or card.recordings is not None
    given = "" if known else " --from ARCHIVE_OR_FOLDER"
    again = f"run 'bench data prepare {card.name}{given}'"
    if not path.is_file():
        raise UserError(f"the task '{card.reference}' is not prepared", next_step=again)
    try:
        written = path.stat()
        manifest, intact = _read(path, written.st_mtime_ns, written.st_size)
        info = manifest.info
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"the manifest {path} is damaged ({type(error).__name__})"
        raise DamagedFile(what, next_step=again) from error
    if not intact:
        what = f"the manifest {path} is damaged: it does not have the checksum that it names"
        raise DamagedFile(what, next_step=again)
    if info.card_version != card.version:
        raise UserError(
            f"the task '{card.reference}' was prepared for version {info.card_version} of its card, "
            f"which is now at version {card.version}",
            next_step=again,
        )
    if info.classes != card.classes:
        raise UserError(
            f"the task '{card.reference}' was prepared for other classes than its card names",
            next_step=again,
        )
    if info.level_dbfs != card.level_dbfs:
        raise UserError(
            f"the task '{card.reference}' was prepared for another level_dbfs than its card names",
            next_step=again,
        )
    if info.card_state != card.state:
        raise UserError(
            f"the task '{card.reference}' was prepared for other recordings, split or group than its card names",
            next_step=again,
        )
    return manifest


@lru_cache(maxsize=64)
def _read(path: Path, mtime_ns: int, size: int) -> tuple[Manifest, bool]:
    """Read a manifest as it was written at this moment, and tell whether it has the checksum that it names.

    Every cell of a sweep asks for it, and hashing that of a large task takes a second. Who has it changes nothing in it.
    """
    table = pq.read_table(path)
    info = ManifestInfo.model_validate_json(table.schema.metadata[INFO])
    clips = table.to_pandas()
    if "start_seconds" not in clips:  # written before clips could be stretches of a file
        clips["start_seconds"] = np.nan
    manifest = Manifest(info, clips)
    return manifest, (manifest.hash, manifest.checksum()) == (info.hash, info.checksum)
