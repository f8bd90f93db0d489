"""Preparing clips beside a bare loop that decodes and resamples them with the same libraries, in processor time.

The rest is the hash of each clip's content, which a manifest needs, the checks of the file and its samples, and what
Python does once a clip.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from lape_bench.data.audio_store import STORE_RATE, build_store
from lape_bench.data.recording import Recording
from lape_bench.runtime import cpu_cores

REPEATS = 3


def decode(path: Path) -> NDArray[np.float32]:
    samples, rate = soundfile.read(path, dtype="float32")
    if rate == STORE_RATE:
        return samples
    resampled: NDArray[np.float32] = soxr.resample(samples, rate, STORE_RATE)
    return resampled


def in_parallel(function: Callable[[Path], object], paths: Sequence[Path]) -> None:
    with ThreadPoolExecutor(cpu_cores.available()) as pool:
        for _ in pool.map(function, paths):
            pass


def processor_seconds(function: Callable[[], object]) -> float:
    began = time.process_time()
    function()
    return time.process_time() - began


@pytest.mark.parametrize(
    ("seconds", "rate", "clips", "least"), [(1, 16_000, 600, 0.4), (10, 44_100, 40, 0.6)]
)
def test_preparing_is_mostly_decoding_and_resampling(
    seconds: int,
    rate: int,
    clips: int,
    least: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    benchmark: Any,
) -> None:
    monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "home"))
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.flac" for number in range(clips)]
    for path in paths:
        soundfile.write(path, 0.1 * random.standard_normal(seconds * rate), rate)
    recordings = [Recording(path.stem, path) for path in paths]
    build_store(recordings[:1], STORE_RATE)  # imports

    def shares() -> list[float]:
        # Alternating, so that what else the machine does slows both.
        return [
            processor_seconds(lambda: in_parallel(decode, paths))
            / processor_seconds(lambda: build_store(recordings, STORE_RATE))
            for _ in range(REPEATS)
        ]

    share = float(np.median(benchmark.pedantic(shares, rounds=1)))
    benchmark.extra_info[
        f"share of preparing clips of {seconds} s at {rate:,} Hz that is decoding and resampling"
    ] = round(share, 2)
    assert share > least
