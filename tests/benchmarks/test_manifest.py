"""A manifest of many clips is drawn, hashed, split and verified in time that grows no faster than its clips."""

import subprocess
import sys
from typing import Any

import pytest

MIB = 2**20
SCRIPT = """
import resource, sys, time
from pathlib import Path
from lape_bench.data.catalog import load_card
from lape_bench.data.drawn_split import draw_split
from lape_bench.core.label_budget import LabelBudget
from lape_bench.core.progress import Progress
from lape_bench.data.splits import make_split
from lape_bench.task import Listed
from lape_bench.data.verify import verify
from tests.lape_bench.stand_ins import as_manifest

card, count = load_card(sys.argv[1]), int(sys.argv[2])
listing = [
    Listed(f"{n:06d}", Path(f"{n:06d}.wav"), card.classes[n % len(card.classes)], None, None, f"user{n % 3000}")
    for n in range(count)
]
began = time.perf_counter()
manifest = as_manifest(card, draw_split(listing, card))
manifest.hash
make_split(manifest, card, 0, 0, LabelBudget(0.1))
verify(card, manifest, False, Progress(quiet=True))
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def measured(task: str, clips: int) -> tuple[float, int]:
    """Seconds and bytes of a process of its own."""
    program = [sys.executable, "-c", SCRIPT, task, str(clips)]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    seconds, memory = done.stdout.split()
    return float(seconds), int(memory)


@pytest.mark.parametrize("task", ["voxforge", "librispeech-speaker"])
def test_ten_times_the_clips_take_at_most_twenty_times_as_long(task: str, benchmark: Any) -> None:
    few, _ = measured(task, 10_000)
    many, memory = benchmark.pedantic(measured, (task, 100_000), rounds=1)
    benchmark.extra_info["ratio"] = round(many / few, 1)
    benchmark.extra_info["MiB"] = memory // MIB
    assert many < 20 * few
    assert memory < 1024 * MIB
