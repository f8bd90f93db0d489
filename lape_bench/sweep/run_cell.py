"""One cell of a sweep, whatever becomes of it: planned, tried, and told as plain data."""

from contextlib import suppress
from typing import Literal

from filelock import FileLock, Timeout

from lape_bench.core.errors import FAILURES, UserError, in_a_line
from lape_bench.core.progress import Progress
from lape_bench.evaluation.runner import (
    RunOptions,
    finished_record,
    record_failure,
    resolve,
    run_cell,
)
from lape_bench.records.record import LOCK, Cell, RunRecord, cell_folder, read_record
from lape_bench.runtime.artifacts import ArtifactStore

CellOutcome = RunRecord | str  # a record, or why there is none
CellState = Literal["finished", "running", "failed", "to run", "impossible"]


def attempt(
    cell: Cell, options: RunOptions, progress: Progress, artifact_store: ArtifactStore | None = None
) -> CellOutcome:
    """Run a cell and return its record, or the reason why there is none."""
    try:
        return run_cell(cell, options, progress, artifact_store)
    except FAILURES as error:  # a plug-in may fail in any way, also before its cell begins
        return in_a_line(error)


def failure(cell: Cell, options: RunOptions, reason: str) -> CellOutcome:
    """Record that a cell failed in a process that could not do so itself."""
    try:
        return record_failure(cell, options, reason)
    except UserError:
        return reason


def is_finished(outcome: CellOutcome) -> bool:
    """Tell whether an attempt ended with a result."""
    return isinstance(outcome, RunRecord) and outcome.status == "finished"


def shared(cell: Cell, progress: Progress) -> tuple[str, ...]:
    """Name what is made on the way to a cell that others need too; nothing of one that cannot be run."""
    try:
        return resolve(cell, progress).shared_artifacts
    except FAILURES:  # whatever is wrong with it is told when it is its turn
        return ()


def found(cell: Cell, options: RunOptions, progress: Progress) -> CellOutcome | None:
    """Return what is known of a cell without running it: its record if it is finished, or why it cannot be run."""
    try:
        job = resolve(cell, progress)
    except FAILURES as error:
        return in_a_line(error)
    return None if options.force else finished_record(job, options)


def state_of(cell: Cell, options: RunOptions, progress: Progress) -> tuple[CellState, str]:
    """Tell how far a cell is under these options, and why, where it failed or cannot run.

    A generated task that is not there yet is made, as its manifest is part of what a record is known by.
    """
    known = found(cell, options, progress)
    if known is not None:
        return ("impossible", known) if isinstance(known, str) else ("finished", "")
    folder = cell_folder(options.out, cell, resolve(cell, progress).identity)
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
