"""Sweeps: a grid in a file, expanded into cells, run in one or more processes.

A failing cell is recorded and the others go on; a stopped sweep is taken up by running it again, since
finished cells are not run twice and an unfinished one resumes.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import Field, field_validator

from lape_bench.config import Config
from lape_bench.errors import UserError, unknown
from lape_bench.progress import Progress
from lape_bench.records import (
    LOCK,
    Cell,
    LabelFraction,
    RunRecord,
    cell_folder,
    read_record,
)
from lape_bench.runner import (
    RunOptions,
    check_protocols,
    finished_record,
    plan,
    record_failure,
    resolve,
    run_cell,
)
from lape_bench.schedule import Schedule

TRIES = 2  # of a cell whose process died, before it counts as failed

Outcome = RunRecord | str  # a record, or why there is none
State = Literal["finished", "running", "failed", "to run", "impossible"]


class SystemEntry(Config):
    """A system of a sweep, with the settings that differ from its defaults."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


class SweepConfig(Config):
    """A grid of cells."""

    systems: tuple[SystemEntry, ...] = Field(
        min_length=1, description="names, or name and settings"
    )
    tasks: tuple[str, ...] = Field(min_length=1)
    protocols: tuple[str, ...] = Field((), description="none: each system's own")
    label_fractions: tuple[LabelFraction, ...] = Field((1.0,), min_length=1)
    seeds: int = Field(1, ge=1, description="how many, from 0")
    also: tuple["SweepConfig", ...] = Field((), description="more grids of the same sweep")

    @field_validator("systems", mode="before")
    @classmethod
    def _a_name_is_an_entry(cls, systems: Any) -> Any:
        if not isinstance(systems, list):
            return systems
        return [{"name": entry} if isinstance(entry, str) else entry for entry in systems]

    def only(self, tasks: Sequence[str]) -> "SweepConfig":
        """Return the grid of some of its tasks.

        Raises:
            UserError: the grid does not have one of them.
        """
        everything = [task for grid in self._grids() for task in grid.tasks]
        for task in tasks:
            if task not in everything:
                raise unknown("task of this grid", task, everything)
        first, *others = (
            grid.model_copy(
                update={"tasks": tuple(t for t in grid.tasks if t in tasks), "also": ()}
            )
            for grid in self._grids()
        )
        return first.model_copy(update={"also": tuple(others)})

    def cells(self) -> list[Cell]:
        """Expand the grid."""
        cells = []
        for grid in self._grids():
            check_protocols(grid.protocols)
            systems = [(entry.name, entry.settings) for entry in grid.systems]
            cells += plan(systems, grid.tasks, grid.protocols, grid.label_fractions, grid.seeds)
        return cells

    def _grids(self) -> "list[SweepConfig]":
        return [self, *(grid for other in self.also for grid in other._grids())]


def run_cells(
    cells: Sequence[Cell], options: RunOptions, jobs: int, progress: Progress
) -> Iterator[tuple[Cell, Outcome]]:
    """Run cells and yield each with its record, or with the reason it could not be run, as it ends.

    Several processes take those first that make most for others, such as an upstream. Who needs it begins when they have
    ended, or waits inside where nothing else is left.

    Args:
        cells: what to run.
        options: how.
        jobs: processes; 1 runs in this one.
        progress: told of cells, and in one process of what happens inside them.
    """
    run = _in_this_process if jobs == 1 else _in_processes
    with progress.task("cells", len(cells), "cells") as task:
        for cell, outcome in run(cells, options, jobs, progress):
            task.advance()
            yield cell, outcome


def state_of(cell: Cell, options: RunOptions, progress: Progress) -> tuple[State, str]:
    """Tell how far a cell is under these options, and why, where it failed or cannot run.

    A generated task that is not there yet is made, as its manifest is part of what a record is known by.
    """
    try:
        job = resolve(cell, progress)
    except UserError as error:
        return "impossible", str(error)
    if not options.force and finished_record(job, options) is not None:
        return "finished", ""
    folder = cell_folder(options.out, cell, job.identity)
    if not folder.is_dir():
        return "to run", ""
    with suppress(OSError):  # a folder that may only be read, in which nothing runs from here
        try:
            FileLock(folder / LOCK, timeout=0).acquire().lock.release()
        except Timeout:
            return "running", ""
    with suppress(UserError):  # none, or damaged
        record = read_record(folder)
        if record.status == "failed":
            return "failed", record.error or ""
    return "to run", ""


def shared(cell: Cell, progress: Progress) -> tuple[str, ...]:
    """Name what is made on the way to a cell that others need too; nothing of one that cannot be run."""
    try:
        return resolve(cell, progress).shares
    except Exception:  # whatever is wrong with it is told when it is its turn
        return ()


def _in_this_process(
    cells: Sequence[Cell], options: RunOptions, jobs: int, progress: Progress
) -> Iterator[tuple[Cell, Outcome]]:
    for cell in cells:
        yield cell, _attempt(cell, options, progress)


def _in_processes(
    cells: Sequence[Cell], options: RunOptions, jobs: int, progress: Progress
) -> Iterator[tuple[Cell, Outcome]]:
    options = options.model_copy(update={"compute": options.compute.shared(jobs)})
    schedule, tries = Schedule([shared(cell, progress) for cell in cells]), Counter[int]()
    # One process a slot: a process that dies takes its whole pool with it, and no other cell must be in it.
    idle = [_new_process() for _ in range(jobs)]
    running: dict[Future[Outcome], tuple[int, ProcessPoolExecutor]] = {}
    try:
        while schedule or running:
            while schedule and idle:
                number, process = schedule.begin(), idle.pop()
                running[process.submit(_attempt_quietly, cells[number], options)] = number, process
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, process = running.pop(future)
                outcome: Outcome | None
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    process.shutdown()
                    process = _new_process()
                    tries[number] += 1
                    outcome = None
                    if tries[number] == TRIES:
                        reason = f"its process died {TRIES} times (killed, or out of memory)"
                        outcome = _record_failure(cells[number], options, reason)
                idle.append(process)
                if outcome is None:
                    schedule.again(number)
                else:
                    finished = isinstance(outcome, RunRecord) and outcome.status == "finished"
                    schedule.end(number, finished)
                    yield cells[number], outcome
    finally:
        for process in [*idle, *(process for _, process in running.values())]:
            process.shutdown(cancel_futures=True)


def _new_process() -> ProcessPoolExecutor:
    # Spawned, because a forked torch inherits locks of threads that it does not have.
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _record_failure(cell: Cell, options: RunOptions, reason: str) -> Outcome:
    try:
        return record_failure(cell, options, reason)
    except UserError:
        return reason


def _attempt(cell: Cell, options: RunOptions, progress: Progress) -> Outcome:
    try:
        return run_cell(cell, options, progress)
    except UserError as error:
        return str(error)
    except Exception as error:  # a plug-in may fail in any way, also before its cell begins
        return f"{type(error).__name__}: {error}"


def _attempt_quietly(cell: Cell, options: RunOptions) -> Outcome:
    return _attempt(cell, options, Progress(quiet=True))
