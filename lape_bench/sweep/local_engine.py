"""Cells in this process, or in several of this machine."""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context

from lape_bench.core.progress import Progress, Running
from lape_bench.evaluation.runner import RunOptions
from lape_bench.records.record import Cell
from lape_bench.sweep.engine import Engine, Lost, hand_out
from lape_bench.sweep.grid import Work
from lape_bench.sweep.machine import NodeReport, Site
from lape_bench.sweep.run_cell import Outcome, attempt

TRIES = 2  # of a cell whose process died, before it counts as failed


class Local(Engine):
    """This machine.

    Args:
        jobs: processes; 1 runs in this one.
    """

    def __init__(self, jobs: int = 1) -> None:
        self.jobs: int = jobs

    def run(
        self, works: Sequence[Work], options: RunOptions, progress: Progress, cells: Running
    ) -> Iterator[tuple[Cell, Outcome]]:
        """See `Engine`."""
        if self.jobs == 1:
            for work in works:
                yield work.cell, attempt(work.cell, options, progress)
            return
        options = options.model_copy(update={"compute": options.compute.shared(self.jobs)})
        with _Processes.several(self.jobs, options) as processes:
            yield from hand_out(works, options, processes, TRIES, progress)

    def check(
        self, works: Sequence[Work], options: RunOptions, progress: Progress
    ) -> list[NodeReport]:
        """See `Engine`."""
        with Site.here((work.cell.task for work in works), options) as site:
            return [site.report()]


class _Processes:
    """One process a slot: a process that dies takes its whole pool with it, and no other cell must be in it."""

    waits_inside = True

    def __init__(self, jobs: int, options: RunOptions) -> None:
        self._options = options
        self._idle = [_new_process() for _ in range(jobs)]
        self._running: dict[Future[Outcome], tuple[int, ProcessPoolExecutor]] = {}

    @classmethod
    @contextmanager
    def several(cls, jobs: int, options: RunOptions) -> Iterator["_Processes"]:
        """Give processes that end with the block."""
        processes = cls(jobs, options)
        try:
            yield processes
        finally:
            busy = [process for _, process in processes._running.values()]
            for process in [*processes._idle, *busy]:
                process.shutdown(cancel_futures=True)

    def free(self) -> bool:
        return bool(self._idle)

    def start(self, number: int, work: Work) -> None:
        process = self._idle.pop()
        future = process.submit(_attempt_quietly, work.cell, self._options)
        self._running[future] = number, process

    def ended(self) -> Sequence[tuple[int, Outcome | Lost]]:
        told: list[tuple[int, Outcome | Lost]] = []
        for future in wait(self._running, return_when=FIRST_COMPLETED).done:
            number, process = self._running.pop(future)
            try:
                told.append((number, future.result()))
            except BrokenProcessPool:
                process.shutdown()
                process = _new_process()
                told.append((number, Lost("its process died (killed, or out of memory)")))
            self._idle.append(process)
        return told


def _new_process() -> ProcessPoolExecutor:
    # Spawned, because a forked torch inherits locks of threads that it does not have.
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _attempt_quietly(cell: Cell, options: RunOptions) -> Outcome:
    return attempt(cell, options, Progress(quiet=True))
