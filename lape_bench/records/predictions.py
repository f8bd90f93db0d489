"""Predictions of a cell's test clips, in `predictions.parquet` beside its record."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic_core import from_json

from lape_bench.core.errors import UserError
from lape_bench.core.paths import new_file, sha256
from lape_bench.core.regular_files import read_regular
from lape_bench.records.record import PREDICTIONS, RunRecord

CLIP, LABEL, PREDICTED, SCORES = "clip_id", "label", "predicted", "log_probabilities"
GROUP, FOLD = "group", "fold"
MAY_LACK = {GROUP, FOLD}  # columns that may be null
CLASS_COLUMNS = [LABEL, PREDICTED]  # class names, dictionary-encoded
TEXT_COLUMNS = [CLIP, GROUP]
# A compressed file of a few hundred kilobytes can hold billions of values, so sizes are checked before unpacking.
MOST_BYTES = 2**30  # size of the file
MOST_CLIPS, MOST_CLASSES = 10**7, 2**13
MOST_SCORES = 2**28  # clips x classes
MOST_TEXT_BYTES = 2**30  # size of the IDs of all clips, or of their groups


@dataclass(frozen=True, eq=False)
class LabeledClips:
    """The clips of a test set with their true classes.

    Attributes:
        ids: strings, shape (clips,).
        labels: true classes, shape (clips,).
        classes: names of the classes.
    """

    ids: pa.ChunkedArray
    labels: NDArray[np.int64]
    classes: tuple[str, ...]

    @cached_property
    def digest(self) -> str:
        """Hash of the IDs and true classes. Two test sets are the same if their hashes are."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        # Hash Arrow's buffers (offsets and text) directly: a report hashes thousands of test sets.
        ids = _one_chunk(self.ids)
        _, edges, text = ids.buffers()
        ends = np.frombuffer(edges, np.int32)[ids.offset : ids.offset + len(ids) + 1]
        digest.update((ends - ends[0]).tobytes())
        digest.update(memoryview(text)[ends[0] : ends[-1]])
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class PredictedClasses:
    """The class that a system predicted for each test clip.

    Attributes:
        clips: the test clips.
        predicted: predicted classes, shape (clips,); the first of equally likely ones.
    """

    clips: LabeledClips
    predicted: NDArray[np.int64]

    @property
    def clip_ids(self) -> pa.ChunkedArray:
        """IDs of the clips: strings, shape (clips,)."""
        return self.clips.ids

    @property
    def labels(self) -> NDArray[np.int64]:
        """True classes, shape (clips,)."""
        return self.clips.labels

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.clips.classes


@dataclass(frozen=True, slots=True, eq=False)
class Predictions(PredictedClasses):
    """Predicted classes with the scores behind them.

    Attributes:
        log_probabilities: shape (clips, classes).
        groups: group of each clip, such as its speaker, strings or null, shape (clips,); None in files of releases that
            stored no groups.
        folds: the fold of each clip, from 1, or null, shape (clips,); None as for `groups`.
    """

    log_probabilities: NDArray[np.float32]
    groups: pa.ChunkedArray | None
    folds: pa.ChunkedArray | None


def write_predictions(
    folder: Path,
    clip_ids: list[str],
    labels: NDArray[np.int64],
    log_probabilities: NDArray[np.float32],
    classes: tuple[str, ...],
    groups: Sequence[str | None] | None = None,
    folds: Sequence[int | None] | None = None,
) -> str:
    """Write `predictions.parquet` and return its SHA-256.

    Args:
        folder: the cell's folder.
        clip_ids: one for each test clip.
        labels: true classes, shape (clips,).
        log_probabilities: shape (clips, classes).
        classes: names of the classes, kept in the file.
        groups: the group of each clip, such as its speaker; None for a clip, or for all, if none is known.
        folds: the fold of each clip, from 1; None if the task has no folds.
    """
    unknown = [None] * len(clip_ids)
    table = pa.table(
        {
            CLIP: clip_ids,
            LABEL: [classes[label] for label in labels],
            PREDICTED: [classes[label] for label in log_probabilities.argmax(axis=1)],
            SCORES: pa.FixedSizeListArray.from_arrays(
                pa.array(log_probabilities.ravel(), pa.float32()), type=_scores(len(classes))
            ),
            GROUP: pa.array(unknown if groups is None else groups, pa.string()),
            FOLD: pa.array(unknown if folds is None else folds, pa.int32()),
        },
        metadata={"classes": json.dumps(classes)},
    )
    with new_file(folder / PREDICTIONS) as temporary:
        # Hardly any two scores are equal, so a dictionary would only cost time and space.
        pq.write_table(table, temporary, use_dictionary=CLASS_COLUMNS)
    return sha256(folder / PREDICTIONS)


@dataclass(frozen=True, slots=True, eq=False)
class PredictionsFile:
    """A file of predictions that is the one its record names, and of allowed size; its columns are not read yet.

    Attributes:
        path: of the file.
        content: its bytes.
        columns: the file, for reading columns.
        classes: names of the classes.
        encoded: columns of texts that are in a dictionary.
    """

    path: Path
    content: bytes
    columns: pq.ParquetFile
    classes: tuple[str, ...]
    encoded: tuple[str, ...]

    def predictions(self) -> Predictions:
        """Read everything; see `read_predictions`."""
        with _readable(self.path):
            table = self._read()
            clips = self._labeled_clips(table)
            flat = _one_chunk(table[SCORES]).flatten().to_numpy()
            if np.isnan(flat).any():
                raise UserError(f"{self.path} holds scores that are not numbers")
            log_probabilities = flat.reshape(len(clips.labels), len(self.classes))
            groups, folds = (
                table[name] if name in table.column_names else None for name in (GROUP, FOLD)
            )
            predicted = _numbers(table[PREDICTED], self.classes)
            return Predictions(clips, predicted, log_probabilities, groups, folds)

    def predicted_classes(self, known: dict[Any, LabeledClips] | None = None) -> PredictedClasses:
        """Read everything but the scores, which take most of the time.

        Args:
            known: test clips of the files that were read with it before; those of this file are added. Files with the
                same bytes in the columns of clips and labels share them, so that each test set is decoded once.
        """
        known = {} if known is None else known
        with _readable(self.path):
            key = self._key_of_clips()
            clips = known.get(key)
            columns = [PREDICTED] if clips else [CLIP, LABEL, PREDICTED]
            table = self._read(columns)
            clips = clips or self._labeled_clips(table)
            predicted = _numbers(table[PREDICTED], self.classes)
            if len(predicted) != len(clips.labels):
                raise UserError(f"{self.path} holds columns of different lengths")
            if key is not None:
                known[key] = clips
            return PredictedClasses(clips, predicted)

    def _labeled_clips(self, table: pa.Table) -> LabeledClips:
        return LabeledClips(table[CLIP], _numbers(table[LABEL], self.classes), self.classes)

    def _key_of_clips(self) -> Any:
        """Return all that determines what the columns of clips and labels hold; None if it is not in one place."""
        metadata = self.columns.metadata
        if metadata.num_row_groups != 1:
            return None
        group = metadata.row_group(0)
        stored = {}
        for number in range(group.num_columns):
            column = group.column(number)
            if column.path_in_schema in (CLIP, LABEL):
                stored[column.path_in_schema] = self._stored(column, metadata.schema.column(number))
        return (
            self.classes,
            self.encoded,
            metadata.created_by,
            metadata.metadata.get(b"ARROW:schema"),
            group.num_rows,
            *(stored[name] for name in (CLIP, LABEL)),
        )

    def _stored(self, column: Any, schema: Any) -> tuple[Any, ...]:
        """Return the bytes of a column, and what says how to read them."""
        start = column.data_page_offset
        if column.has_dictionary_page:
            start = min(start, column.dictionary_page_offset)
        return (
            self.content[start : start + column.total_compressed_size],
            column.data_page_offset - start,
            column.num_values,
            column.compression,
            column.encodings,
            column.physical_type,
            str(schema.logical_type),
            schema.max_definition_level,
            schema.max_repetition_level,
        )

    def groups(self) -> pa.ChunkedArray | None:
        """Read the group of each test clip: strings or null, shape (clips,); None as in `Predictions`."""
        with _readable(self.path):
            table = self._read([CLIP, GROUP])
            return table[GROUP] if GROUP in table.column_names else None

    def _read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read some or all columns; refuse a table that `write_predictions` cannot have written."""
        table = self.columns.read(columns, use_threads=False)
        types = _types(len(self.classes))
        for name in self.encoded:
            if name in table.column_names:
                table = _unpacked(table, name)
        for name, column in zip(table.column_names, table.columns, strict=True):
            if column.type != types[name] or (column.null_count and name not in MAY_LACK):
                raise UserError(
                    f"{self.path} holds a column '{name}' with types or gaps that no run writes"
                )
        if not len(table):
            raise UserError(f"{self.path} holds no clips")
        return table


def open_predictions(folder: Path, record: RunRecord) -> PredictionsFile:
    """Open the predictions of a finished cell.

    Raises:
        UserError: the file is missing, damaged, not the one the record names, or larger than a run writes it.
    """
    path = folder / PREDICTIONS
    with _readable(path):
        content = read_regular(path, MOST_BYTES)
        if hashlib.sha256(content).hexdigest() != record.predictions_sha256:
            raise UserError(f"{path} is not the file its record names (its SHA-256 differs)")
        # ParquetFile and not pq.read_table, which opens a data set and takes four times as long; a report reads
        # thousands of files.
        source = pa.BufferReader(content)
        # There is nothing to buffer, as the file is in memory.
        file = pq.ParquetFile(source, read_dictionary=CLASS_COLUMNS, pre_buffer=False)
        classes = _class_names((file.metadata.metadata or {})[b"classes"])
        if reason := too_large(_clips(file.metadata), len(classes)):
            raise UserError(f"{path} {reason}")
        # Also of columns that are read later or not at all, so that a report leaves the whole record out.
        types = _types(len(classes))
        for field in file.schema_arrow:
            if field.type != types.get(field.name):
                raise UserError(
                    f"{path} holds a column '{field.name:.50}' with types that no run writes"
                )
        if encoded := _dictionary_columns(file.metadata):
            # Dictionary-encoded text stays encoded, since one long string may be repeated millions of times.
            file = pq.ParquetFile(
                source,
                metadata=file.metadata,
                read_dictionary=[*CLASS_COLUMNS, *encoded],
                pre_buffer=False,
            )
        return PredictionsFile(path, content, file, classes, encoded)


def read_predictions(folder: Path, record: RunRecord) -> Predictions:
    """Read the predictions of a finished cell.

    Raises:
        UserError: the file is missing or damaged, is not the one that the record names, or does not have the form that
            a run writes.
    """
    return open_predictions(folder, record).predictions()


def read_predicted_classes(folder: Path, record: RunRecord) -> PredictedClasses:
    """Read the predictions of a finished cell without the scores, which take the longest to read.

    Raises:
        UserError: as for `read_predictions`.
    """
    return open_predictions(folder, record).predicted_classes()


def read_groups(folder: Path, record: RunRecord) -> pa.ChunkedArray | None:
    """Read the group of each test clip of a finished cell: strings or null, shape (clips,); None as in `Predictions`.

    Raises:
        UserError: as for `read_predictions`.
    """
    return open_predictions(folder, record).groups()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, MemoryError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({str(error) or type(error).__name__})") from error


@lru_cache(16)
def _class_names(text: bytes) -> tuple[str, ...]:
    # Not json.loads, which raises a RecursionError for deeply nested lists.
    names = from_json(text)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its classes are not a list of names")
    if len(set(names)) < len(names):
        raise ValueError("a class is named twice")
    return tuple(names)


def _clips(metadata: pq.FileMetaData) -> int:
    """Return the number of clips that a file claims. All row groups together are unpacked."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    clips: int = max(sum(group.num_rows for group in groups), metadata.num_rows)
    return clips


def too_large(clips: int, classes: int) -> str:
    """Return a message that says which limit predictions of so many clips and classes exceed; empty if none."""
    if clips > MOST_CLIPS:
        return f"claims {clips:,} clips, more than {MOST_CLIPS:,}"
    if classes > MOST_CLASSES:
        return f"claims {classes:,} classes, more than {MOST_CLASSES:,}"
    if clips * classes > MOST_SCORES:
        return f"claims {clips * classes:,} scores, more than {MOST_SCORES:,}"
    return ""


def _dictionary_columns(metadata: pq.FileMetaData) -> tuple[str, ...]:
    """Return the text columns that are dictionary-encoded in the file."""
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    columns = (group.column(number) for group in groups for number in range(group.num_columns))
    names = ((column.path_in_schema, column) for column in columns)
    encoded = {
        name
        for name, column in names
        if name in TEXT_COLUMNS and any("DICT" in encoding for encoding in column.encodings)
    }
    return tuple(sorted(encoded))


def _unpacked(table: pa.Table, name: str) -> pa.Table:
    """Unpack a column of text, unless it would take too much memory."""
    size = 0
    for chunk in table[name].chunks:
        lengths = pc.binary_length(chunk.dictionary).to_numpy(zero_copy_only=False)
        indices = chunk.indices.drop_null().to_numpy(zero_copy_only=False)
        size += int(lengths @ np.bincount(indices, minlength=len(lengths)))
    if size > MOST_TEXT_BYTES:
        raise ValueError(f"its column '{name}' takes {size:,} bytes, more than {MOST_TEXT_BYTES:,}")
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, table[name].cast(pa.string()))


@lru_cache
def _types(classes: int) -> dict[str, pa.DataType]:
    """Return the type of each column as it is read."""
    class_name = pa.dictionary(pa.int32(), pa.string())
    return {
        CLIP: pa.string(),
        LABEL: class_name,
        PREDICTED: class_name,
        SCORES: _scores(classes),
        GROUP: pa.string(),
        FOLD: pa.int32(),
    }


def _scores(classes: int) -> pa.DataType:
    return pa.list_(pa.field("element", pa.float32(), nullable=False), classes)


def _numbers(column: pa.ChunkedArray, classes: tuple[str, ...]) -> NDArray[np.int64]:
    """Turn class names into class numbers, shape (clips,)."""
    number_of = _numbers_of_names(classes)
    encoded = _one_chunk(column)
    numbers = np.array([number_of[name] for name in encoded.dictionary.to_pylist()], np.int64)
    return np.asarray(numbers[encoded.indices.to_numpy()])


@lru_cache(16)
def _numbers_of_names(classes: tuple[str, ...]) -> dict[str, int]:
    return {name: number for number, name in enumerate(classes)}


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    # combine_chunks() would copy even a single one.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
