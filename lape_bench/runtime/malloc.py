"""How the C library of this process treats freed memory. This works with glibc only.

By default glibc returns each large block to the system and requests it again. Getting the pages again took a sixth of
the time of a fine-tuning step, and two fifths with windows of 5 s.
"""

import ctypes
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # constants of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Keep freed memory for the next tensors. Return False if the library is not glibc."""
    mallopt = _of_library("mallopt")
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))


def release_freed_memory() -> None:
    """Return kept memory to the system, for example between the stages of a run."""
    trim = _of_library("malloc_trim")
    if trim is not None:
        trim(0)


def _of_library(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
