"""Run cells in this process, or in several processes of this machine."""

import logging
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection

from lape_bench.core.parent_watch import end_with_parent
from lape_bench.core.progress import Progress, Running
from lape_bench.evaluation.plan import PlannedCell
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.records.record import Cell
from lape_bench.sweep.engine import Engine, WorkerLost, dispatch
from lape_bench.sweep.grid import PlannedItem, SweepItem
from lape_bench.sweep.machine import MachineReport, SubmitHost
from lape_bench.sweep.run_cell import CellOutcome, collected_warnings, try_run

logger = logging.getLogger(__name__)

TRIES = 2  # starts of a cell whose process dies, before it counts as failed


class LocalEngine(Engine):
    """Runs cells on this machine.

    Args:
        jobs: number of processes; with 1, cells run in this process.
    """

    def __init__(self, jobs: int = 1) -> None:
        self.jobs: int = jobs

    def run(
        self, items: Sequence[PlannedItem], options: RunOptions, progress: Progress, cells: Running
    ) -> Iterator[tuple[Cell, CellOutcome]]:
        """See `Engine`."""
        if self.jobs == 1:
            for item in items:
                yield item.cell, try_run(item.planned, options, progress)
            return
        options = options.model_copy(update={"compute": options.compute.shared(self.jobs)})
        with _Processes.several(self.jobs, options) as processes:
            yield from dispatch(items, options, processes, TRIES)

    def check(
        self, items: Sequence[SweepItem], options: RunOptions, progress: Progress
    ) -> list[MachineReport]:
        """See `Engine`."""
        with SubmitHost.this_machine((item.cell.task for item in items), options) as submit_host:
            return [submit_host.report()]


class _Process:
    """A process that runs one cell at a time. If it dies, no other cell is lost, and another process takes its place."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        # Spawned, because a forked torch inherits locks of threads that it does not have.
        spawn = get_context("spawn")
        stop, self._stop = spawn.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(
            1, mp_context=spawn, initializer=_obey_parent, initargs=(stop,)
        )

    def run(
        self, planned: PlannedCell, options: RunOptions
    ) -> Future[tuple[CellOutcome, list[str]]]:
        """Start a cell."""
        try:
            return self._pool.submit(_run_quietly, planned, options)
        except BrokenProcessPool:  # it died after its last cell
            self.replace()
            return self._pool.submit(_run_quietly, planned, options)

    def replace(self) -> None:
        """Start a process instead of one that has died."""
        self._pool.shutdown()
        self._start()

    def end(self) -> None:
        """End the process now. A cell that it runs is resumed by the next sweep."""
        with suppress(OSError):  # it has died
            self._stop.send(None)
        self._pool.shutdown()


class _Processes:
    waits_inside = True

    def __init__(self, jobs: int, options: RunOptions) -> None:
        self._options = options
        self._idle = [_Process() for _ in range(jobs)]
        self._running: dict[Future[tuple[CellOutcome, list[str]]], tuple[int, _Process]] = {}

    @classmethod
    @contextmanager
    def several(cls, jobs: int, options: RunOptions) -> Iterator["_Processes"]:
        """Yield processes that end with the block."""
        processes = cls(jobs, options)
        try:
            yield processes
        finally:
            busy = [process for _, process in processes._running.values()]
            for process in [*busy, *processes._idle]:
                process.end()

    def has_room(self) -> bool:
        return bool(self._idle)

    def start(self, number: int, item: PlannedItem) -> None:
        process = self._idle.pop()
        self._running[process.run(item.planned, self._options)] = number, process

    def ended(self) -> Sequence[tuple[int, CellOutcome | WorkerLost]]:
        outcomes: list[tuple[int, CellOutcome | WorkerLost]] = []
        for future in wait(self._running, return_when=FIRST_COMPLETED).done:
            number, process = self._running.pop(future)
            try:
                outcome, warnings = future.result()
                outcomes.append((number, outcome))
                for warning in warnings:
                    logger.warning(warning)
            except BrokenProcessPool:
                process.replace()
                outcomes.append((number, WorkerLost("its process died (killed, or out of memory)")))
            self._idle.append(process)
        return outcomes


def _obey_parent(stop: Connection) -> None:
    """Prepare a new process: it ends with its parent, or when the parent says so."""
    end_with_parent(stop)
    # Ctrl-C reaches every process of a terminal, and the parent then ends this one. The handler is a function, since programs
    # that a system starts would inherit SIG_IGN.
    signal.signal(signal.SIGINT, lambda *_: None)


def _run_quietly(planned: PlannedCell, options: RunOptions) -> tuple[CellOutcome, list[str]]:
    """Run a cell and return its outcome and the warnings, since bars and messages of several processes would mix."""
    with collected_warnings() as warnings:
        return try_run(planned, options, Progress(quiet=True)), warnings
