"""Find, run and resume cells, and record those that fail.

`run_planned_cell` is a function of plain data (a `PlannedCell` and `RunOptions`), so another process or machine can call it.
"""

import logging
import os
import shutil
import traceback
from functools import partial
from pathlib import Path

from lape_bench.core.errors import (
    FAILURES,
    DamagedFile,
    UserError,
    explain_write_errors,
    summarize_error,
)
from lape_bench.core.folder_checksums import find_damage
from lape_bench.core.locks import locked
from lape_bench.core.paths import write_text
from lape_bench.core.progress import Progress
from lape_bench.core.work_folder import may_come_of_checkpoints, was_resumed
from lape_bench.evaluation.cell_run import now, run_once, unfinished_record
from lape_bench.evaluation.plan import PlannedCell, ResolvedCell, resolve
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.records.predictions import read_predictions
from lape_bench.records.record import (
    ERROR,
    LOCK,
    MODEL,
    RECORD,
    WORK,
    Cell,
    RunRecord,
    cell_folder,
    read_record,
    write_record,
)
from lape_bench.runtime.artifacts import ArtifactStore

logger = logging.getLogger(__name__)


def finished_record(planned: PlannedCell, options: RunOptions) -> RunRecord | None:
    """Return the record of a cell if these options require no further run."""
    folder = cell_folder(options.out, planned.cell, planned.identity)
    record = _intact_record(folder, planned)
    if record is None or options.force:
        return None
    lacks_audit = options.audit and record.audit is None
    lacks_model = options.keep_model and find_damage(folder / MODEL, remember=True) != ""
    return None if lacks_audit or lacks_model else record


def with_label(planned: PlannedCell, options: RunOptions, record: RunRecord) -> RunRecord:
    """Return a finished record under the label that its cell has now.

    The file is written again if the label is new and the folder may be written.
    """
    label = planned.cell.label
    if not label or label == record.cell.label:
        return record
    record = record.model_copy(update={"cell": record.cell.model_copy(update={"label": label})})
    folder = cell_folder(options.out, planned.cell, planned.identity)
    if os.access(folder, os.W_OK):
        with explain_write_errors(folder):
            write_record(folder, record)
    return record


def _intact_record(folder: Path, planned: PlannedCell) -> RunRecord | None:
    """Return the record of a finished run of the same cell, if the record and its predictions are intact."""
    if not (folder / RECORD).is_file():
        return None
    try:
        record = read_record(folder)
        if record.status != "finished" or record.identity != planned.identity:
            return None
        read_predictions(folder, record)
    except UserError:
        return None  # damaged: the cell runs again
    return record


def run_cell(
    cell: Cell, options: RunOptions, progress: Progress, artifact_store: ArtifactStore | None = None
) -> RunRecord:
    """Resolve and run a cell, or return its record if it is finished. A failure is recorded too.

    Args:
        cell: the cell.
        options: how to run it.
        progress: shows what happens.
        artifact_store: exchanges artifacts with machines that have another cache.

    Raises:
        UserError: the cell cannot run (see `plan.resolve`), this machine lacks the device, or results cannot be
            written.
    """
    return _find_or_run(resolve(cell, progress), options, progress, artifact_store)


def run_planned_cell(
    planned: PlannedCell,
    options: RunOptions,
    progress: Progress,
    artifact_store: ArtifactStore | None = None,
) -> RunRecord:
    """Run a cell that was planned earlier, perhaps by another process or machine; see `run_cell`.

    Raises:
        UserError: as `run_cell`; or data, code or settings have changed since the cell was planned, or are
            different on this machine.
    """
    resolved = resolve(planned.cell, progress)
    if resolved.planned.identity != planned.identity:
        raise UserError(
            f"{planned.cell.title} is another cell here than when it was planned: {_difference(planned, resolved.planned)}",
            next_step="run the same command again; on a cluster, prepare the task from the same source on every machine",
        )
    return _find_or_run(resolved, options, progress, artifact_store)


def _difference(before: PlannedCell, now: PlannedCell) -> str:
    """Return a message that names a part of the identity that has changed."""
    if before.manifest_hash != now.manifest_hash:
        return f"the prepared data of '{now.cell.task}' differ"
    if before.settings != now.settings:
        return f"default settings of '{now.cell.system}' differ"
    if before.system_version != now.system_version:
        return f"'{now.cell.system}' has version {now.system_version}, not {before.system_version}"
    if before.provenance != now.provenance:
        return f"the files of '{now.cell.system}' differ"
    for entry, state in now.corpora.items():
        if before.corpora.get(entry) != state:
            return f"the corpus '{entry}' holds other audio"
    return "the task's card or a version differs"


def _find_or_run(
    resolved: ResolvedCell,
    options: RunOptions,
    progress: Progress,
    artifact_store: ArtifactStore | None,
) -> RunRecord:
    """Return the record of a cell, after running it if necessary."""
    options.compute.resolve()
    planned = resolved.planned
    folder = cell_folder(options.out, planned.cell, planned.identity)
    finished = finished_record(planned, options)
    if finished is not None and not os.access(folder, os.W_OK):
        # If no lock can be written, no cell can run.
        return with_label(planned, options, finished)
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # A second process on the same cell waits here and then finds it finished.
        with locked(folder / LOCK, partial(_log_wait, planned.cell)):
            if options.force:
                (folder / RECORD).unlink(missing_ok=True)
                for stale in (WORK, MODEL):
                    shutil.rmtree(folder / stale, ignore_errors=True)
            finished = finished_record(planned, options)
            if finished is not None:
                logger.debug(f"finished before: {planned.cell.title}")
                shutil.rmtree(folder / WORK, ignore_errors=True)  # left by a killed audit
                return with_label(planned, options, finished)
            return _run_and_record(resolved, options, folder, progress, artifact_store)


def _log_wait(cell: Cell) -> None:
    logger.info(f"waiting for another process that runs {cell.title}")


def record_failure(planned: PlannedCell, options: RunOptions, reason: str) -> RunRecord:
    """Record that a cell failed in a process that could not do so itself."""
    return _failed(planned, cell_folder(options.out, planned.cell, planned.identity), reason)


def _failed(planned: PlannedCell, folder: Path, reason: str) -> RunRecord:
    """Write a failed record, unless that would replace a finished one."""
    record = unfinished_record(planned).model_copy(update={"error": reason, "finished_at": now()})
    if _intact_record(folder, planned) is None:
        write_record(folder, record)
    return record


def _run_and_record(
    resolved: ResolvedCell,
    options: RunOptions,
    folder: Path,
    progress: Progress,
    artifact_store: ArtifactStore | None,
) -> RunRecord:
    run = partial(run_once, resolved, options, folder, progress, artifact_store)
    try:
        try:
            record = run()
        except FAILURES as error:
            resumed = was_resumed(folder / WORK) or isinstance(error, DamagedFile)
            if not (resumed and may_come_of_checkpoints(error)):
                raise
            title = resolved.planned.cell.title
            logger.warning(
                f"{title}: starting again without the checkpoints of an earlier run: {summarize_error(error)}"
            )
            shutil.rmtree(folder / WORK, ignore_errors=True)
            record = run()
    except FAILURES as error:  # any error of a system is recorded, and other cells continue
        write_text(folder / ERROR, traceback.format_exc())
        return _failed(resolved.planned, folder, summarize_error(error))
    (folder / ERROR).unlink(missing_ok=True)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return record
