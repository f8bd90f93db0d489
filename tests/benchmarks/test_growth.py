"""A hundred times the clips cost a hundred times as much and no more memory; long clips cost none either.

What a process holds is counted without the pages of files that are mapped: the system takes those back whenever it likes.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FEW, MANY = 1_000, 100_000
WORK = """
import json, sys, threading, time
from pathlib import Path
import numpy as np
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.runtime.device import Compute
from lape_bench.learning.encoders import AudioNTT
from lape_bench.learning.encoders.heads import mlp
from lape_bench.learning.training.inference import class_log_probabilities, embed
from lape_bench.learning.systems.pretrained_system import load_upstream
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.system import RunContext

RATE, WIDTH, BLOCK = 16_000, 128, 1_000
work, count, seconds, here = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])

def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

def watch():
    while True:
        global most
        most = max(most, held())
        time.sleep(0.01)

length = seconds * RATE
noise = 0.1 * np.random.default_rng(0).standard_normal(BLOCK * RATE, dtype=np.float32)
with (here / "samples").open("wb") as file:
    for _ in range(-(-count * seconds // BLOCK)):
        noise.tofile(file)
samples = np.memmap(here / "samples", np.float32, mode="r+")
starts = np.arange(count) * length
clips = Clips(tuple(map(str, range(count))), samples, starts, np.full(count, length), RATE, "noise")
device, precision = Compute(device="cpu").resolve()
context = RunContext(device, precision, Seeds(0), Progress(quiet=True), here, StageProfiler(device), 1e9, artifact_folder=here / "cache")
kind = load_upstream("simclr")
settings = kind.Settings.model_validate({"width": WIDTH, "pretrain": {"epochs": 1, "min_steps": 1}})
encoder = kind.new_encoder(settings)
if work == "embedding":
    run = lambda some: embed(encoder, some, 1.0, context)
elif work == "scoring":
    run = lambda some: class_log_probabilities(encoder, mlp([WIDTH, 20]), some, 1.0, context)
else:
    run = lambda some: kind.load_or_pretrain(settings, some, context)
run(clips.view(range(min(count, 8))))
before = most = held()
threading.Thread(target=watch, daemon=True).start()
began = time.perf_counter()
run(clips)
took = time.perf_counter() - began
print(json.dumps({"clips a second": count / took, "MiB": most / 2**20, "added MiB": (most - before) / 2**20}))
"""


def measured(work: str, count: int, seconds: int, here: Path) -> dict[str, float]:
    """Clips a second and memory of a process of its own, on generated clips that lie in a file."""
    here.mkdir()
    program = [sys.executable, "-c", WORK, work, str(count), str(seconds), str(here)]
    done = subprocess.run(program, check=True, capture_output=True, text=True)
    (here / "samples").unlink()
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("work", ["embedding", "pre-training"])
def test_a_hundred_times_the_clips_cost_as_much_each(
    work: str, tmp_path: Path, benchmark: Any
) -> None:
    few = measured(work, FEW, 1, tmp_path / "few")
    many = benchmark.pedantic(measured, (work, MANY, 1, tmp_path / "many"), rounds=1)
    rate = many["clips a second"] / few["clips a second"]
    benchmark.extra_info[f"{work}, 100,000 clips against 1,000: clips a second"] = (
        f"{many['clips a second']:.0f} against {few['clips a second']:.0f}"
    )
    benchmark.extra_info[f"{work}, 100,000 clips against 1,000: MiB"] = (
        f"{many['MiB']:.0f} against {few['MiB']:.0f}"
    )
    assert rate > 0.8
    assert many["MiB"] < 2048


def test_clips_of_ten_minutes_are_scored_in_little_more_memory_than_clips_of_a_second(
    tmp_path: Path, benchmark: Any
) -> None:
    short = measured("scoring", 1_200, 1, tmp_path / "short")
    long = benchmark.pedantic(measured, ("scoring", 2, 600, tmp_path / "long"), rounds=1)
    benchmark.extra_info["scoring, 10 minutes against a second: MiB"] = (
        f"{long['MiB']:.0f} against {short['MiB']:.0f}"
    )
    assert long["MiB"] < short["MiB"] + 200
