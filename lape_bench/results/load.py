"""Records as one table, every score recomputed from predictions."""

import gc
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lape_bench import metrics
from lape_bench.core.config import flatten
from lape_bench.core.errors import UserError
from lape_bench.records.predictions import PredictedClasses, read_predicted_classes
from lape_bench.records.record import (
    ParameterCounts,
    RunRecord,
    TaskFacts,
    read_record,
    record_folders,
)

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


TEXTS = [
    "system",
    "system_version",
    "task",
    "data",
    "protocol",
    "comparable",
    "name",
    "settings",
    "metric",
]
# Of a table of cells: what a number may be (else at least 0, and a score at most 1), and how a text must read.
RANGES = {"label_fraction": (1e-9, 1.0), "folds_of_task": (1, np.inf)}
PATTERNS = {
    "comparable": r"[^/]+/\d+/\d+",
    "data": "real|synthetic",
    "system_version": r"\d+(-[0-9a-f]+)?",
}
VALIDATION = "validation"  # a column that tables of earlier releases lack
FINISHED = "finished_at"  # a column while records are put in order
PARALLEL_FROM = 2_000  # records; below, starting processes takes longer than reading
CHUNK = 200  # records that a process is handed at a time
TOGETHER = 50  # records that are read before the answers of any of them are


class Preparation(NamedTuple):
    """What must agree for two figures of a task to stand in one table; a cell's `comparable` in its parts."""

    manifest_hash: str
    card_version: int
    protocol_version: int

    @classmethod
    def of(cls, comparable: str) -> "Preparation":
        """Read what `__str__` wrote."""
        manifest_hash, card, protocol = comparable.rsplit("/", 2)
        return cls(manifest_hash, int(card), int(protocol))

    def __str__(self) -> str:
        return "/".join(map(str, self))


class CellPredictions(NamedTuple):
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
    outcomes: dict[int, CellPredictions]
    problems: list[str]


def load_results(sources: Sequence[Path]) -> Results:
    """Read folders of records, and tables of cells that a report has written.

    Of a cell that stands in two sources, the later one counts, and a record before a line of a table; within a folder,
    what was finished last.

    Args:
        sources: folders, or CSV files, whose scores stand as they were written.

    Raises:
        UserError: there is no such folder, or a file is no table of cells.
    """
    tables = [_read_table(source) for source in sources if source.is_file()]
    folders = [_read_folder(source) for source in sources if not source.is_file()]
    return _joined([*tables, *folders])


def on_validation(cells: pd.DataFrame) -> pd.DataFrame:
    """Let the score on validation stand for the one on test, to choose settings by; cells without one are left out.

    Raises:
        UserError: no cell has one; `knn` never has, and records of earlier releases have not.
    """
    known = cells[cells[VALIDATION].notna()] if VALIDATION in cells else cells[:0]
    if known.empty:
        raise UserError(
            "no cell has a score on validation",
            allowed="cells of finetune and linear, of systems that validate",
            next_step="run cells of earlier releases again, with --force",
        )
    return known.assign(**dict.fromkeys(known["metric"].unique(), known[VALIDATION]))


def results_of(found: Sequence[tuple[Path, RunRecord]]) -> Results:
    """Do the same for records already read, each with its folder."""
    return _joined([_in_order(_collected(_read(found)))])


def _read_table(path: Path) -> Results:
    try:
        # Texts as they stand: a system may be called None, and a version is no number.
        others = [name for name in pd.read_csv(path, nrows=0).columns if name not in TEXTS]
        cells = pd.read_csv(
            path,
            dtype=dict.fromkeys(TEXTS, str),
            keep_default_na=False,
            na_values={name: [""] for name in others},
        )
    except (ValueError, UnicodeDecodeError) as error:  # pandas' own errors are of the first kind
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is no table of cells: {reason}", allowed=WRITTEN_BY) from error
    missing = [name for name in COLUMNS if name not in cells.columns]
    missing += [name for name in cells.get("metric", ()) if name not in cells.columns]
    if missing:
        raise UserError(f"{path} has no column '{missing[0]}'", allowed=WRITTEN_BY)
    numbers = [name for name in COLUMNS if name not in TEXTS]
    scores = cells["metric"].unique()
    for name in [*numbers, *scores]:
        values = pd.to_numeric(cells[name], errors="coerce")
        low, high = RANGES.get(name, (0, 1 if name in scores else np.inf))
        _refuse(path, cells, name, ~(values.between(low, high) & np.isfinite(values)))
    if VALIDATION in cells:
        values = pd.to_numeric(cells[VALIDATION], errors="coerce")
        _refuse(path, cells, VALIDATION, cells[VALIDATION].notna() & ~values.between(0, 1))
    for name, pattern in PATTERNS.items():
        _refuse(path, cells, name, ~cells[name].str.fullmatch(pattern).astype(bool))
    _refuse(path, cells, "settings", ~cells["settings"].map(_is_json).astype(bool))
    earlier = cells.duplicated(CELL, keep="last")
    told = [
        f"{path}, line {number + 2}: a cell that stands in a later line too"
        for number in np.flatnonzero(earlier)
    ]
    return Results(cells[~earlier], {}, told)


def _refuse(path: Path, cells: pd.DataFrame, name: str, bad: pd.Series) -> None:
    if bad.any():
        line = int(bad.to_numpy().argmax())
        raise UserError(
            f"{path}, line {line + 2}: '{name}' is '{cells[name].iloc[line]}'", allowed=WRITTEN_BY
        )


def _is_json(text: object) -> bool:
    try:
        return isinstance(text, str) and isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _read_folder(source: Path) -> Results:
    if not source.is_dir():
        raise UserError(
            f"there is no folder {source} to report on",
            allowed=WRITTEN_BY,
            next_step="run something first, such as 'bench run', or give --out",
        )
    folders = record_folders(source)
    if len(folders) < PARALLEL_FROM:
        return _in_order(_read_records(folders))
    chunks = [folders[start : start + CHUNK] for start in range(0, len(folders), CHUNK)]
    # A fork has pandas imported already, which takes a spawned process a second. Beside threads it is not safe; of the
    # libraries that start some, a report has not imported torch.
    forks = sys.platform == "linux" and "torch" not in sys.modules
    context = get_context("fork" if forks else "spawn")
    # What is read holds no cycles, and the search for some would take a tenth of the time.
    with ProcessPoolExecutor(mp_context=context, initializer=gc.disable) as processes:
        return _in_order(_side_by_side([*processes.map(_read_records, chunks)]))


def _read_records(folders: Sequence[Path]) -> Results:
    return _collected(_read((folder, _record(folder)) for folder in folders))


def _read(
    found: Iterable[tuple[Path, RunRecord | str]],
) -> Iterator[tuple[dict[str, Any], CellPredictions] | str]:
    """Turn records into rows and outcomes; what is wrong with one stays what is said of it.

    A few are taken together, all their records before all their answers: a step that comes again at once
    finds its code in the processor's caches, which saves a fifth of the time.
    """
    found = iter(found)
    while few := [*islice(found, TOGETHER)]:
        answers = [_answers(folder, record) for folder, record in few]
        for (folder, record), given in zip(few, answers, strict=True):
            yield given if isinstance(given, str) else _cell(folder, record, given)


def _record(folder: Path) -> RunRecord | str:
    try:
        return read_record(folder)
    except UserError as error:
        return str(error)


def _answers(folder: Path, record: RunRecord | str) -> PredictedClasses | str:
    if isinstance(record, str):
        return record
    if record.status == "failed":
        return f"{record.cell.title} failed: {record.error}"
    if record.task is None or record.parameters is None:
        return f"{folder} holds a record that is finished and names no task or no parameters"
    if record.task.metric not in metrics.METRICS:
        return f"{folder} is ranked by '{record.task.metric}', a metric that this release does not know"
    try:
        return read_predicted_classes(folder, record)
    except UserError as error:
        return str(error)


def _cell(
    folder: Path, record: Any, given: PredictedClasses
) -> tuple[dict[str, Any], CellPredictions]:
    """Score a record that has its task and its parameters."""
    labels, predicted = given.labels, given.predicted
    scores = metrics.score_classes(predicted, labels, len(given.classes))
    outcome = CellPredictions(
        folder, given.digest(), labels.astype(np.int16), predicted.astype(np.int16)
    )
    return _row(record, record.task, record.parameters) | scores, outcome


def _collected(read: Iterable[tuple[dict[str, Any], CellPredictions] | str]) -> Results:
    """Put rows into a table that has one column more, `FINISHED`."""
    problems, rows, outcomes = [], [], []
    labels: dict[str, NDArray[np.int16]] = {}  # one copy for all cells of a test set
    for each in read:
        if isinstance(each, str):
            problems.append(each)
        else:
            row, outcome = each
            rows.append(row)
            outcomes.append(
                outcome._replace(labels=labels.setdefault(outcome.test, outcome.labels))
            )
    return Results(pd.DataFrame(rows), dict(enumerate(outcomes)), problems)


def _in_order(part: Results) -> Results:
    """Sort cells by when they were finished."""
    if part.cells.empty:
        return part
    order = part.cells[FINISHED].argsort(kind="stable")
    return _taken(part, order.to_numpy(), columns=part.cells.columns.drop(FINISHED))


def _joined(parts: Sequence[Results]) -> Results:
    """Put parts together; of a cell that stands in them twice the later one stays, and the other is told."""
    whole = _side_by_side(parts)
    if whole.cells.empty:
        return whole
    earlier = whole.cells.duplicated(CELL, keep="last").to_numpy()
    told = [
        f"{whole.outcomes[number].folder} is a cell that stands in a later record too"
        for number in np.flatnonzero(earlier).tolist()
        if number in whole.outcomes
    ]
    kept = _taken(whole, np.flatnonzero(~earlier), columns=whole.cells.columns)
    return Results(kept.cells, kept.outcomes, whole.problems + told)


def _side_by_side(parts: Sequence[Results]) -> Results:
    starts = np.cumsum([0, *(len(part.cells) for part in parts)])
    outcomes = {
        int(start) + number: outcome
        for start, part in zip(starts[:-1], parts, strict=True)
        for number, outcome in part.outcomes.items()
    }
    cells = pd.concat([part.cells for part in parts], ignore_index=True)
    return Results(cells, outcomes, [problem for part in parts for problem in part.problems])


def _taken(part: Results, numbers: NDArray[Any], columns: Iterable[str]) -> Results:
    """Take some cells, in an order, and some columns."""
    outcomes = {
        new: part.outcomes[old] for new, old in enumerate(numbers.tolist()) if old in part.outcomes
    }
    cells = part.cells.loc[numbers, [*columns]].reset_index(drop=True)
    return Results(cells, outcomes, part.problems)


def _row(record: RunRecord, task: TaskFacts, parameters: ParameterCounts) -> dict[str, Any]:
    cell = record.cell
    settings = dict(sorted(flatten(cell.settings).items()))
    changed = settings_text(settings)
    diagnosis = {name: v for name, v in record.diagnosis.items() if isinstance(v, float)}
    return diagnosis | {
        FINISHED: record.finished_at,
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
        "comparable": str(
            Preparation(task.manifest_hash, task.card_version, record.protocol_version)
        ),
        "system_version": _version(record),
        "parameters": parameters.inference,
        "encoder_parameters": parameters.encoder,
        "seconds": sum(stage.seconds for stage in record.stages if stage.name == "train")
        + sum(made.seconds - made.waited for made in record.artifacts if made.found),
        "trained_parameters": parameters.training,
        VALIDATION: np.nan if record.validation is None else record.validation,
    }


def _version(record: RunRecord) -> str:
    """Return the system's version, with a hash of what else it rests on: other weights are another system."""
    if not record.provenance:
        return str(record.system_version)
    told = hashlib.sha256(json.dumps(record.provenance, sort_keys=True).encode()).hexdigest()
    return f"{record.system_version}-{told[:6]}"


def settings_text(settings: Mapping[str, Any]) -> str:
    """Write flattened settings as one line, such as `clusters=8, teacher.corpus=a,b`."""
    return ", ".join(f"{key}={_shown(value)}" for key, value in settings.items())


def _shown(value: Any) -> str:
    """Write a setting as one would on the command line."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
