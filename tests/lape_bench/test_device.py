"""Memory that is freed stays with the process, counted in pages found anew."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import torch
from lape_bench.device import keep_memory

if sys.argv[1] == "kept":
    assert keep_memory()

def found(tensors: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(tensors):
        torch.ones(9 << 20)  # 36 MiB, freed at once; glibc would keep 32
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found(8)  # until the heap has its size
print(found(4))
"""


def pages_found_anew(how: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", COUNT, how], check=True, capture_output=True, text=True
    )
    return int(ran.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_freed_memory_is_used_again_without_finding_its_pages_anew() -> None:
    kept, given_back = pages_found_anew("kept"), pages_found_anew("given back")
    assert kept < given_back / 10
