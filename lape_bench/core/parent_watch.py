"""End a worker process when its parent process has ended, even if the parent was killed, or when the parent stops it.

This module has no slow imports, since a worker runs it first.
"""

import os
import threading
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait


def end_with_parent(stop: Connection | None = None) -> None:
    """End this process as soon as its parent has ended, even if the parent was killed.

    Args:
        stop: a pipe; this process also ends when the parent writes to it.
    """
    parent = parent_process()
    assert parent is not None, "multiprocessing started this process"
    ends: list[Connection | int] = [parent.sentinel, *([stop] if stop else [])]

    def watch() -> None:
        wait(ends)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
