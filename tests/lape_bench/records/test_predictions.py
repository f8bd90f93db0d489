"""Predictions: written, read back with and without their scores, refused where no run has written them."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lape_bench.core.errors import UserError
from lape_bench.records.predictions import (
    LabeledClips,
    PredictionsFile,
    open_predictions,
    read_predicted_classes,
    read_predictions,
    write_predictions,
)
from lape_bench.records.record import RunRecord, read_record

CLASSES = ("a", "b", "c")
LABELS = np.array([0, 2, 1, 2])


def test_predictions_come_back_as_they_were_written(
    written: tuple[Path, RunRecord], log_probabilities: np.ndarray
) -> None:
    folder, record = written
    assert read_record(folder) == record
    read = read_predictions(folder, record)
    assert np.array_equal(read.log_probabilities, log_probabilities)
    assert np.array_equal(read.labels, LABELS)


def test_predictions_can_be_read_without_this_package(written: tuple[Path, RunRecord]) -> None:
    table = pq.read_table(written[0] / "predictions.parquet").to_pandas()
    assert list(table["clip_id"]) == list("wxyz")
    assert list(table["label"]) == ["a", "c", "b", "c"]
    assert len(table["log_probabilities"][0]) == 3


def test_predictions_carry_the_group_and_the_fold_of_each_clip(
    tmp_path: Path, written: tuple[Path, RunRecord], log_probabilities: np.ndarray
) -> None:
    _, record = written
    groups, folds = ["ann", None, "bob", "ann"], [2, 2, 2, 2]
    digest = write_predictions(
        tmp_path, list("wxyz"), LABELS, log_probabilities, CLASSES, groups, folds
    )
    read = read_predictions(tmp_path, record.model_copy(update={"predictions_sha256": digest}))
    assert read.groups is not None
    assert read.folds is not None
    assert (read.groups.to_pylist(), read.folds.to_pylist()) == (groups, folds)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table.column_names == [
        "clip_id", "label", "predicted", "log_probabilities", "group", "fold"
    ]  # fmt: skip
    assert table["group"].to_pylist() == groups


def test_without_groups_and_folds_both_are_null(written: tuple[Path, RunRecord]) -> None:
    read = read_predictions(*written)
    assert read.groups is not None
    assert read.folds is not None
    assert read.groups.to_pylist() == read.folds.to_pylist() == [None] * 4


def test_predictions_of_before_groups_were_written_are_read(
    written: tuple[Path, RunRecord],
) -> None:
    folder, record = written
    path = folder / "predictions.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["group", "fold"]), path)
    known = record.model_copy(update={"predictions_sha256": sha256(path.read_bytes()).hexdigest()})
    read = read_predictions(folder, known)
    assert (read.groups, read.folds) == (None, None)
    assert np.array_equal(read.labels, LABELS)


def test_edited_predictions_are_refused(written: tuple[Path, RunRecord]) -> None:
    folder, record = written
    write_predictions(folder, list("wxyz"), LABELS, np.zeros((4, 3), np.float32), CLASSES)
    with pytest.raises(UserError, match="SHA-256 differs"):
        read_predictions(folder, record)


def other_columns(**columns: pa.Array) -> Callable[[pa.Table], pa.Table]:
    """Return what puts other columns into a table of predictions."""

    def change(table: pa.Table) -> pa.Table:
        for name, column in columns.items():
            table = table.set_column(table.schema.get_field_index(name), name, column)
        return table

    return change


NOT_A_NUMBER = pa.FixedSizeListArray.from_arrays(
    pa.array([np.nan] * 12, pa.float32()),
    type=pa.list_(pa.field("element", pa.float32(), nullable=False), 3),
)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_columns(clip_id=pa.array(range(4))), "that no run writes"),
        (other_columns(clip_id=pa.array(list("wxyz"), pa.large_string())), "that no run writes"),
        (other_columns(clip_id=pa.array(["w", None, "y", "z"])), "that no run writes"),
        (other_columns(label=pa.array(["a", None, "b", "c"])), "that no run writes"),
        (other_columns(log_probabilities=pa.array([0.0] * 4)), "that no run writes"),
        (other_columns(log_probabilities=NOT_A_NUMBER), "not numbers"),
        (other_columns(group=pa.array(range(4))), "that no run writes"),
        (other_columns(fold=pa.array(["1", "2", "3", "4"])), "that no run writes"),
        (lambda table: table.slice(0, 0), "no clips"),
        (lambda table: table.drop_columns("clip_id"), "clip_id"),
        (lambda table: table.drop_columns("predicted"), "predicted"),
    ],
    ids=[
        "numbers",
        "large",
        "null id",
        "null label",
        "scalars",
        "nan",
        "groups of numbers",
        "folds of texts",
        "empty",
        "no clip_id",
        "no predicted",
    ],
)
def test_predictions_that_no_run_has_written_are_refused_in_a_line(
    change: Callable[[pa.Table], pa.Table], told: str, written: tuple[Path, RunRecord]
) -> None:
    folder, record = written
    path = folder / "predictions.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    known = record.model_copy(update={"predictions_sha256": sha256(path.read_bytes()).hexdigest()})
    with pytest.raises(UserError, match=told) as refusal:
        read_predictions(folder, known)
    assert "\n" not in str(refusal.value)


def test_predicted_classes_are_the_predictions_without_their_scores(
    written: tuple[Path, RunRecord], log_probabilities: np.ndarray
) -> None:
    predictions = read_predicted_classes(*written)
    assert predictions.clip_ids.to_pylist() == list("wxyz")
    assert np.array_equal(predictions.labels, LABELS)
    assert np.array_equal(predictions.predicted, log_probabilities.argmax(axis=1))
    assert predictions.classes == CLASSES
    assert not hasattr(predictions, "log_probabilities")


def rewritten(path: Path, record: RunRecord, table: pa.Table) -> PredictionsFile:
    """Write a table in place of predictions, and open it."""
    pq.write_table(table, path, use_dictionary=["label", "predicted"])
    digest = sha256(path.read_bytes()).hexdigest()
    return open_predictions(path.parent, record.model_copy(update={"predictions_sha256": digest}))


def test_files_with_the_same_clips_and_labels_share_them(written: tuple[Path, RunRecord]) -> None:
    folder, record = written
    path = folder / "predictions.parquet"
    table = pq.read_table(path)
    known: dict[Any, LabeledClips] = {}
    first = open_predictions(folder, record).predicted_classes(known)
    others = other_columns(predicted=pa.array(list("cbab")))(table)
    second = rewritten(path, record, others).predicted_classes(known)
    assert second.clips is first.clips
    assert second.predicted.tolist() == [2, 1, 0, 1]
    for column in (
        {"clip_id": pa.array(list("wxyv"))},
        {"label": pa.array(list("accc"))},
    ):
        changed = rewritten(path, record, other_columns(**column)(table))
        third, alone = changed.predicted_classes(known), changed.predicted_classes()
        assert third.clips is not first.clips
        assert third.clips.digest == alone.clips.digest != first.clips.digest


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ({"clip_id": pa.array([b"w", b"x", b"y", b"z"])}, "that no run writes"),
        ({"clip_id": pa.array(list("wxyz"), pa.large_string())}, "that no run writes"),
        ({"label": pa.array([b"a", b"c", b"b", b"c"])}, "that no run writes"),
    ],
)
def test_the_same_bytes_of_another_type_are_not_taken_for_known_clips(
    column: dict[str, pa.Array], reason: str, written: tuple[Path, RunRecord]
) -> None:
    folder, record = written
    path = folder / "predictions.parquet"
    known: dict[Any, LabeledClips] = {}
    open_predictions(folder, record).predicted_classes(known)
    table = other_columns(**column)(pq.read_table(path))
    with pytest.raises(UserError, match=reason):
        rewritten(path, record, table).predicted_classes(known)


def test_only_the_same_clips_with_the_same_classes_are_one_test_set() -> None:
    def digest(ids: list[str], labels: list[int], classes: tuple[str, ...]) -> str:
        numbers = np.array(labels)
        return LabeledClips(pa.chunked_array([ids]), numbers, classes).digest

    same = digest(["a", "b"], [0, 1], ("x", "y"))
    assert digest(["a", "b"], [0, 1], ("x", "y")) == same
    others = [
        digest(["a", "c"], [0, 1], ("x", "y")),
        digest(["b", "a"], [0, 1], ("x", "y")),
        digest(["a", "b"], [1, 0], ("x", "y")),
        digest(["a", "b"], [0, 1], ("y", "x")),
        digest(["a\0b"], [0], ("x", "y")),
    ]
    assert len({same, *others}) == 1 + len(others)


def claims(rows: int, **changes: object) -> Callable[[Path], None]:
    """Make a small file that stands for so many clips, each with the same long ID."""

    def write(path: Path) -> None:
        names = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["a"])
        columns = {
            "clip_id": pa.DictionaryArray.from_arrays(
                np.zeros(rows, np.int32), [changes.get("clip_id", "x")]
            ).cast(
                pa.large_string() if len(str(changes.get("clip_id", ""))) > 100 else pa.string()
            ),
            "label": names,
            "predicted": names,
            "log_probabilities": pa.FixedSizeListArray.from_arrays(
                pa.array(np.zeros(3 * rows, np.float32)),
                type=pa.list_(pa.field("element", pa.float32(), nullable=False), 3),
            ),
        }
        metadata = {"classes": changes.get("classes", '["a", "b", "c"]')}
        table = pa.table(columns, metadata=metadata)
        pq.write_table(table, path, compression="zstd")

    return write


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (claims(10, classes="[" * 100_000), "cannot be read"),
        (claims(10, classes="{}"), "list of names"),
        (claims(10, classes='["a", 1, "c"]'), "list of names"),
        (claims(10, classes='["a", "a", "c"]'), "twice"),
        (claims(10, classes=json.dumps([str(n) for n in range(20_000)])), "claims 20,000 classes"),
        (claims(10_000, clip_id="x" * 100_000), "clip_id"),
    ],
    ids=["deep", "mapping", "numbers", "twice", "many classes", "long ids"],
)
def test_a_small_file_that_stands_for_too_much_is_refused(
    write: Callable[[Path], None], reason: str, written: tuple[Path, RunRecord]
) -> None:
    folder, record = written
    path = folder / "predictions.parquet"
    write(path)
    known = record.model_copy(update={"predictions_sha256": sha256(path.read_bytes()).hexdigest()})
    for read in (read_predictions, read_predicted_classes):
        with pytest.raises(UserError, match=reason):
            read(folder, known)


def test_more_clips_than_any_task_has_are_refused_before_they_are_unpacked(
    written: tuple[Path, RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lape_bench.records.predictions.MOST_CLIPS", 3)
    with pytest.raises(UserError, match="claims 4 clips, more than 3"):
        read_predictions(*written)
    monkeypatch.setattr("lape_bench.records.predictions.MOST_CLIPS", 4)
    monkeypatch.setattr("lape_bench.records.predictions.MOST_SCORES", 11)
    with pytest.raises(UserError, match="claims 12 scores, more than 11"):
        read_predictions(*written)


def test_ids_in_a_dictionary_are_read_unless_they_are_too_long(
    written: tuple[Path, RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, record = written
    path = folder / "predictions.parquet"
    pq.write_table(pq.read_table(path), path, use_dictionary=True)
    known = record.model_copy(update={"predictions_sha256": sha256(path.read_bytes()).hexdigest()})
    assert read_predictions(folder, known).clip_ids.to_pylist() == list("wxyz")
    monkeypatch.setattr("lape_bench.records.predictions.MOST_TEXT_BYTES", 3)
    with pytest.raises(UserError, match="'clip_id' takes 4 bytes, more than 3"):
        read_predictions(folder, known)
