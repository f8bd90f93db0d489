"""Two runs on one machine, each with its share of the cores, beside one of them alone."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lape_bench.runtime import cpu_cores

RUN = """
import sys
from lape_bench.cli.app import main
sys.argv[1:] = ["run", "--quiet", "--set", "finetune.epochs=1", "--set", "finetune.min_steps=60", *sys.argv[1:]]
main()
"""


def runs(count: int, out: Path, *options: str) -> float:
    """Seconds of some runs at once, of which none finds what another has done."""
    began = time.perf_counter()
    started = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, *options, "--out", str(out / f"{began}-{number}")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for number in range(count)
    ]
    assert [process.wait() for process in started] == [0] * count
    return time.perf_counter() - began


def test_two_runs_do_not_trample_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, benchmark: Any
) -> None:
    if cpu_cores.available() < 2:
        pytest.skip("two runs need two cores")
    monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "home"))
    half = ("--threads", str(cpu_cores.available() // 2))
    runs(1, tmp_path, *half)  # prepares the task
    alone = runs(1, tmp_path, *half)
    both = benchmark.pedantic(lambda: runs(2, tmp_path, *half), rounds=1)
    benchmark.extra_info["two, half of the cores each: times the seconds of one"] = round(
        both / alone, 2
    )
    trampling = runs(2, tmp_path)
    benchmark.extra_info["two, all cores each: times the seconds of one with half"] = round(
        trampling / alone, 2
    )
    assert both < 1.4 * alone
