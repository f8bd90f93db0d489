"""Progress bars of cells that run on other machines."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from lape_bench.core.progress import Progress, Running
from lape_bench.sweep.ray_coordinator import CellProgress

SHOWN = 12  # most bars of single cells


class ClusterProgressBars:
    """Shows a bar for each running cell, if the output is a terminal.

    Args:
        progress: shows the bars.
        cells: the progress of the whole sweep.
    """

    def __init__(self, progress: Progress, cells: Running) -> None:
        self._progress, self._cells = progress, cells
        self._bars: dict[tuple[int, str], tuple[AbstractContextManager[Running], Running]] = {}

    def show(self, titles: Mapping[int, str], progress: Mapping[int, CellProgress]) -> None:
        """Show the progress of cells.

        Args:
            titles: the title of each cell that has started and not ended, by number.
            progress: the last report of each cell, by number; cells without a title are ignored.
        """
        steps = {number: step for number, step in progress.items() if number in titles}
        machines = {step.machine for step in steps.values()}
        self._cells.note(running=f"{len(steps)} on {len(machines)} machines")
        if not self._progress.live:
            return
        current = {(number, step.doing) for number, step in steps.items()}
        for ended in self._bars.keys() - current:
            self._bars.pop(ended)[0].__exit__(None, None, None)
        for number, step in steps.items():
            key = (number, step.doing)
            if key not in self._bars and len(self._bars) < SHOWN:
                title = f"{step.machine} {titles[number]}"
                bar = self._progress.task(title, step.total, step.unit)
                running = bar.__enter__()
                running.note(doing=step.doing)
                running.resume_at(step.done)
                self._bars[key] = bar, running
            if key in self._bars:
                running = self._bars[key][1]
                running.advance(step.done - running.done)

    def close(self) -> None:
        """Remove the bars."""
        for bar, _ in self._bars.values():
            bar.__exit__(None, None, None)
        self._bars.clear()
