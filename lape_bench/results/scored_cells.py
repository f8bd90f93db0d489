"""Cells scored from their predictions, not from the scores that their records claim.

Neither pandas nor scipy is imported here: the processes that read thousands of records would wait for it.
"""

import gc
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lape_bench import metrics
from lape_bench.core.config import flatten
from lape_bench.core.errors import UserError
from lape_bench.records.pack import PackedPredictions, read_pack
from lape_bench.records.predictions import (
    LabeledClips,
    PredictedClasses,
    Predictions,
    PredictionsFile,
    open_predictions,
)
from lape_bench.records.record import ParameterCounts, RunRecord, TaskFacts, read_record
from lape_bench.records.system_names import short_name

# Each step is made for a batch of records before the next step: a step that is repeated finds its code in the
# processor's caches, which halves the time.
BATCH = 50  # records
BATCH_BYTES = 2**26  # of their predictions


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


class ScoredCell(NamedTuple):
    """A finished cell with its scores.

    Attributes:
        row: of the table of cells, see `results.cells.COLUMNS`; other keys are diagnoses.
        predictions: that it was scored from.
        finished_at: time, as in the record.
    """

    row: dict[str, Any]
    predictions: CellPredictions
    finished_at: str


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Do not search for reference cycles: records hold none, and the search would take a tenth of the time of reading."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def score_folders(folders: Sequence[Path]) -> list[ScoredCell | str]:
    """Read and score the records in some folders; a record with a problem becomes the line that names it."""
    with without_garbage_collection():
        records = [(folder, _read_record(folder)) for folder in folders]
        return with_shared_labels(score_records(records))


def with_shared_labels(cells: Iterable[ScoredCell | str]) -> list[ScoredCell | str]:
    """Keep one copy of the labels for all cells of a test set."""
    labels: dict[str, NDArray[np.int16]] = {}
    shared: list[ScoredCell | str] = []
    for cell in cells:
        if isinstance(cell, ScoredCell):
            own = cell.predictions
            common = labels.setdefault(own.test_hash, own.labels)
            cell = cell._replace(predictions=own._replace(labels=common))
        shared.append(cell)
    return shared


def score_pack(path: Path) -> list[ScoredCell | str]:
    """Read and score the cells of a pack; if it cannot be read, return the line that says why."""
    try:
        return [
            _problem(cell.folder, cell.record.task, cell.predictions.classes) or _score(*cell)
            for cell in read_pack(path)
            if cell.record.task is not None
        ]
    except UserError as error:
        return [str(error)]


def _read_record(folder: Path) -> RunRecord | str:
    try:
        return read_record(folder)
    except UserError as error:
        return str(error)


def score_records(records: Iterable[tuple[Path, RunRecord | str]]) -> Iterator[ScoredCell | str]:
    """Score records that are read already, each with its folder; a record with a problem becomes the line that names it."""
    for batch in _batches(records):
        known: dict[Any, LabeledClips] = {}  # of this batch alone, which bounds the memory
        predictions = [_read_predictions(file, known) for _, _, file in batch]
        for (folder, record, _), predicted in zip(batch, predictions, strict=True):
            if isinstance(predicted, str):
                yield predicted
            else:
                assert isinstance(record, RunRecord)
                assert record.task is not None
                problem = _problem(folder, record.task, predicted.classes)
                yield problem or _score(folder, record, predicted)


def _batches(
    records: Iterable[tuple[Path, RunRecord | str]],
) -> Iterator[list[tuple[Path, RunRecord | str, PredictionsFile | str]]]:
    """Open the predictions of records, in batches that are bounded by number and size."""
    batch, size = [], 0
    for folder, record in records:
        file = record if isinstance(record, str) else _open_predictions(folder, record)
        batch.append((folder, record, file))
        size += 0 if isinstance(file, str) else len(file.content)
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _open_predictions(folder: Path, record: RunRecord) -> PredictionsFile | str:
    """Open a record's predictions, or return the line that says why it has none to score."""
    if record.status == "failed":
        return f"{record.cell.title} failed: {record.error}"
    if record.task is None or record.parameters is None:
        return f"{folder} holds a finished record without a task or without parameters"
    try:
        return open_predictions(folder, record)
    except UserError as error:
        return str(error)


def _read_predictions(
    file: PredictionsFile | str, known: dict[Any, LabeledClips]
) -> PredictedClasses | str:
    if isinstance(file, str):
        return file
    try:
        # Scores take most of the time of reading. Only the metric of two classes needs them.
        return file.predictions() if len(file.classes) == 2 else file.predicted_classes(known)
    except UserError as error:
        return str(error)


def _score(folder: Path, record: Any, predictions: PredictedClasses) -> ScoredCell:
    """Score a record that has a task and parameters."""
    labels, predicted = predictions.labels, predictions.predicted
    scores = metrics.score_classes(predicted, labels, len(predictions.classes))
    log_odds = None
    if isinstance(predictions, Predictions) and len(predictions.classes) == 2:
        scores[metrics.ROC_AUC] = metrics.roc_auc(predictions.log_probabilities, labels)
        log_odds = predictions.log_probabilities[:, 1] - predictions.log_probabilities[:, 0]
    elif isinstance(predictions, PackedPredictions):
        scores = score_packed(predictions)
        if predictions.log_odds is not None:
            log_odds = predictions.log_odds.astype(np.float32)
    of_cell = CellPredictions(
        folder,
        predictions.clips.digest,
        labels.astype(np.int16),
        predicted.astype(np.int16),
        log_odds,
    )
    return ScoredCell(
        _row(record, record.task, record.parameters) | scores, of_cell, record.finished_at
    )


def score_packed(predictions: PackedPredictions) -> dict[str, float]:
    """Compute every metric of a cell of a pack, as `metrics.score` does."""
    labels, classes = predictions.labels, len(predictions.classes)
    scores = metrics.score_classes(predictions.predicted, labels, classes)
    if predictions.log_odds is not None:
        rows = np.stack([np.zeros_like(predictions.log_odds), predictions.log_odds], axis=1)
        scores[metrics.ROC_AUC] = metrics.roc_auc(rows, labels)
    return scores


def _problem(folder: Path, task: TaskFacts, classes: Sequence[str]) -> str:
    """Return the reason why a record with predictions of some classes cannot be scored; empty if it can."""
    if classes != task.classes:
        return f"{folder} has predictions of other classes than its task"
    if not metrics.metric_exists(task.metric, len(classes)):
        return f"{folder} is ranked by '{task.metric}', which is not a metric of this release for {len(classes)} classes"
    return ""


def _row(record: RunRecord, task: TaskFacts, parameters: ParameterCounts) -> dict[str, Any]:
    cell = record.cell
    settings = dict(sorted(flatten(cell.settings).items()))
    diagnosis = {
        name: value
        for name, value in record.diagnosis.items()
        if isinstance(value, float) and name not in metrics.METRICS
    }
    return (
        diagnosis
        | {
            "system": cell.system_name,  # its title depends on the other cells: `system_titles.with_titles`
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
            "reference": 0,
            "contamination": "",  # a folder's card says: `load.load_results`
            "validation": np.nan if record.validation is None else record.validation,
        }
    )


def _provenance_hash(record: RunRecord) -> str:
    """Hash what else a system rests on: with other weights, another corpus or another teacher's version it is another system.

    The hash does not depend on the task. A record lists the state of every entry of the corpus but the evaluated task,
    whose manifest the record names elsewhere.
    """
    corpora = dict(record.corpora)
    if record.task is not None and _names_in_a_list(record.settings, record.cell.task):
        corpora[record.cell.task] = record.task.manifest_hash
    provenance = (
        record.provenance
        | {f"corpus {entry}": state for entry, state in corpora.items()}
        | {
            f"version of {short_name(name)}": f"{version}"
            for name, version in record.system_versions.items()
        }
    )
    if not provenance:
        return ""
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()


def _names_in_a_list(settings: Mapping[str, Any], task: str) -> bool:
    """Return whether a setting is a list that holds a task, as a corpus does."""
    values = flatten(dict(settings)).values()
    return any(task in value for value in values if isinstance(value, list | tuple))
