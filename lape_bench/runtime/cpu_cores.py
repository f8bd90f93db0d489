"""The cores of this machine: how many this process may use, and what other runs use beside it.

Runs that start more threads than there are cores do not share them fairly: a step ends when the last of its threads does, and
that one waits for a thread of another run. Two runs of two threads each, on two cores, took three to four times as long
as with one thread each.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout


def given() -> int:
    """Return how many cores this process may use, by its affinity and by the quota of its container."""
    from joblib import cpu_count  # slow to import, and listings need none

    return int(cpu_count())


@contextmanager
def taken(threads: int) -> Iterator[int]:
    """Let other runs of this user see, during the block, that this one computes with so many threads.

    Yields:
        The threads of those that were there before.
    """
    folder, others = _runs(), 0
    note = FileLock(folder / f"{uuid4().hex}-{threads}")
    with suppress(OSError, Timeout):  # a note that cannot be left stops no run
        folder.mkdir(parents=True, exist_ok=True)
        others = sum(map(_threads_of, folder.glob("*-*")))
        note.acquire(timeout=1)
    try:
        yield others
    finally:
        if note.is_locked:
            Path(note.lock_file).unlink(missing_ok=True)
        note.release()


def _runs() -> Path:
    """Return the folder of the notes, on this machine alone: a cache may be shared with others."""
    return Path(tempfile.gettempdir()) / f"lape_bench-runs-{os.getuid()}"


def _threads_of(note: Path) -> int:
    """Return the threads of a run that is still there; the note of a killed one is not locked any more."""
    try:
        with FileLock(note, timeout=0):
            note.unlink(missing_ok=True)
    except Timeout:
        return int(note.name.rpartition("-")[2])
    return 0
