"""End a worker process when its parent process has ended, even if the parent was killed.

This module has no slow imports, since a worker runs it first.
"""

import os
import threading
from multiprocessing import parent_process
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """End this process as soon as its parent has ended, even if the parent was killed."""
    parent = parent_process()
    assert parent is not None, "multiprocessing started this process"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="end with parent").start()
