"""Seconds and peak memory of a run's stages, which may nest."""

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
        costs: one entry a finished stage, in the order they ended.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.costs: list[StageCost] = []
        self._peaks: list[float] = []  # of the stages under way, outermost first

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
        """Credit the peak since the last note to every stage under way, and start a new one."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # what was asked for before belongs to before
            peak = torch.cuda.max_memory_allocated(self.device) / 2**20
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            peak = _peak_resident_mib()
            malloc.release_freed_memory()  # what one stage freed is not the next one's
            # Linux forgets the process's peak on this; elsewhere it stays, and a stage shows the run's.
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
        self._peaks = [max(before, peak) for before in self._peaks]


def _peak_resident_mib() -> float:
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0
