"""Records as one table, every score recomputed from predictions."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lape_bench import metrics
from lape_bench.config import flatten
from lape_bench.errors import UserError
from lape_bench.records import RunRecord, read_predictions, read_record, record_folders

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
COLUMNS = [
    *CELL,
    "name",
    "settings",
    "metric",
    "folds_of_task",
    "parameters",
    "encoder_parameters",
    "seconds",
]


PARALLEL_FROM = 2_000  # records; below, starting processes takes longer than reading
CHUNK = 200


class Outcome(NamedTuple):
    """What a cell's system took each test clip for.

    Attributes:
        folder: of the record.
        test: hash of the clips' ids and classes; only cells that share it can be paired clip by clip.
        labels: true classes, shape (clips,).
        predicted: classes taken, same shape.
    """

    folder: Path
    test: str
    labels: NDArray[np.int16]
    predicted: NDArray[np.int16]


@dataclass(frozen=True)
class Results:
    """What reports are made of.

    Attributes:
        cells: one row a finished cell, every score recomputed from its predictions.
        outcomes: the predictions themselves, by the index of `cells`; of a cell known from a table alone, none.
        problems: a line for each record that is failed, damaged, unreadable, or there twice.
    """

    cells: pd.DataFrame
    outcomes: dict[int, Outcome]
    problems: list[str]


def load_results(sources: Sequence[Path]) -> Results:
    """Read folders of records, and tables of cells that a report has written.

    Of a cell that stands in two sources, the later one counts; within a folder, what was finished last.

    Args:
        sources: folders, or CSV files, whose scores stand as they were written.

    Raises:
        UserError: there is no such folder, or a file is no table of cells.
    """
    parts = [
        _read_table(source) if source.is_file() else _read_folder(source) for source in sources
    ]
    return _joined(parts)


def results_of(found: Sequence[tuple[Path, RunRecord]]) -> Results:
    """Do the same for records already read, each with its folder."""
    return _joined([_collected([_read(folder, record) for folder, record in found])])


def _read_table(path: Path) -> Results:
    try:
        frame = pd.read_csv(path)
    except (ValueError, UnicodeDecodeError) as error:  # pandas' own errors are of the first kind
        raise UserError(f"{path} is no table of cells: {error}", allowed=WRITTEN_BY) from error
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise UserError(f"{path} has no column '{missing[0]}'", allowed=WRITTEN_BY)
    return Results(frame, {}, [])


def _read_folder(source: Path) -> Results:
    if not source.is_dir():
        raise UserError(
            f"there is no folder {source} to report on",
            next_step="run something first, such as 'bench run', or give --out",
        )
    folders = record_folders(source)
    if len(folders) < PARALLEL_FROM:
        return _collected(map(_read, folders))
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        return _collected(processes.map(_read, folders, chunksize=CHUNK))


class _Read(NamedTuple):
    """A record read: its row and outcome, or what is wrong."""

    finished_at: str
    row: dict[str, Any]
    outcome: Outcome | None
    problem: str = ""


def _read(folder: Path, record: RunRecord | None = None) -> _Read:
    try:
        record = record or read_record(folder)
        if record.status == "failed":
            return _Read("", {}, None, f"{record.cell.title} failed: {record.error}")
        predictions = read_predictions(folder, record)
    except UserError as error:
        return _Read("", {}, None, str(error))
    labels, predicted = predictions.labels, predictions.log_probabilities.argmax(axis=1)
    scores = metrics.score_classes(predicted, labels, len(predictions.classes))
    outcome = Outcome(
        folder, predictions.digest(), labels.astype(np.int16), predicted.astype(np.int16)
    )
    return _Read(record.finished_at, _row(record) | scores, outcome)


def _collected(read: Iterable[_Read]) -> Results:
    problems, whole = [], []
    labels: dict[str, NDArray[np.int16]] = {}  # one copy for all cells of a test set
    for each in read:
        if each.outcome is None:
            problems.append(each.problem)
        else:
            shared = labels.setdefault(each.outcome.test, each.outcome.labels)
            whole.append(each._replace(outcome=each.outcome._replace(labels=shared)))
    whole.sort(key=lambda each: each.finished_at)
    cells = pd.DataFrame([each.row for each in whole])
    return Results(
        cells, {n: each.outcome for n, each in enumerate(whole) if each.outcome}, problems
    )


def _joined(parts: Sequence[Results]) -> Results:
    cells = pd.concat([part.cells for part in parts], ignore_index=True)
    outcomes: dict[int, Outcome] = {}
    start = 0
    for part in parts:
        outcomes |= {start + number: outcome for number, outcome in part.outcomes.items()}
        start += len(part.cells)
    problems = [problem for part in parts for problem in part.problems]
    if cells.empty:
        return Results(cells, outcomes, problems)
    earlier = cells.duplicated(CELL, keep="last")
    problems += [
        f"{outcomes[number].folder} is a cell that stands in a later record too"
        for number in cells.index[earlier]
        if number in outcomes
    ]
    kept = cells.index[~earlier]
    return Results(
        cells.loc[kept].reset_index(drop=True),
        {new: outcomes[old] for new, old in enumerate(kept) if old in outcomes},
        problems,
    )


def _row(record: RunRecord) -> dict[str, Any]:
    cell, task, parameters = record.cell, record.task, record.parameters
    assert task is not None
    assert parameters is not None
    settings = dict(sorted(flatten(cell.settings).items()))
    changed = settings_text(settings)
    diagnosis = {name: v for name, v in record.diagnosis.items() if isinstance(v, float)}
    return diagnosis | {
        "system": f"{cell.system_name} ({changed})" if changed else cell.system_name,
        "name": cell.system_name,
        "settings": json.dumps(settings),
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


def settings_text(settings: Mapping[str, Any]) -> str:
    """Write flattened settings as one line, such as `clusters=8, teacher.corpus=a,b`."""
    return ", ".join(f"{key}={_shown(value)}" for key, value in settings.items())


def _shown(value: Any) -> str:
    """Write a setting as one would on the command line."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
