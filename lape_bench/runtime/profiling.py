"""Seconds and peak memory of the stages of a run. Stages may nest."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from lape_bench.records.record import StageCost
from lape_bench.runtime import malloc


class StageProfiler:
    """Measures stages on one device.

    Attributes:
        costs: one entry per finished stage, in the order in which they ended.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.costs: list[StageCost] = []
        self._peaks: list[float] = []  # peak memory of each running stage in MiB, outermost first

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block."""
        self._note_peak()
        self._peaks.append(0.0)
        began = time.perf_counter()
        try:
            yield
        finally:
            self._note_peak()
            seconds = time.perf_counter() - began
            peak = self._peaks.pop()
            self.costs.append(
                StageCost(name=name, seconds=round(seconds, 3), peak_memory_mib=round(peak, 1))
            )

    def _note_peak(self) -> None:
        """Count the peak memory since the last call for every running stage, and reset it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # pending work belongs to the time before
            peak = torch.cuda.max_memory_allocated(self.device) / 2**20
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            peak = _peak_resident_mib()
            malloc.release_freed_memory()  # memory freed by one stage must not count for the next
            # Linux resets the peak of the process on this; on other systems a stage shows the peak of the run.
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
        self._peaks = [max(before, peak) for before in self._peaks]


def _peak_resident_mib() -> float:
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
