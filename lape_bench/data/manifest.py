"""The manifest: the clips of a prepared task, and the hash that every record holds.

It is a Parquet file in the cache, one per task and variant.
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
    """A clip that was left out with --skip-bad, and the reason."""

    clip_id: str
    reason: str


class ManifestInfo(Config):
    """The contents of a manifest apart from its clips."""

    task: str
    variant: str
    card_version: int
    data: str
    classes: tuple[str, ...]
    root: str  # relative to the cache folder if it is inside
    source: str
    store_key: str  # key of the store with these clips, and perhaps clips of variants
    shortest_seconds: float = SHORTEST_SECONDS
    level_dbfs: float | None = None  # RMS to which clips are scaled when they are opened
    card_state: str = ""  # state of a user's own card
    skipped: tuple[SkippedClip, ...] = ()
    decoder: str = ""  # version of the decoders (`decoder_version`); empty if it was not kept yet
    hash: str = ""
    checksum: str = ""  # checksum over all of this and every column


@dataclass(frozen=True)
class Manifest:
    """The clips of a task.

    Attributes:
        info: where the clips come from, and which were skipped.
        clips: one row per clip, sorted by clip_id, with the columns `COLUMNS`. split is train, val, test or None. fold
            counts from 1, and is 0 if there are no folds. group may be None. start_seconds is the start of the clip in
            a longer file, or NaN if the clip is the whole file. rate is the sample rate of the file in Hz, and seconds
            the length of the clip. content is the hash of the decoded samples.
    """

    info: ManifestInfo
    clips: pd.DataFrame = field(repr=False)

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over task, classes, level, and the ID, label, split, fold, group and content of each clip."""
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
        """Return the SHA-256 of everything in the file, including what does not identify the task."""
        info = self.info.model_copy(update={"checksum": ""})
        # Manifests of before the version was kept stay intact.
        later = None if info.decoder else {"decoder"}
        digest = hashlib.sha256(info.model_dump_json(exclude=later).encode())
        for name in COLUMNS:
            column = self.clips[name].astype(object)
            digest.update(json.dumps(column.where(column.notna(), None).tolist()).encode())
        return digest.hexdigest()

    def groups_and_folds(
        self, rows: NDArray[np.int64]
    ) -> tuple[list[str | None], list[int | None]]:
        """Return the group and the fold of some clips. The group of a clip may be None; the fold is None in a task
        without folds.
        """
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
        """The folder that paths are relative to. If it is inside the cache, it moves with the cache."""
        return home() / self.info.root

    def recordings(self) -> list[Recording]:
        """Return every clip as a `Recording`, with the path of its file and the hash of its audio."""
        root = self.root
        columns = self.clips[["clip_id", "path", "content", "start_seconds", "seconds"]]
        return [
            Recording(
                clip_id,
                root / path,
                content,
                None if start != start else (start, seconds),  # NaN is not equal to itself
                self.info.shortest_seconds,
            )
            for clip_id, path, content, start, seconds in columns.itertuples(index=False, name=None)
        ]

    def open_clips(self, rate: int, progress: Progress | None = None) -> Clips:
        """Open the audio of the clips in the order of the manifest. If the rate is new, decode the recordings.

        Args:
            rate: sample rate in Hz.
            progress: shows how many clips are decoded; None: show nothing.

        Raises:
            UserError: the recordings are needed and no longer hold the audio they were prepared with.
        """
        ids = tuple(self.clips["clip_id"])
        pairs = list(zip(ids, self.clips["content"], strict=True))
        key = audio_store.audio_key(pairs)
        # A store that variants share cannot be made from these clips, so it must exist and be intact.
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
        what = f"the manifest {path} is damaged: its checksum does not match"
        raise DamagedFile(what, next_step=again)
    if manifest.reference != card.reference:
        raise DamagedFile(
            f"the manifest {path} is that of the task '{manifest.reference}'", next_step=again
        )
    if info.card_version != card.version:
        raise UserError(
            f"the task '{card.reference}' was prepared for version {info.card_version} of its card, "
            f"which is now at version {card.version}",
            next_step=again,
        )
    if info.classes != card.classes:
        raise UserError(
            f"the task '{card.reference}' was prepared with other classes than its card has now",
            next_step=again,
        )
    if info.level_dbfs != card.level_dbfs:
        raise UserError(
            f"the task '{card.reference}' was prepared with another level_dbfs than its card has now",
            next_step=again,
        )
    if info.card_state != card.state:
        raise UserError(
            f"the task '{card.reference}' was prepared with other recordings, split or group than its card has now",
            next_step=again,
        )
    return manifest


@lru_cache(maxsize=64)
def _read(path: Path, mtime_ns: int, size: int) -> tuple[Manifest, bool]:
    """Read a manifest, and return it with True if its checksum is right.

    Results are cached by time and size of the file: every cell of a sweep needs the manifest, and hashing a large one
    takes a second. Callers must not change it.
    """
    table = pq.read_table(path)
    info = ManifestInfo.model_validate_json(table.schema.metadata[INFO])
    clips = table.to_pandas()
    if "start_seconds" not in clips:  # written before clips could be parts of a file
        clips["start_seconds"] = np.nan
    manifest = Manifest(info, clips)
    return manifest, (manifest.hash, manifest.checksum()) == (info.hash, info.checksum)
