"""Results from records and from tables of cells; scores of records are recomputed from their predictions."""

import gc
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lape_bench import metrics
from lape_bench.core.config import flatten
from lape_bench.core.errors import UserError, unknown
from lape_bench.records.predictions import (
    PredictedClasses,
    Predictions,
    read_predicted_classes,
    read_predictions,
)
from lape_bench.records.record import (
    ParameterCounts,
    RunRecord,
    TaskFacts,
    read_record,
    record_folders,
)
from lape_bench.results.cells import CELL, SOURCES, cells_table, read_cells
from lape_bench.results.system_titles import system_title, with_titles
from lape_bench.runtime.cpu_cores import available

FINISHED = "finished_at"  # a column only until cells are sorted by it
PARALLEL_FROM = 4_000  # records; fewer are read before other processes have started
CHUNK = 200  # records that a process is given at a time
BATCH = 50  # records that are read before the predictions of any of them


class CellPredictions(NamedTuple):
    """The classes that a cell's system predicted.

    Attributes:
        folder: of the record.
        test_hash: hash of the clips' IDs and classes; only cells that share it can be paired clip by clip.
        labels: true classes, shape (clips,).
        predicted: predicted classes, same shape.
        log_odds: of the second of two classes, same shape; None if there are more classes.
    """

    folder: Path
    test_hash: str
    labels: NDArray[np.int16]
    predicted: NDArray[np.int16]
    log_odds: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Results:
    """Everything that reports are made of.

    Attributes:
        cells: one row for each finished cell, with the columns of `results.cells.COLUMNS`.
        predictions: by the index of `cells`; cells that come from a table have none.
        problems: one line for each record that is failed, damaged, unreadable or a duplicate.
    """

    cells: pd.DataFrame
    predictions: dict[int, CellPredictions]
    problems: list[str]


def load_results(sources: Sequence[Path]) -> Results:
    """Read folders of records, and tables of cells that a report has written.

    If two sources hold the same cell, the later source counts, and a record counts before a row of a table. Within a
    folder the cell that was finished last counts.

    Args:
        sources: folders, or CSV files of `bench report --format cells`.

    Raises:
        UserError: a folder does not exist, or a file is not a table of cells.
    """
    tables = [_read_table(source) for source in sources if source.is_file()]
    folders = [_read_folder(source) for source in sources if not source.is_file()]
    return _without_duplicates(_concatenate([*tables, *folders]))


def results_of(records: Sequence[tuple[Path, RunRecord]]) -> Results:
    """Return the results of records that are already read, each with its folder."""
    return _without_duplicates(_sorted_by_finish(_collect(_score_records(records))))


def of_tasks(results: Results, tasks: Sequence[str]) -> Results:
    """Keep the cells of some tasks.

    Args:
        results: of any tasks.
        tasks: names, or name@variant.

    Raises:
        UserError: no finished cell is of one of them.
    """
    present = set(results.cells["task"])
    for task in tasks:
        if task not in present:
            raise unknown("finished cell of the task", task, present)
    return _select(results, np.flatnonzero(results.cells["task"].isin(list(tasks))))


def _read_table(path: Path) -> Results:
    cells = read_cells(path)
    duplicate = cells.duplicated(CELL, keep="last")
    problems = [
        f"{path}, line {row + 2}: a later line holds the same cell"
        for row in np.flatnonzero(duplicate)
    ]
    return Results(cells[~duplicate], {}, problems)


def _read_folder(source: Path) -> Results:
    if not source.is_dir():
        raise UserError(
            f"there is no folder {source} to report on",
            allowed=SOURCES,
            next_step="run something first, such as 'bench run', or give --out",
        )
    folders, problems = record_folders(source)
    results = _read_folders(folders)
    return Results(results.cells, results.predictions, problems + results.problems)


def _read_folders(folders: Sequence[Path]) -> Results:
    if len(folders) < PARALLEL_FROM:
        return _sorted_by_finish(_read_records(folders))
    from joblib import Parallel, delayed  # slow to import, and few reports need it

    chunks = [folders[start : start + CHUNK] for start in range(0, len(folders), CHUNK)]
    # joblib starts new processes instead of forking, which is not safe beside the threads of a caller. They do not
    # import the main module, so a user's script needs no `if __name__ == "__main__"`.
    parts = Parallel(n_jobs=available(), backend="loky")(map(delayed(_read_chunk), chunks))
    return _sorted_by_finish(_concatenate(parts))


def _read_chunk(folders: Sequence[Path]) -> Results:
    """Read records in a process of its own."""
    gc.disable()  # records hold no reference cycles, and the search for some would take a tenth of the time
    try:
        return _read_records(folders)
    finally:
        gc.enable()


def _read_records(folders: Sequence[Path]) -> Results:
    return _collect(_score_records((folder, _read_record(folder)) for folder in folders))


def _read_record(folder: Path) -> RunRecord | str:
    try:
        return read_record(folder)
    except UserError as error:
        return str(error)


def _score_records(
    records: Iterable[tuple[Path, RunRecord | str]],
) -> Iterator[tuple[dict[str, Any], CellPredictions] | str]:
    """Turn records into rows and predictions; a record with a problem becomes the line that names it.

    All records of a batch are read before their predictions: repeating one step keeps its code in the processor's
    caches, which saves a fifth of the time.
    """
    records = iter(records)
    while batch := [*islice(records, BATCH)]:
        predictions = [_read_predictions(folder, record) for folder, record in batch]
        for (folder, record), predicted in zip(batch, predictions, strict=True):
            yield predicted if isinstance(predicted, str) else _score(folder, record, predicted)


def _read_predictions(folder: Path, record: RunRecord | str) -> PredictedClasses | str:
    """Return a record's predictions, or the line that says why it has none to score."""
    if isinstance(record, str):
        return record
    if record.status == "failed":
        return f"{record.cell.title} failed: {record.error}"
    if record.task is None or record.parameters is None:
        return f"{folder} holds a finished record without a task or without parameters"
    if record.task.metric not in metrics.METRICS:
        return (
            f"{folder} is ranked by '{record.task.metric}', which is not a metric of this release"
        )
    try:
        # Scores take most of the time of reading. Only the metric of two classes needs them.
        two_classes = len(record.task.classes) == 2
        return (read_predictions if two_classes else read_predicted_classes)(folder, record)
    except UserError as error:
        return str(error)


def _score(
    folder: Path, record: Any, predictions: PredictedClasses
) -> tuple[dict[str, Any], CellPredictions]:
    """Score a record that has a task and parameters."""
    labels, predicted = predictions.labels, predictions.predicted
    scores = metrics.score_classes(predicted, labels, len(predictions.classes))
    log_odds = None
    if isinstance(predictions, Predictions) and len(predictions.classes) == 2:
        scores[metrics.ROC_AUC] = metrics.roc_auc(predictions.log_probabilities, labels)
        log_odds = predictions.log_probabilities[:, 1] - predictions.log_probabilities[:, 0]
    of_cell = CellPredictions(
        folder, predictions.digest(), labels.astype(np.int16), predicted.astype(np.int16), log_odds
    )
    return _row(record, record.task, record.parameters) | scores, of_cell


def _row(record: RunRecord, task: TaskFacts, parameters: ParameterCounts) -> dict[str, Any]:
    cell = record.cell
    settings = dict(sorted(flatten(cell.settings).items()))
    diagnosis = {name: v for name, v in record.diagnosis.items() if isinstance(v, float)}
    return diagnosis | {
        FINISHED: record.finished_at,
        "system": system_title(cell.system_name, settings),
        "name": cell.system_name,
        "label": cell.label,
        "settings": json.dumps(settings),
        "system_version": record.system_version,
        "provenance_hash": _provenance_hash(record),
        "task": cell.task,
        "data": task.data,
        "metric": task.metric,
        "folds_of_task": task.folds,
        "manifest_hash": task.manifest_hash,
        "card_version": task.card_version,
        "protocol": cell.protocol,
        "protocol_version": record.protocol_version,
        "labels": cell.labels,
        "seed": cell.seed,
        "fold": cell.fold,
        "parameters": parameters.inference,
        "encoder_parameters": parameters.encoder,
        "trained_parameters": parameters.training,
        "upstream": next((use.hash for use in record.artifacts if use.kind == "upstream"), ""),
        "training_labels": record.labels_for_training,
        "selection_labels": record.labels_for_selection,
        "seconds": sum(stage.seconds for stage in record.stages if stage.name == "train")
        + sum(use.seconds - use.waited for use in record.artifacts if use.found),
        "validation": np.nan if record.validation is None else record.validation,
    }


def _provenance_hash(record: RunRecord) -> str:
    """Hash what else a system rests on: the same system with other weights or another corpus is another system."""
    corpora = {f"corpus {entry}": state for entry, state in record.corpora.items()}
    provenance = record.provenance | corpora
    if not provenance:
        return ""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()


def _collect(scored: Iterable[tuple[dict[str, Any], CellPredictions] | str]) -> Results:
    """Put rows into a table, which has the column `FINISHED` too."""
    problems, rows, predictions = [], [], []
    labels: dict[str, NDArray[np.int16]] = {}  # one copy for all cells of a test set
    for item in scored:
        if isinstance(item, str):
            problems.append(item)
        else:
            row, of_cell = item
            rows.append(row)
            shared = labels.setdefault(of_cell.test_hash, of_cell.labels)
            predictions.append(of_cell._replace(labels=shared))
    finished = pd.Series([row.pop(FINISHED) for row in rows], dtype="str")
    cells = cells_table(rows).assign(**{FINISHED: finished})
    return Results(cells, dict(enumerate(predictions)), problems)


def _sorted_by_finish(results: Results) -> Results:
    """Sort cells by when they were finished, and drop that column."""
    order = results.cells[FINISHED].argsort(kind="stable").to_numpy()
    return _select(
        Results(results.cells.drop(columns=FINISHED), results.predictions, results.problems), order
    )


def _without_duplicates(results: Results) -> Results:
    """Keep the last row of each cell, and name the records that it replaces."""
    cells, left_out = with_titles(results.cells)
    results = Results(cells, results.predictions, results.problems + left_out)
    duplicate = results.cells.duplicated(CELL, keep="last").to_numpy()
    problems = [
        f"{results.predictions[row].folder} holds a cell that a later record holds too"
        for row in np.flatnonzero(duplicate).tolist()
        if row in results.predictions
    ]
    kept = _select(results, np.flatnonzero(~duplicate))
    return Results(kept.cells, kept.predictions, results.problems + problems)


def _concatenate(parts: Sequence[Results]) -> Results:
    starts = np.cumsum([0, *(len(part.cells) for part in parts)]).tolist()
    predictions = {
        start + row: of_cell
        for start, part in zip(starts[:-1], parts, strict=True)
        for row, of_cell in part.predictions.items()
    }
    cells = pd.concat([part.cells for part in parts], ignore_index=True)
    return Results(cells, predictions, [problem for part in parts for problem in part.problems])


def _select(results: Results, rows: NDArray[np.integer[Any]]) -> Results:
    """Take some rows, in an order."""
    predictions = {
        new: results.predictions[old]
        for new, old in enumerate(rows.tolist())
        if old in results.predictions
    }
    cells = results.cells.iloc[rows].reset_index(drop=True)
    return Results(cells, predictions, results.problems)
