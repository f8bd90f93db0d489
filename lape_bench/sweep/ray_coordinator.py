"""The coordinator of a Ray cluster: machines report their progress to it, and exchange artifacts through it.

A `Coordinator` is an actor on the machine that starts the sweep; the other classes call it from the machine that runs a cell.
"""

import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from lape_bench.core.paths import new_file, part_folder
from lape_bench.core.progress import Progress, Running
from lape_bench.runtime.artifacts import METADATA, intact_metadata

CHUNK = 16 * 2**20  # bytes of a file that are sent at once
REPORT_SECONDS = 1.0


class CellProgress(NamedTuple):
    """The progress of a cell: the machine that runs it, and the count of its current stage."""

    machine: str
    doing: str
    done: int
    total: int | None
    unit: str


class Coordinator:
    """Collects the progress of cells, and serves the artifacts in the cache of this machine.

    Args:
        cache: the folder of artifacts.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._progress: dict[int, CellProgress] = {}

    def note_progress(self, number: int, step: CellProgress | None) -> None:
        """Store the progress of a cell, by its number; None if the cell has ended."""
        if step is None:
            self._progress.pop(number, None)
        else:
            self._progress[number] = step

    def progress(self) -> dict[int, CellProgress]:
        """Return the progress of each running cell, by its number."""
        return dict(self._progress)

    def has(self, kind: str, name: str) -> bool:
        """Return True if an artifact is in the cache."""
        return (self._cache / kind / name / METADATA).is_file()

    def files(self, kind: str, name: str) -> list[tuple[str, int]]:
        """Return the name and size in bytes of each file of an artifact; empty if the cache does not have it."""
        folder = self._cache / kind / name
        return [
            (path.relative_to(folder).as_posix(), path.stat().st_size)
            for path in folder.rglob("*")
            if path.is_file()
        ]

    def read(self, kind: str, name: str, file: str, start: int) -> bytes:
        """Return at most `CHUNK` bytes of a file, from byte `start`."""
        with (self._cache / kind / name / file).open("rb") as opened:
            opened.seek(start)
            return opened.read(CHUNK)

    def open_part(self, kind: str) -> str:
        """Make a temporary folder for the files of an artifact, and return its path."""
        parent = self._cache / kind
        parent.mkdir(parents=True, exist_ok=True)
        return str(part_folder(parent))

    def write(self, part: str, file: str, content: bytes) -> None:
        """Append bytes to a file of a temporary folder."""
        path = Path(part, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as opened:
            opened.write(content)

    def keep(self, part: str, name: str) -> None:
        """Move a temporary folder into the cache, if the artifact is intact and no other machine was first."""
        folder = Path(part)
        with suppress(OSError):
            if intact_metadata(folder) is not None:
                folder.chmod(0o755)
                folder.rename(folder.parent / name)
        shutil.rmtree(folder, ignore_errors=True)


class RemoteArtifactStore:
    """The artifact store of a machine that does not share the cache of the machine that starts the sweep.

    If an artifact cannot be transferred, the machine computes it itself. That costs time and changes no result.

    Args:
        coordinator: the actor of a `Coordinator`.
    """

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def fetch(self, kind: str, name: str, folder: Path) -> None:
        """See `ArtifactStore`."""
        with suppress(RayError):
            for file, size in ray.get(self._coordinator.files.remote(kind, name)):
                with new_file(folder / file) as path, path.open("wb") as opened:
                    for start in range(0, size, CHUNK):
                        opened.write(
                            ray.get(self._coordinator.read.remote(kind, name, file, start))
                        )

    def leave(self, kind: str, name: str, folder: Path) -> None:
        """See `ArtifactStore`."""
        with suppress(RayError):
            if ray.get(self._coordinator.has.remote(kind, name)):
                return
            part = ray.get(self._coordinator.open_part.remote(kind))
            for path in (path for path in folder.rglob("*") if path.is_file()):
                file = path.relative_to(folder).as_posix()
                with path.open("rb") as opened:
                    chunk = opened.read(CHUNK)
                    ray.get(self._coordinator.write.remote(part, file, chunk))
                    while chunk := opened.read(CHUNK):
                        ray.get(self._coordinator.write.remote(part, file, chunk))
            ray.get(self._coordinator.keep.remote(part, name))


class RemoteProgress(Progress):
    """Reports the progress of a cell to the coordinator, instead of showing it.

    Args:
        coordinator: the actor of a `Coordinator`.
        number: number of the cell.
        machine: name of the machine that runs it.
    """

    def __init__(self, coordinator: Any, number: int, machine: str) -> None:
        super().__init__(quiet=True)
        self._coordinator, self._number, self._machine = coordinator, number, machine
        self._reported = 0.0

    def changed(self, running: Running) -> None:
        """Report the progress, at most once in `REPORT_SECONDS`."""
        if time.monotonic() - self._reported > REPORT_SECONDS:
            self._reported = time.monotonic()
            step = CellProgress(
                self._machine, running.title, running.done, running.total, running.unit
            )
            self._coordinator.note_progress.remote(self._number, step)
