"""Predictions: what a cell's system made of each test clip, in `predictions.parquet` beside its record."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lape_bench.core.errors import UserError
from lape_bench.core.paths import new_file, sha256
from lape_bench.records.record import PREDICTIONS, RunRecord

CLIP, LABEL, PREDICTED, SCORES = "clip_id", "label", "predicted", "log_probabilities"
NAMED = [LABEL, PREDICTED]  # columns of names of classes, kept as numbers of a dictionary


@dataclass(frozen=True, slots=True, eq=False)
class PredictedClasses:
    """Which class a system took each test clip for.

    Attributes:
        clip_ids: one a clip, strings.
        labels: true classes, shape (clips,).
        predicted: classes taken, same shape: the first of the most likely ones.
        classes: their names.
    """

    clip_ids: pa.ChunkedArray
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    classes: tuple[str, ...]

    def digest(self) -> str:
        """Hash the clips' ids and their classes: the test set as a system met it."""
        told = hashlib.sha256(json.dumps(self.classes).encode())
        # As Arrow holds strings, where each ends and all of them in a row: a report hashes thousands of test sets.
        ids = self.clip_ids.combine_chunks()
        _, edges, text = ids.buffers()
        ends = np.frombuffer(edges, np.int32)[ids.offset : ids.offset + len(ids) + 1]
        told.update((ends - ends[0]).tobytes())
        told.update(memoryview(text)[ends[0] : ends[-1]])
        told.update(self.labels.tobytes())
        return told.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Predictions(PredictedClasses):
    """Answers with the scores that gave them.

    Attributes:
        log_probabilities: shape (clips, classes).
    """

    log_probabilities: NDArray[np.float32]


def write_predictions(
    folder: Path,
    clip_ids: list[str],
    labels: NDArray[np.int64],
    log_probabilities: NDArray[np.float32],
    classes: tuple[str, ...],
) -> str:
    """Write `predictions.parquet` and return its SHA-256.

    Args:
        folder: the cell's folder.
        clip_ids: one a test clip.
        labels: true classes, shape (clips,).
        log_probabilities: shape (clips, classes).
        classes: names of the classes, kept in the file.
    """
    scores = pa.list_(pa.field("element", pa.float32(), nullable=False), len(classes))
    table = pa.table(
        {
            CLIP: clip_ids,
            LABEL: [classes[label] for label in labels],
            PREDICTED: [classes[label] for label in log_probabilities.argmax(axis=1)],
            SCORES: pa.FixedSizeListArray.from_arrays(
                pa.array(log_probabilities.ravel(), pa.float32()), type=scores
            ),
        },
        metadata={"classes": json.dumps(classes)},
    )
    with new_file(folder / PREDICTIONS) as temporary:
        # No dictionary of the scores, of which hardly two are equal: it would only cost time and space.
        pq.write_table(table, temporary, use_dictionary=NAMED)
    return sha256(folder / PREDICTIONS)


def read_predictions(folder: Path, record: RunRecord) -> Predictions:
    """Read the predictions of a finished cell.

    Raises:
        UserError: the file is missing, damaged, not the one the record names, or not what a run writes.
    """
    path = folder / PREDICTIONS
    with _readable(path):
        table, classes = _read(path, record)
        labels = _numbers(table[LABEL], classes)
        flat = table[SCORES].combine_chunks().flatten().to_numpy()
        if np.isnan(flat).any():
            raise UserError(f"{path} holds clips whose score is no number")
        rows = flat.reshape(len(labels), len(classes))
        written = PREDICTED in table.column_names
        predicted = _numbers(table[PREDICTED], classes) if written else rows.argmax(axis=1)
        return Predictions(table[CLIP], labels, predicted, classes, rows)


def read_answers(folder: Path, record: RunRecord) -> PredictedClasses:
    """Read the same without scores, which is what takes time; of files that have nothing but scores, from them.

    Raises:
        UserError: as of `read_predictions`.
    """
    path = folder / PREDICTIONS
    with _readable(path):
        table, classes = _read(path, record, [CLIP, *NAMED])
        if PREDICTED in table.column_names:
            labels, predicted = (_numbers(table[name], classes) for name in NAMED)
            return PredictedClasses(table[CLIP], labels, predicted, classes)
    return read_predictions(folder, record)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error})") from error


def _read(
    path: Path, record: RunRecord, columns: Sequence[str] | None = None
) -> tuple[pa.Table, tuple[str, ...]]:
    """Read some columns, or all, and the names of the classes; refuse what `write_predictions` does not write."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != record.predictions_sha256:
        raise UserError(f"{path} is not the file its record names (its SHA-256 differs)")
    table = _open(content).read(columns, use_threads=False)
    classes = tuple(json.loads(table.schema.metadata[b"classes"]))
    types = _types(len(classes))
    for name, column in zip(table.column_names, table.columns, strict=True):
        if column.type not in types[name] or column.null_count:
            raise UserError(f"{path} holds a column '{name}' that no run has written")
    if not len(table):
        raise UserError(f"{path} holds no clip")
    return table, classes


def _open(content: bytes) -> pq.ParquetFile:
    # Not pq.read_table, which opens a data set: four times as slow, and a report reads thousands.
    open_file = partial(pq.ParquetFile, pa.BufferReader(content))
    try:
        return open_file(read_dictionary=NAMED)
    except KeyError:  # of an earlier release, which wrote no column of what was predicted
        return open_file(read_dictionary=[LABEL])


@lru_cache
def _types(classes: int) -> dict[str, list[pa.DataType]]:
    """Return the types that each column may have as it is read."""
    named = [pa.dictionary(pa.int32(), pa.string())]
    # Before scores were told to be never missing, they could be.
    scores = [pa.field("element", pa.float32(), nullable=nullable) for nullable in (False, True)]
    rows = [pa.list_(score, classes) for score in scores]
    return {CLIP: [pa.string()], LABEL: named, PREDICTED: named, SCORES: rows}


def _numbers(column: pa.ChunkedArray, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Turn names of classes into their numbers."""
    index = {name: number for number, name in enumerate(classes)}
    named = column.combine_chunks()  # numbers, and what they stand for in this file
    numbers = np.array([index[name] for name in named.dictionary.to_pylist()], np.int64)
    return np.asarray(numbers[named.indices.to_numpy()])
