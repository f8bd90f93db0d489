from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lape_bench.errors import UserError
from lape_bench.records import (
    Cell,
    RunRecord,
    cell_folder,
    find_records,
    identity,
    read_predictions,
    read_record,
    write_predictions,
    write_record,
)

CLASSES = ("a", "b", "c")
LABELS = np.array([0, 2, 1, 2])


@pytest.fixture
def log_probabilities() -> np.ndarray:
    scores = np.random.default_rng(0).normal(size=(4, 3))
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


@pytest.fixture
def written(tmp_path: Path, log_probabilities: np.ndarray) -> tuple[Path, RunRecord]:
    """A folder with predictions and the record that names them."""
    digest = write_predictions(tmp_path, list("wxyz"), LABELS, log_probabilities, CLASSES)
    cell = Cell(system="s", task="t", protocol="linear")
    record = RunRecord(
        cell=cell,
        identity="0" * 64,
        settings={},
        system_version=1,
        status="finished",
        predictions_sha256=digest,
    )
    write_record(tmp_path, record)
    return tmp_path, record


def test_predictions_and_record_come_back_as_they_were_written(
    written: tuple[Path, RunRecord], log_probabilities: np.ndarray
) -> None:
    folder, record = written
    assert read_record(folder) == record
    rows, labels = read_predictions(folder, record)
    assert np.array_equal(rows, log_probabilities)
    assert np.array_equal(labels, LABELS)


def test_predictions_can_be_read_without_this_package(written: tuple[Path, RunRecord]) -> None:
    table = pq.read_table(written[0] / "predictions.parquet").to_pandas()
    assert list(table["clip_id"]) == list("wxyz")
    assert list(table["label"]) == ["a", "c", "b", "c"]
    assert len(table["log_probabilities"][0]) == 3


def test_edited_predictions_are_refused(written: tuple[Path, RunRecord]) -> None:
    folder, record = written
    write_predictions(folder, list("wxyz"), LABELS, np.zeros((4, 3), np.float32), CLASSES)
    with pytest.raises(UserError, match="SHA-256 differs"):
        read_predictions(folder, record)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"schema_version": 99}', "null"],
    ids=["empty", "cut", "list", "schema", "null"],
)
def test_a_damaged_record_is_named_and_the_others_are_read(
    text: str, written: tuple[Path, RunRecord]
) -> None:
    folder, record = written
    (folder / "broken").mkdir()
    (folder / "broken" / "record.json").write_text(text)
    found, problems = find_records(folder)
    assert [each for _, each in found] == [record]
    assert len(problems) == 1
    assert "broken" in problems[0]
    assert "\n" not in problems[0]


def test_an_identity_does_not_depend_on_the_order_of_keys() -> None:
    assert identity({"a": 1, "b": 2}) == identity({"b": 2, "a": 1}) != identity({"a": 1, "b": 3})


def test_cells_that_differ_have_folders_that_differ(tmp_path: Path) -> None:
    cells = [
        Cell(system=system, task="t", protocol="linear", seed=seed, fold=fold)
        for system in ("hear:module/x", "b")
        for seed in (0, 1)
        for fold in (0, 1, 2)
    ]
    folders = {cell_folder(tmp_path, cell, "f" * 64) for cell in cells}
    assert len(folders) == len(cells)
    assert all(folder.parent.parent.parent == tmp_path for folder in folders)
