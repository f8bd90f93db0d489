"""Memory that is freed stays with the process, counted in pages found anew."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import torch
from lape_bench.memory import give_back, keep_freed

if sys.argv[1] == "kept":
    assert keep_freed()

def found(tensors: int) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(tensors):
        torch.ones(9 << 20)  # 36 MiB, freed at once; glibc would keep 32
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

found(8)  # until the heap has its size
if sys.argv[-1] == "between":
    give_back()
print(found(4))
"""


def pages_found_anew(*how: str) -> int:
    ran = subprocess.run(
        [sys.executable, "-c", COUNT, *how], check=True, capture_output=True, text=True
    )
    return int(ran.stdout)


glibc = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc is told what to keep"
)


@glibc
def test_freed_memory_is_used_again_without_finding_its_pages_anew() -> None:
    kept, given_back = pages_found_anew("kept"), pages_found_anew("given back")
    assert kept < given_back / 10


@glibc
def test_kept_memory_can_be_given_back() -> None:
    assert pages_found_anew("kept", "between") > 10 * pages_found_anew("kept")
