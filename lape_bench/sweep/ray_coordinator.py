"""Where the machines of a Ray cluster tell how far they are, and leave artifacts for each other.

A `Coordinator` is an actor on the machine that starts the sweep; the other classes speak with it from where a cell runs.
"""

import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from lape_bench.core.paths import PART, new_file
from lape_bench.core.progress import Progress, Running
from lape_bench.runtime.artifacts import METADATA, intact_metadata

CHUNK = 16 * 2**20  # bytes of a file that travel at once
TELLS_EVERY_SECONDS = 1.0


class Step(NamedTuple):
    """How far a cell is: where it runs, and the count of what it does at the moment."""

    machine: str
    doing: str
    done: int
    total: int | None
    unit: str


class Coordinator:
    """Keeps what machines tell, and the artifacts that they leave, in the cache of this one.

    Args:
        cache: the folder of artifacts.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._told: dict[int, Step] = {}

    def tell(self, number: int, step: Step | None) -> None:
        """Note how far a cell is, by its number; none when it has ended."""
        if step is None:
            self._told.pop(number, None)
        else:
            self._told[number] = step

    def told(self) -> dict[int, Step]:
        """Return how far each cell is that runs."""
        return dict(self._told)

    def has(self, kind: str, name: str) -> bool:
        """Tell whether an artifact is here."""
        return (self._cache / kind / name / METADATA).is_file()

    def files(self, kind: str, name: str) -> list[tuple[str, int]]:
        """Return the files of an artifact with their bytes; none if it is not here."""
        folder = self._cache / kind / name
        return [
            (path.relative_to(folder).as_posix(), path.stat().st_size)
            for path in folder.rglob("*")
            if path.is_file()
        ]

    def read(self, kind: str, name: str, file: str, start: int) -> bytes:
        """Return a part of a file."""
        with (self._cache / kind / name / file).open("rb") as opened:
            opened.seek(start)
            return opened.read(CHUNK)

    def open_part(self, kind: str) -> str:
        """Return a folder to write an artifact's files to."""
        parent = self._cache / kind
        parent.mkdir(parents=True, exist_ok=True)
        return tempfile.mkdtemp(dir=parent, prefix=PART)

    def write(self, part: str, file: str, content: bytes) -> None:
        """Add to the end of a file."""
        path = Path(part, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as opened:
            opened.write(content)

    def keep(self, part: str, name: str) -> None:
        """Keep what was written, if it is whole and no other machine was first."""
        folder = Path(part)
        with suppress(OSError):
            if intact_metadata(folder) is not None:
                folder.chmod(0o755)
                folder.rename(folder.parent / name)
        shutil.rmtree(folder, ignore_errors=True)


class RemoteArtifactStore:
    """The depot of a machine that does not share the cache of the one that starts the sweep.

    A machine that cannot bring or leave an artifact makes its own, which costs time and no more.

    Args:
        desk: the actor.
    """

    def __init__(self, desk: Any) -> None:
        self._desk = desk

    def fetch(self, kind: str, name: str, folder: Path) -> None:
        """See `ArtifactStore`."""
        with suppress(RayError):
            for file, size in ray.get(self._desk.files.remote(kind, name)):
                with new_file(folder / file) as path, path.open("wb") as opened:
                    for start in range(0, size, CHUNK):
                        opened.write(ray.get(self._desk.read.remote(kind, name, file, start)))

    def leave(self, kind: str, name: str, folder: Path) -> None:
        """See `ArtifactStore`."""
        with suppress(RayError):
            if ray.get(self._desk.has.remote(kind, name)):
                return
            part = ray.get(self._desk.open_part.remote(kind))
            for path in (path for path in folder.rglob("*") if path.is_file()):
                file = path.relative_to(folder).as_posix()
                with path.open("rb") as opened:
                    chunk = opened.read(CHUNK)
                    ray.get(self._desk.write.remote(part, file, chunk))
                    while chunk := opened.read(CHUNK):
                        ray.get(self._desk.write.remote(part, file, chunk))
            ray.get(self._desk.keep.remote(part, name))


class RemoteProgress(Progress):
    """Tells the desk what a cell does, instead of showing it.

    Args:
        desk: the actor.
        number: of the cell.
        machine: where it runs.
    """

    def __init__(self, desk: Any, number: int, machine: str) -> None:
        super().__init__(quiet=True)
        self._desk, self._number, self._machine = desk, number, machine
        self._told = 0.0

    def changed(self, running: Running) -> None:
        """Tell how far it is, unless that was a moment ago."""
        if time.monotonic() - self._told > TELLS_EVERY_SECONDS:
            self._told = time.monotonic()
            step = Step(self._machine, running.title, running.done, running.total, running.unit)
            self._desk.tell.remote(self._number, step)
