"""Clips of noise, and a run as `bench run` makes it."""

from pathlib import Path

import numpy as np
import pytest

from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.runtime.device import Compute
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.system import RunContext

RATE, CLIPS = 16_000, 640


@pytest.fixture
def clips() -> Clips:
    noise = np.random.default_rng(0).standard_normal(CLIPS * RATE, dtype=np.float32)
    starts, lengths = np.arange(CLIPS) * RATE, np.full(CLIPS, RATE)
    return Clips(tuple(map(str, range(CLIPS))), 0.1 * noise, starts, lengths, RATE, "noise")


@pytest.fixture
def here(tmp_path: Path) -> RunContext:
    """A run as `bench run` makes it on this CPU, which writes no checkpoint but the last."""
    device, precision = Compute(device="cpu").resolve()
    return RunContext(device, precision, Seeds(0), Progress(quiet=True), tmp_path, StageProfiler(device),
                      checkpoint_seconds=1e9, artifact_folder=tmp_path / "cache")  # fmt: skip
