"""What this process's C library does with memory that is freed; only glibc is asked.

By default glibc gives each large block back to the system and asks for it again, and finding its pages again took a
sixth of a step of fine-tuning, with windows of 5 s two fifths.
"""

import ctypes
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> bool:
    """Keep what is freed for the next tensors; return whether the library could be asked."""
    mallopt = _of_library("mallopt")
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, -1))


def release_freed_memory() -> None:
    """Give what is kept back to the system, such as between the stages of a run."""
    trim = _of_library("malloc_trim")
    if trim is not None:
        trim(0)


def _of_library(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None)
