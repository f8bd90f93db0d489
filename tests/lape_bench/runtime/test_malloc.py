"""Memory that is freed stays with the process, counted in pages found anew."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import torch
from lape_bench.runtime.malloc import release_freed_memory, keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def resident() -> int:
    return int(open("/proc/self/statm").read().split()[1])  # pages

def found(tensors: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(tensors):
        torch.ones(9 << 20)  # 36 MiB, freed at once; glibc would keep 32
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found(8)  # until the heap has its size
print(found(12))
before = resident()
release_freed_memory()
print(before - resident())
"""


def pages(how: str) -> tuple[int, int]:
    """Return how many were found anew for twelve tensors, and how many `release_freed_memory` gave back after them."""
    ran = subprocess.run(
        [sys.executable, "-c", COUNT, how], check=True, capture_output=True, text=True
    )
    found, given_back = ran.stdout.split()
    return int(found), int(given_back)


glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep"
)


@glibc
def test_freed_memory_is_used_again_and_given_back_when_told() -> None:
    found_kept, given_back = pages("kept")
    found_otherwise, _ = pages("as by default")
    assert found_kept < found_otherwise / 4
    assert given_back > 9 << 10  # at least the 36 MiB of one tensor, in pages of 4 KiB
