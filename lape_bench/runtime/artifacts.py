"""The cache of artifacts: results of stages that are computed once for the same inputs.

An artifact is a folder named by a hash of everything that determines it. Besides the result it holds the description
that was hashed (`artifact.json`), and the time and size (`made.json`).
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import Any, Protocol

from filelock import FileLock
from pydantic import ValidationError

from lape_bench.core.config import Config
from lape_bench.core.errors import DamagedFile, explain_write_errors
from lape_bench.core.locks import locked
from lape_bench.core.paths import PART, home, sha256, staged_folder, write_text
from lape_bench.core.sealed_json import read_sealed_json, write_sealed_json
from lape_bench.core.work_folder import checkpoint_folder, may_come_of_checkpoints

logger = logging.getLogger(__name__)

DESCRIPTION, METADATA = "artifact.json", "made.json"
LOCK, WORK = ".lock-", ".work-"


class ArtifactMetadata(Config):
    """Time, size and checksum of an artifact.

    Attributes:
        seconds: wall-clock time to compute it; after a kill, the time since it was resumed.
        sha256: SHA-256 over names and bytes of the files.
        bytes: size of the files.
        finished_at: UTC, ISO 8601.
        about: describes the artifact for people.
    """

    seconds: float
    sha256: str
    bytes: int
    finished_at: str
    about: str


@dataclass(frozen=True)
class Artifact:
    """A finished stage.

    Attributes:
        kind: for example "embeddings".
        hash: key of the artifact.
        folder: the folder with its files.
        metadata: time, size and checksum.
        computed: True if it was computed now, False if it was found.
        waited: seconds spent waiting for another process to make it, or for its transfer from another machine.
    """

    kind: str
    hash: str
    folder: Path
    metadata: ArtifactMetadata
    computed: bool
    waited: float = 0.0


class ArtifactStore(Protocol):
    """Exchanges artifacts between machines that share no cache. An artifact is identified by its kind and hash."""

    def fetch(self, kind: str, name: str, folder: Path) -> None:
        """Copy the files of an artifact into an empty folder, if the store has it."""

    def leave(self, kind: str, name: str, folder: Path) -> None:
        """Store the files of an artifact, unless the store has it."""


def stable_name(kind: type) -> str:
    """Return the name of a class in descriptions of artifacts: its own `artifact_name`, or else its module and name.

    With `artifact_name` a class can move to another module, and its earlier artifacts are still found. A subclass does
    not inherit the name, since it may compute something else.
    """
    own = vars(kind).get("artifact_name")
    return own if isinstance(own, str) else f"{kind.__module__}:{kind.__qualname__}"


def cache() -> Path:
    """Return the folder of all artifacts."""
    return home() / "artifacts"


def artifact(
    kind: str,
    about: str,
    determined_by: Mapping[str, Any],
    compute: Callable[[Path, Path], None],
    within: Path,
    stamp: Mapping[str, Any],
    on_wait: Callable[[], None] = lambda: None,
    artifact_store: ArtifactStore | None = None,
) -> Artifact:
    """Find an artifact in the cache, or compute it. A second process that needs it waits for the first.

    A damaged artifact is computed again.

    Args:
        kind: for example "embeddings".
        about: describes the artifact for people; not part of its key.
        determined_by: everything its bytes depend on, as plain data.
        compute: fills the first folder, which is empty; the second folder is for checkpoints, and is kept if the run is
            killed.
        within: the folder of artifacts, such as `cache()`.
        stamp: device, versions and code; checkpoints with another stamp are not resumed.
        on_wait: called if another process is computing it.
        artifact_store: exchanges artifacts with machines that have another cache.

    Raises:
        UserError: the disk is full or the folder cannot be written; also errors of `compute`.
    """
    description = json.dumps({"kind": kind, **determined_by}, sort_keys=True, indent=1)
    name = hashlib.sha256(description.encode()).hexdigest()[:32]
    parent = within / kind
    folder, work = parent / name, parent / f"{WORK}{name}"
    metadata, computed, waited = intact_metadata(folder), False, 0.0
    if metadata is None:
        began = time.perf_counter()
        with locked(parent / f"{LOCK}{name}", on_wait):
            metadata = intact_metadata(folder) or _fetched(kind, name, parent, artifact_store)
            if metadata is not None:
                waited = time.perf_counter() - began
            else:
                if folder.is_dir():
                    logger.warning(
                        f"computing again, since the cached files are damaged: {kind} {about}"
                    )
                    shutil.rmtree(folder, ignore_errors=True)
                resumed = checkpoint_folder(work, stamp) > 0
                try:
                    metadata = _computed(parent, name, about, description, compute, work)
                except Exception as error:
                    # A bad checkpoint of a killed run may be the cause, and must not make every later run fail.
                    if resumed and may_come_of_checkpoints(error):
                        shutil.rmtree(work, ignore_errors=True)
                    raise
                computed = True
    if artifact_store is not None:
        artifact_store.leave(kind, name, folder)
    shutil.rmtree(work, ignore_errors=True)  # also after a run that was killed just before its end
    with suppress(OSError):  # a read-only cache
        (folder / METADATA).touch()  # notes the time of use
    return Artifact(kind, name, folder, metadata, computed, waited)


@dataclass(frozen=True)
class ArtifactInfo:
    """An entry of the listing: an artifact, or the checkpoints of an unfinished one.

    Attributes:
        kind: for example "embeddings".
        hash: its key.
        folder: the folder with its files.
        bytes: size of its files.
        last_used: seconds since the epoch.
        metadata: None if it is unfinished or was made by an earlier release.
    """

    kind: str
    hash: str
    folder: Path
    bytes: int
    last_used: float
    metadata: ArtifactMetadata | None

    @property
    def unused_days(self) -> float:
        """Days since a run last used it."""
        return max(0.0, time.time() - self.last_used) / 86_400

    @property
    def about(self) -> str:
        """A description in one line."""
        if self.metadata is not None:
            return self.metadata.about
        unfinished = self.folder.name.startswith(".")
        return (
            "unfinished: from a killed run, or being computed now" if unfinished else "not readable"
        )


def list_artifacts(within: Path) -> Iterator[ArtifactInfo]:
    """List all artifacts, sorted by kind and age."""
    for parent in sorted(path for path in within.glob("*") if path.is_dir()):
        infos = []
        folders = (path for path in parent.iterdir() if path.is_dir())
        # A folder that is being written now is left to its writer.
        for folder in (path for path in folders if not path.name.startswith(PART)):
            unfinished = folder.name.startswith(".")
            metadata = None if unfinished else _read_metadata(folder)
            stats = dict(_stats(folder))
            # A run that uses an artifact touches its metadata.
            dated = (
                [stats[folder / METADATA]]
                if metadata and folder / METADATA in stats
                else stats.values()
            )
            last_used = max((stat.st_mtime for stat in dated), default=0.0)
            size = sum(stat.st_size for stat in stats.values() if S_ISREG(stat.st_mode))
            name = folder.name.removeprefix(WORK)
            infos.append(ArtifactInfo(parent.name, name, folder, size, last_used, metadata))
        yield from sorted(infos, key=lambda info: info.last_used)


def remove(info: ArtifactInfo) -> None:
    """Delete an artifact. If another process is computing it, first wait until that process has finished it."""
    with FileLock(info.folder.parent / f"{LOCK}{info.hash}"):
        shutil.rmtree(info.folder, ignore_errors=True)
    (info.folder.parent / f"{LOCK}{info.hash}").unlink(missing_ok=True)


def _computed(
    parent: Path,
    name: str,
    about: str,
    description: str,
    compute: Callable[[Path, Path], None],
    work: Path,
) -> ArtifactMetadata:
    """Compute an artifact, which then appears complete below `parent`."""
    began = time.perf_counter()
    with staged_folder(parent) as staging:
        with explain_write_errors(parent):  # here, while a full disk is still full
            compute(staging.path, work)
        write_text(staging.path / DESCRIPTION, description)
        sha256, size = _digest(staging.path)
        metadata = ArtifactMetadata(
            seconds=round(time.perf_counter() - began, 3),
            sha256=sha256,
            bytes=size,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            about=about,
        )
        write_sealed_json(staging.path / METADATA, metadata.model_dump())
        staging.name = name
    return metadata


def _fetched(
    kind: str, name: str, parent: Path, artifact_store: ArtifactStore | None
) -> ArtifactMetadata | None:
    """Fetch an artifact that another machine has made, if the store has an intact one."""
    if artifact_store is None:
        return None
    with staged_folder(parent) as staging:
        artifact_store.fetch(kind, name, staging.path)
        metadata = intact_metadata(staging.path)
        if metadata is not None:
            shutil.rmtree(parent / name, ignore_errors=True)  # a damaged one
            staging.name = name
    return metadata


def intact_metadata(folder: Path) -> ArtifactMetadata | None:
    """Return the metadata of an artifact, or None if its files are damaged."""
    metadata = _read_metadata(folder)
    return metadata if metadata is not None and _digest(folder)[0] == metadata.sha256 else None


def _read_metadata(folder: Path) -> ArtifactMetadata | None:
    try:
        return ArtifactMetadata.model_validate(read_sealed_json(folder / METADATA))
    except (OSError, DamagedFile, ValidationError):
        return None


def _digest(folder: Path) -> tuple[str, int]:
    """Return the SHA-256 over all files except the one that will hold the hash, and their size in bytes."""
    digest, size = hashlib.sha256(), 0
    for path in sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name != METADATA
    ):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\0".encode())
        size += path.stat().st_size
    return digest.hexdigest(), size


def _stats(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the paths and stat results in a folder, ignoring files that its writer removes meanwhile."""
    for within, _, names in os.walk(folder):
        for path in (Path(within), *(Path(within, name) for name in names)):
            with suppress(OSError):
                yield path, path.stat()
