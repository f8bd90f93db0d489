"""A lock that one process holds at a time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from lape_bench.core.errors import explain_write_errors


@contextmanager
def locked(path: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock during the block.

    Args:
        path: the lock's file, which stays.
        on_wait: called if another process holds the lock.

    Raises:
        UserError: the file cannot be written.
    """
    lock = FileLock(path)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire()
    try:
        yield
    finally:
        lock.release()
