"""One planned cell of a sweep: its outcome as plain data, also after an error, and its state on disk."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from filelock import FileLock, Timeout

from lape_bench.core.errors import FAILURES, UserError, summarize_error
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import ImpossibleCell, PlannedCell
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import finished_record, record_failure, run_planned_cell
from lape_bench.records.record import LOCK, RunRecord, cell_folder, read_record
from lape_bench.runtime.artifacts import ArtifactStore

CellOutcome = RunRecord | str  # a record, or why there is none
CellState = Literal["finished", "running", "failed", "to run", "impossible"]


def try_run(
    planned: PlannedCell,
    options: RunOptions,
    progress: Progress,
    artifact_store: ArtifactStore | None = None,
) -> CellOutcome:
    """Run a cell and return its record, or the reason why there is none."""
    try:
        return run_planned_cell(planned, options, progress, artifact_store)
    except FAILURES as error:  # a plug-in may raise anything, also before its cell starts
        return summarize_error(error)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the warnings of a process that runs a cell, which the process of the sweep shows when the cell has ended."""
    logger, handler = logging.getLogger("lape_bench"), _Collector(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield handler.messages
    finally:
        logger.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def lost_outcome(planned: PlannedCell, options: RunOptions, reason: str) -> CellOutcome:
    """Record that a cell failed because its process or machine was lost."""
    try:
        return record_failure(planned, options, reason)
    except (UserError, OSError):  # the folder of the records cannot be written
        return reason


def is_finished(outcome: CellOutcome) -> bool:
    """Return True if a cell ended with a result."""
    return isinstance(outcome, RunRecord) and outcome.status == "finished"


def state_of(cell: PlannedCell | ImpossibleCell, options: RunOptions) -> tuple[CellState, str]:
    """Return the state of a cell under these options; if it failed or is impossible, also the reason."""
    if isinstance(cell, ImpossibleCell):
        return "impossible", cell.reason
    if finished_record(cell, options) is not None:
        return "finished", ""
    folder = cell_folder(options.out, cell.cell, cell.identity)
    if not folder.is_dir():
        return "to run", ""
    with suppress(OSError):  # a read-only folder, in which this machine runs nothing
        try:
            FileLock(folder / LOCK, timeout=0).acquire().lock.release()
        except Timeout:
            return "running", ""
    with suppress(UserError):  # no record, or a damaged one
        record = read_record(folder)
        if record.status == "failed":
            return "failed", record.error or ""
    return "to run", ""
