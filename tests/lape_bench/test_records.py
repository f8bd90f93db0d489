import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lape_bench.errors import UserError
from lape_bench.records import (
    ArtifactUse,
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
    read = read_predictions(folder, record)
    assert np.array_equal(read.log_probabilities, log_probabilities)
    assert np.array_equal(read.labels, LABELS)


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


def other_columns(**columns: pa.Array) -> Callable[[pa.Table], pa.Table]:
    """Return what puts other columns into a table of predictions."""

    def change(table: pa.Table) -> pa.Table:
        for name, column in columns.items():
            table = table.set_column(table.schema.get_field_index(name), name, column)
        return table

    return change


NOT_A_NUMBER = pa.FixedSizeListArray.from_arrays(pa.array([np.nan] * 12, pa.float32()), 3)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_columns(clip_id=pa.array(range(4))), "no run has written"),
        (other_columns(clip_id=pa.array(list("wxyz"), pa.large_string())), "no run has written"),
        (other_columns(clip_id=pa.array(["w", None, "y", "z"])), "no run has written"),
        (other_columns(label=pa.array(["a", None, "b", "c"])), "no run has written"),
        (other_columns(log_probabilities=pa.array([0.0] * 4)), "no run has written"),
        (other_columns(log_probabilities=NOT_A_NUMBER), "no number"),
        (lambda table: table.slice(0, 0), "no clip"),
        (lambda table: table.drop_columns("clip_id"), "no run has written"),
    ],
    ids=["numbers", "large", "null id", "null label", "scalars", "nan", "empty", "missing"],
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


def test_predictions_that_have_lost_their_record_are_named(
    written: tuple[Path, RunRecord],
) -> None:
    folder, _ = written
    (folder / "record.json").unlink()
    found, problems = find_records(folder)
    assert (found, len(problems)) == ([], 1)
    assert f"{folder} holds no record.json" in problems[0]


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


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"system_version": 1', '"system_version": 2'),
        lambda text: text.replace("  ", " "),
        lambda text: json.dumps(json.loads(text)),
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "seal"}),
        lambda text: json.dumps(
            {k: v for k, v in json.loads(text).items() if k not in ("seal", "schema_version")}
        ),
        lambda text: text.replace('"seal": "', '"seal": "0'),
        lambda text: text + "\n",
    ],
    ids=[
        "value",
        "layout",
        "written anew",
        "without seal",
        "without seal and schema",
        "other seal",
        "one line more",
    ],
)
def test_a_record_edited_by_hand_is_refused(
    change: Callable[[str], str], written: tuple[Path, RunRecord]
) -> None:
    folder, _ = written
    path = folder / "record.json"
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match="changed after it was written"):
        read_record(folder)


def test_the_seal_is_a_hash_that_any_program_can_recompute(
    written: tuple[Path, RunRecord],
) -> None:
    body, _, seal = (written[0] / "record.json").read_text().rpartition(',\n  "seal": ')
    assert json.loads(body + "}")["identity"] == "0" * 64
    assert json.loads("{" + f'"seal": {seal}') == {"seal": sha256(body.encode()).hexdigest()}


EARLIER: dict[str, Any] = {
    "schema_version": 1,
    "protocol_version": 1,
    "cell": {"system": "s", "settings": {}, "task": "t", "protocol": "linear"},
    "identity": "0",
    "settings": {},
    "system_version": 1,
    "status": "finished",
    "curve": [{"epoch": 1.0, "loss": 2.5}, {"epoch": 2.0, "loss": float("nan")}],
    "artifacts": [{"kind": "embeddings", "hash": "1a2b"}],
}


def read_back(folder: Path, values: dict[str, Any]) -> RunRecord:
    (folder / "record.json").write_text(json.dumps(values))
    return read_record(folder)


def test_a_record_of_the_first_schema_is_read_with_its_curve_and_artefacts(tmp_path: Path) -> None:
    record = read_back(tmp_path, EARLIER)
    assert record.schema_version == 3
    assert list(record.curves) == ["fine-tuning"]
    first, second = record.curves["fine-tuning"]
    assert first == {"epoch": 1.0, "loss": 2.5}
    assert np.isnan(second["loss"])
    (embeddings,) = record.artifacts
    assert (embeddings.kind, embeddings.hash, embeddings.seconds) == ("embeddings", "1a2b", 0)
    assert record.diagnosis == {}
    write_record(tmp_path / "again", record)
    assert str(read_record(tmp_path / "again")) == str(record)


@pytest.mark.parametrize("change", [{"curve": []}, {"curve": None}], ids=str)
def test_a_record_of_the_first_schema_without_a_curve_has_no_curves(
    change: dict[str, Any], tmp_path: Path
) -> None:
    values = {key: value for key, value in EARLIER.items() if key != "curve"}
    assert read_back(tmp_path, values).curves == {}
    assert read_back(tmp_path, values | change).curves == {}


@pytest.mark.parametrize("version", [0, 4, 99, "one"])
def test_a_schema_that_this_release_does_not_know_is_refused(
    version: object, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"record.json is no readable record \(schema_version: "):
        read_back(tmp_path, EARLIER | {"schema_version": version})


def test_the_second_schema_has_no_field_of_the_first(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="curve"):
        read_back(tmp_path, EARLIER | {"schema_version": 2})


def test_curves_clusters_and_artefacts_come_back_as_they_were_written(
    written: tuple[Path, RunRecord],
) -> None:
    folder, record = written
    record = record.model_copy(
        update={
            "curves": {"pre-training": ({"epoch": 1.0, "loss": 3.0},), "fine-tuning": ()},
            "diagnosis": {"cluster_sizes": (5, 3, 0), "purity": 0.5, "agreement": 1.0},
            "artifacts": (
                ArtifactUse(kind="upstream", hash="a", sha256="b", seconds=1.5, found=False),
            ),
        }
    )
    write_record(folder, record)
    assert read_record(folder) == record
    assert read_record(folder).diagnosis["cluster_sizes"] == (5, 3, 0)


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


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("hf:facebook/wav2vec2-base", "hf_facebook_wav2vec2-base"),
        ("checkpoint:../a b/c:d.pt", "checkpoint_.._a_b_c_d.pt"),
        (f"hear:mine@{'/deep' * 60}/w.pt", f"{'_deep' * 60}_w.pt"[-120:]),
        ("folder/mine.py:Encoder", "mine.py_Encoder"),
    ],
)
def test_an_argument_of_a_system_makes_no_folders_of_its_own(
    system: str, name: str, tmp_path: Path
) -> None:
    folder = cell_folder(tmp_path, Cell(system=system, task="t", protocol="linear"), "f" * 64)
    assert folder.relative_to(tmp_path).parts == ("t", name, "linear-1-seed0-ffffffff")
    folder.mkdir(parents=True)
