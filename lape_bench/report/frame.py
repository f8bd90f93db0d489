"""Records as one table, every score recomputed from predictions."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lape_bench import metrics
from lape_bench.config import flatten
from lape_bench.errors import UserError
from lape_bench.records import RunRecord, find_records, read_predictions

WRITTEN_BY = "a folder of records, or what 'bench report --format cells' writes"
# What tells one cell from another.
CELL = [
    "system",
    "system_version",
    "task",
    "data",
    "protocol",
    "label_fraction",
    "seed",
    "fold",
    "comparable",
]
COLUMNS = [*CELL, "metric", "folds_of_task", "parameters", "encoder_parameters", "seconds"]


def load_frames(sources: Sequence[Path]) -> tuple[pd.DataFrame, list[str]]:
    """Read several sources, as `load_frame` does one; of a cell that stands in two, the later one counts."""
    read = [load_frame(source) for source in sources]
    frame = pd.concat([cells for cells, _ in read], ignore_index=True)
    if not frame.empty:
        frame = frame.drop_duplicates(CELL, keep="last", ignore_index=True)
    return frame, [problem for _, problems in read for problem in problems]


def load_frame(source: Path) -> tuple[pd.DataFrame, list[str]]:
    """Read all records below a folder, or a table of cells that a report has written.

    Args:
        source: a folder of records, or a CSV file; its scores stand as they were written.

    Returns:
        One row a finished cell, and a line for each record that is failed, damaged or unreadable.

    Raises:
        UserError: there is no such folder, or the file is no table of cells.
    """
    if source.is_file():
        return _read_cells(source), []
    if not source.is_dir():
        raise UserError(
            f"there is no folder {source} to report on",
            next_step="run something first, such as 'bench run', or give --out",
        )
    found, problems = find_records(source)
    frame, more = frame_of(found)
    return frame, problems + more


def _read_cells(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' own errors are of the first kind
        raise UserError(f"{path} is no table of cells: {error}", allowed=WRITTEN_BY) from error
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise UserError(f"{path} has no column '{missing[0]}'", allowed=WRITTEN_BY)
    return frame


def frame_of(found: Sequence[tuple[Path, RunRecord]]) -> tuple[pd.DataFrame, list[str]]:
    """Do the same for records already read, each with its folder."""
    rows: list[dict[str, Any]] = []
    problems = []
    for folder, record in found:
        if record.status == "failed":
            problems.append(f"{record.cell.title} failed: {record.error}")
            continue
        try:
            log_probabilities, labels = read_predictions(folder, record)
        except UserError as error:
            problems.append(str(error))
            continue
        rows.append(_row(record) | metrics.score(log_probabilities, labels))
    return pd.DataFrame(rows), problems


def _row(record: RunRecord) -> dict[str, Any]:
    cell, task, parameters = record.cell, record.task, record.parameters
    assert task is not None
    assert parameters is not None
    changed = ", ".join(f"{key}={value}" for key, value in sorted(flatten(cell.settings).items()))
    diagnosis = {name: v for name, v in record.diagnosis.items() if isinstance(v, float)}
    return diagnosis | {
        "system": f"{cell.system_name} ({changed})" if changed else cell.system_name,
        "task": cell.task,
        "data": task.data,
        "metric": task.metric,
        "protocol": cell.protocol,
        "label_fraction": cell.label_fraction,
        "seed": cell.seed,
        "fold": cell.fold,
        "folds_of_task": task.folds,
        # What must agree for two figures to stand in one table.
        "comparable": f"{task.manifest_hash}/{task.card_version}/{record.protocol_version}",
        "system_version": _version(record),
        "parameters": parameters.inference,
        "encoder_parameters": parameters.encoder,
        "seconds": sum(stage.seconds for stage in record.stages if stage.name == "train")
        + sum(made.seconds - made.waited for made in record.artifacts if made.found),
        "trained_parameters": parameters.training,
    }


def _version(record: RunRecord) -> int | str:
    """Return the system's version, with a hash of what else it rests on: other weights are another system."""
    if not record.rests_on:
        return record.system_version
    told = hashlib.sha256(json.dumps(record.rests_on, sort_keys=True).encode()).hexdigest()
    return f"{record.system_version}-{told[:6]}"
