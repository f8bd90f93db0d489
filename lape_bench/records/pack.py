"""Cells of one task in one small file: their records without curves, and for each test clip class and probability.

A pack is a ZIP file with three members. `cells.json` holds the test sets (classes, clips, labels, groups and folds, each set
once) and the fields of the records, column by column, each distinct value once. `predicted` holds the predicted classes of
all cells, one after the other, as offsets from the true class modulo the number of classes. `probabilities` holds the
probability of the true class in steps of 1/255 or, of two classes, the log-odds of the second one as 64-bit floats, from
which the area under the ROC curve follows.

A cell of a pack is named like one of a folder of records: by the pack's path and the folder that the cell would have.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import from_json

from lape_bench.core.errors import UserError
from lape_bench.core.paths import new_file
from lape_bench.core.regular_files import read_regular
from lape_bench.records.predictions import (
    LabeledClips,
    PredictedClasses,
    Predictions,
    read_groups,
    read_predicted_classes,
    too_large,
)
from lape_bench.records.record import RunRecord, cell_folder, read_record, record_from

VERSION = 1
SUFFIX = ".zip"
CELLS, PREDICTED, PROBABILITIES = "cells.json", "predicted", "probabilities"
MOST_BYTES = 2**28  # of the file, and of each member unpacked
MOST_CELLS = 10**5
LEFT_OUT = {"curves", "status", "error", "schema_version"}  # fields of a record
STEPS = 255  # of a probability
SECONDS_DIGITS, MEMORY_DIGITS = 3, 1


@dataclass(frozen=True, slots=True, eq=False)
class PackedPredictions(PredictedClasses):
    """What a pack holds of a cell's predictions.

    Attributes:
        probabilities: of the true class, in steps of 1/255, shape (clips,).
        log_odds: of the second of two classes, float64, same shape; None if there are more classes.
        groups: strings or null, shape (clips,); None if none is known.
        folds: from 1, or null, same shape; None if none is known.
    """

    probabilities: NDArray[np.float32]
    log_odds: NDArray[np.float64] | None
    groups: pa.ChunkedArray | None
    folds: pa.ChunkedArray | None


class PackedCell(NamedTuple):
    """A finished cell of a pack; its folder is the pack's path with that of the cell behind it."""

    folder: Path
    record: RunRecord
    predictions: PackedPredictions


def packed(folder: Path, record: RunRecord, predictions: Predictions) -> PackedCell:
    """Reduce a finished cell to what a pack holds."""
    rows = predictions.log_probabilities.astype(np.float64)
    truth = np.exp(rows[np.arange(len(rows)), predictions.labels])
    odds = rows[:, 1] - rows[:, 0] if rows.shape[1] == 2 else None
    return PackedCell(
        folder,
        record,
        PackedPredictions(
            clips=predictions.clips,
            predicted=predictions.predicted,
            probabilities=truth.astype(np.float32),
            log_odds=odds,
            groups=predictions.groups,
            folds=predictions.folds,
        ),
    )


def write_pack(path: Path, cells: Sequence[PackedCell]) -> None:
    """Write cells to one file: the same cells give the same bytes.

    Raises:
        UserError: the file cannot be written.
    """
    cells = sorted(cells, key=lambda cell: str(_place(cell.record)))
    tests: dict[str, int] = {}
    of_cells = [tests.setdefault(_json(_test_set(cell.predictions)), len(tests)) for cell in cells]
    predicted = [_offsets(cell.predictions) for cell in cells]
    probabilities = [_probability_bytes(cell.predictions) for cell in cells]
    members = {PREDICTED: b"".join(predicted), PROBABILITIES: b"".join(probabilities)}
    content = {
        "version": VERSION,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
        "tests": [json.loads(text) for text in tests],
        "test_of_cell": of_cells,
        "fields": _columns([_fields(cell.record) for cell in cells]),
    }
    members = {CELLS: _json(content).encode()} | members
    with (
        new_file(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_LZMA) as archive,
    ):
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_LZMA)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _place(record: RunRecord) -> Path:
    return cell_folder(Path(), record.cell, record.identity)


def _test_set(predictions: PackedPredictions) -> dict[str, Any]:
    groups, folds = predictions.groups, predictions.folds
    return {
        "classes": predictions.classes,
        "clips": predictions.clip_ids.to_pylist(),
        "labels": predictions.labels.tolist(),
        "groups": None if groups is None else groups.to_pylist(),
        "folds": None if folds is None else folds.to_pylist(),
    }


def _class_type(classes: int) -> Any:
    return np.uint8 if classes <= 2**8 else np.uint16


def _offsets(predictions: PackedPredictions) -> bytes:
    """Write predicted classes so that a right one is 0: what is mostly 0 takes little space."""
    classes = len(predictions.classes)
    offsets = (predictions.predicted - predictions.labels) % classes
    return offsets.astype(_class_type(classes)).tobytes()


def _probability_bytes(predictions: PackedPredictions) -> bytes:
    if predictions.log_odds is not None:
        return predictions.log_odds.astype("<f8").tobytes()
    return np.rint(STEPS * predictions.probabilities).astype(np.uint8).tobytes()


def _fields(record: RunRecord) -> dict[str, Any]:
    """Return a record's fields as plain data, without those that a pack leaves out."""
    values = record.model_dump(mode="json", exclude=LEFT_OUT)
    for stage in values["stages"]:
        stage["seconds"] = round(stage["seconds"], SECONDS_DIGITS)
        stage["peak_memory_mib"] = round(stage["peak_memory_mib"], MEMORY_DIGITS)
    for artifact in values["artifacts"]:
        for name in ("seconds", "waited"):
            artifact[name] = round(artifact[name], SECONDS_DIGITS)
    return values


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Lay rows out by field, each with its distinct values and the number of the value that each row has."""
    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values: dict[str, int] = {}
        places = [values.setdefault(_json(row[name]), len(values)) for row in rows]
        columns[name] = {"values": [json.loads(text) for text in values], "of_cell": places}
    return columns


def is_pack(path: Path) -> bool:
    """Return True if a path has the name of a pack and is a regular file."""
    return path.suffix == SUFFIX and path.is_file() and not path.is_symlink()


def find_packs(folder: Path) -> list[Path]:
    """Return the packs that lie in a folder, sorted; folders below it are not searched."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if is_pack(path))


def read_pack(path: Path) -> tuple[PackedCell, ...]:
    """Read a pack.

    Raises:
        UserError: the file is not a pack, is damaged or too large, or holds values that no run writes.
    """
    status = path.stat() if path.is_file() else None
    if status is None:
        raise UserError(f"there is no file {path}")
    return _read_pack(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)  # reports come back for groups and clips
def _read_pack(path: Path, changed: int, size: int) -> tuple[PackedCell, ...]:
    try:
        members = _members(read_regular(path, MOST_BYTES))
        content = from_json(members[CELLS])
        if not isinstance(content, dict) or content.get("version") != VERSION:
            raise ValueError(f"this release reads packs of version {VERSION}")
        for name in (PREDICTED, PROBABILITIES):
            if hashlib.sha256(members[name]).hexdigest() != content["sha256"][name]:
                raise ValueError(f"its member '{name}' was changed (its SHA-256 differs)")
        return tuple(_cells(path, content, members))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path} is not a readable pack ({field}: {first['msg']})") from error
    except (  # all that zipfile, Arrow and the checks above raise for a damaged or hostile file
        *(OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError),
        *(MemoryError, RecursionError, EOFError, NotImplementedError),
        *(zipfile.BadZipFile, pa.ArrowException),
    ) as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is not a readable pack ({reason})") from error


def _members(file: bytes) -> dict[str, bytes]:
    members = {}
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        for name in (CELLS, PREDICTED, PROBABILITIES):
            with archive.open(name) as member:
                members[name] = member.read(MOST_BYTES + 1)
            if len(members[name]) > MOST_BYTES:
                raise ValueError(f"its member '{name}' has more than {MOST_BYTES:,} bytes")
    return members


def _cells(path: Path, content: Any, members: dict[str, bytes]) -> Iterable[PackedCell]:
    if len(content["test_of_cell"]) > MOST_CELLS:
        raise ValueError(f"it has more than {MOST_CELLS:,} cells")
    tests = [_read_test_set(values) for values in content["tests"]]
    places = {PREDICTED: 0, PROBABILITIES: 0}

    def take(name: str, kind: Any, count: int) -> NDArray[Any]:
        start = places[name]
        places[name] += count * np.dtype(kind).itemsize
        return np.frombuffer(members[name], kind, count, start)

    for number, test in enumerate(content["test_of_cell"]):
        columns = content["fields"].items()
        fields = {name: column["values"][column["of_cell"][number]] for name, column in columns}
        record = record_from({"status": "finished", **fields})
        if record.task is None or record.parameters is None:
            raise ValueError("it holds a cell without a task or without parameters")
        known, groups, folds = tests[test]
        classes, clips = len(known.classes), len(known.labels)
        offsets = take(PREDICTED, _class_type(classes), clips).astype(np.int64)
        if offsets.max(initial=0) >= classes:
            raise ValueError("it holds predictions of classes that its task does not have")
        odds = None
        if classes == 2:
            odds = take(PROBABILITIES, "<f8", clips).astype(np.float64)
            if not np.isfinite(odds).all():
                raise ValueError("it holds scores that are not finite")
            truth = 1 / (1 + np.exp(np.where(known.labels == 1, -odds, odds).clip(-80, 80)))
        else:
            truth = take(PROBABILITIES, np.uint8, clips).astype(np.float32) / STEPS
        predictions = PackedPredictions(
            known,
            (known.labels + offsets) % classes,
            truth.astype(np.float32),
            odds,
            groups,
            folds,
        )
        yield PackedCell(path / _place(record), record, predictions)
    if any(places[name] != len(members[name]) for name in places):
        raise ValueError("it holds more predictions than cells")


def _read_test_set(
    values: Any,
) -> tuple[LabeledClips, pa.ChunkedArray | None, pa.ChunkedArray | None]:
    """Return the clips with their groups and folds."""
    classes = tuple(values["classes"])
    labels = np.array(values["labels"], np.int64)
    if reason := too_large(len(labels), len(classes)):
        raise ValueError(f"a test set {reason}")
    clips = pa.chunked_array([pa.array(values["clips"], pa.string())])
    groups, folds = (
        None if values[name] is None else pa.chunked_array([pa.array(values[name], kind)])
        for name, kind in (("groups", pa.string()), ("folds", pa.int32()))
    )
    if not all(isinstance(name, str) for name in classes) or len({*classes}) < len(classes):
        raise ValueError("its classes are not a list of names")
    if not len(labels) or labels.ndim != 1 or labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError("it holds labels that are not those of its classes")
    lengths = {len(column) for column in (clips, labels, groups, folds) if column is not None}
    if len(lengths) > 1 or clips.null_count:
        raise ValueError("the clips of a test set lack a name, a label, a group or a fold")
    return LabeledClips(clips, labels, classes), groups, folds


def packed_cell(folder: Path) -> PackedCell | None:
    """Return the cell of a pack that a folder names, or None if the folder is one on the disk.

    Raises:
        UserError: the pack cannot be read, or holds no such cell.
    """
    for parent in folder.parents:
        if is_pack(parent):
            for cell in read_pack(parent):
                if cell.folder == folder:
                    return cell
            raise UserError(f"{parent} holds no cell {folder.relative_to(parent)}")
    return None


def record_in(folder: Path) -> RunRecord:
    """Read the record of a folder or of a cell of a pack; see `read_record`."""
    cell = packed_cell(folder)
    return read_record(folder) if cell is None else cell.record


def predicted_classes_in(folder: Path) -> PredictedClasses:
    """Read the predicted classes of a finished cell, from a folder or a pack; see `read_predicted_classes`."""
    cell = packed_cell(folder)
    return read_predicted_classes(folder, read_record(folder)) if cell is None else cell.predictions


def groups_in(folder: Path) -> pa.ChunkedArray | None:
    """Read the groups of the test clips of a finished cell, from a folder or a pack; see `read_groups`."""
    cell = packed_cell(folder)
    return read_groups(folder, read_record(folder)) if cell is None else cell.predictions.groups
