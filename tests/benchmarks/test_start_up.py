"""Listings answer at once: their time as a share of what importing torch would take."""

import subprocess
import sys
import time
from typing import Any

import pytest


def seconds(*program: str) -> float:
    """Shortest of five runs."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, *program], check=True, capture_output=True)
        took.append(time.perf_counter() - began)
    return min(took)


@pytest.mark.parametrize("listing", ["tasks", "systems"])
def test_a_listing_takes_less_than_half_of_importing_torch(listing: str, benchmark: Any) -> None:
    took = benchmark.pedantic(seconds, ("-m", "lape_bench", listing), rounds=1)
    share = took / seconds("-c", "import torch")
    benchmark.extra_info["share of importing torch"] = round(share, 2)
    assert share < 0.5
