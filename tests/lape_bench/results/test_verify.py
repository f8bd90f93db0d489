"""Records held against their predictions and against today: what is wrong, what is outdated, what holds."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lape_bench import metrics
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_cell
from lape_bench.records.predictions import read_predictions, write_predictions
from lape_bench.records.record import (
    Cell,
    RunRecord,
    cell_folder,
    identity_of,
    read_record,
    write_record,
)
from lape_bench.results.verify import VerificationResult, verify
from lape_bench.runtime.device import Compute
from tests.lape_bench.conftest import Bench

Change = Callable[[Path, RunRecord], None]


@pytest.fixture(scope="module")
def recorded(synthetic_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real record of a quick system; read only."""
    out = tmp_path_factory.mktemp("recorded")
    cell = Cell(system="log-mel-statistics", task="synthetic-sounds", protocol="linear")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LAPE_BENCH_HOME", str(synthetic_home))
        run_cell(cell, RunOptions(out=out, compute=Compute(device="cpu")), Progress(quiet=True))
    return out


@pytest.fixture
def results(recorded: Path, synthetic: Path, tmp_path: Path) -> Path:
    """A copy of the record, and what was run is prepared."""
    out = tmp_path / "results"
    shutil.copytree(recorded, out)
    # Tests run from code that may differ from its commit; that is not what is tested here.
    rewrite(out, environment={"commit": "0" * 40})
    return out


@pytest.fixture
def unprepared(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task of the record is not prepared here."""
    monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "another home"))


def folder_of(out: Path) -> Path:
    (path,) = out.rglob("record.json")
    return path.parent


def rewrite(out: Path, **update: object) -> None:
    """Write the record anew with other values, sealed as a program would."""
    folder = folder_of(out)
    write_record(folder, read_record(folder).model_copy(update=update))


def run_as(out: Path, **update: object) -> Path:
    """Replace the record by one of another cell, with the identity and folder that it has; return that folder."""
    folder = folder_of(out)
    elsewhere = copied_as(out, out.with_name("changed"), **update)
    shutil.rmtree(folder)
    changed = out / elsewhere.relative_to(out.with_name("changed"))
    shutil.move(elsewhere, changed)
    return changed


def copied_as(out: Path, into: Path, **update: object) -> Path:
    """Copy the record as one of another cell, with the identity and folder that it has; return that folder."""
    folder = folder_of(out)
    record = read_record(folder).model_copy(update=update)
    record = record.model_copy(update={"identity": identity_of(record)})
    copy = cell_folder(into, record.cell, record.identity)
    shutil.copytree(folder, copy)
    write_record(copy, record)
    return copy


def predictions(out: Path, change: Callable[[list[str], np.ndarray, np.ndarray], None]) -> None:
    """Write other predictions and a record that names them."""
    folder = folder_of(out)
    record = read_record(folder)
    read = read_predictions(folder, record)
    ids, labels, rows = read.clip_ids.to_pylist(), read.labels.copy(), read.log_probabilities.copy()
    change(ids, labels, rows)
    rewrite(out, predictions_sha256=write_predictions(folder, ids, labels, rows, read.classes))


def found(out: Path, grade: str) -> list[str]:
    return [each.what for each in seen(out).findings if each.grade == grade]


def seen(out: Path, version: int | None = 1) -> VerificationResult:
    return verify(out, lambda name: version)


def test_an_untouched_record_holds(results: Path) -> None:
    assert seen(results) == VerificationResult(1, 0, (), ())


def test_a_score_that_does_not_follow_from_the_predictions_is_wrong(results: Path) -> None:
    metrics = read_record(folder_of(results)).metrics
    rewrite(results, metrics=metrics | {"accuracy": 1.0, "luck": 1.0})
    told, unknown = found(results, "wrong")
    assert f"its predictions give {metrics['accuracy']:.6f}" in told
    assert "luck" in unknown


def test_a_record_that_does_not_tell_its_scores_is_wrong(results: Path) -> None:
    rewrite(results, metrics={})
    assert "it has no accuracy" in found(results, "wrong")


def swap_ids(ids: list[str], labels: np.ndarray, rows: np.ndarray) -> None:
    ids[0] = "another clip"


def swap_classes(ids: list[str], labels: np.ndarray, rows: np.ndarray) -> None:
    labels[0] = (labels[0] + 1) % rows.shape[1]


def repeat(ids: list[str], labels: np.ndarray, rows: np.ndarray) -> None:
    ids[0] = ids[1]


def shift(ids: list[str], labels: np.ndarray, rows: np.ndarray) -> None:
    rows += 1


def lose(ids: list[str], labels: np.ndarray, rows: np.ndarray) -> None:
    rows[0] = -np.inf


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (swap_ids, "test clips are not those of the task, such as another clip"),
        (swap_classes, "another class for"),
        (repeat, "a clip twice"),
        (shift, "do not sum to one"),
        (lose, "without a finite score"),
    ],
)
def test_predictions_that_no_run_could_have_made_are_wrong(
    change: Callable[[list[str], np.ndarray, np.ndarray], None], told: str, results: Path
) -> None:
    predictions(results, change)
    assert any(told in what for what in found(results, "wrong"))


def test_classes_named_as_predicted_that_are_not_the_most_likely_are_wrong(results: Path) -> None:
    path = folder_of(results) / "predictions.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("predicted")
    pq.write_table(table.set_column(place, "predicted", table["label"]), path)
    rewrite(results, predictions_sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    assert any("not the most likely" in what for what in found(results, "wrong"))


def test_clips_that_went_missing_are_wrong(results: Path) -> None:
    folder = folder_of(results)
    read = read_predictions(folder, read_record(folder))
    kept = read.clip_ids.to_pylist()[1:], read.labels[1:], read.log_probabilities[1:]
    rewrite(results, predictions_sha256=write_predictions(folder, *kept, read.classes))
    assert any("and tested" in what for what in found(results, "wrong"))


@pytest.mark.parametrize("lost", [False, True])
def test_a_clip_with_another_group_than_in_the_task_is_wrong(lost: bool, results: Path) -> None:
    folder = folder_of(results)
    read = read_predictions(folder, read_record(folder))
    assert read.groups is not None
    named: list[str | None] = read.groups.to_pylist()
    groups = [None] * len(named) if lost else ["another", *named[1:]]
    clip_ids = read.clip_ids.to_pylist()
    digest = write_predictions(
        folder, clip_ids, read.labels, read.log_probabilities, read.classes, groups
    )
    rewrite(results, predictions_sha256=digest)
    (problem,) = found(results, "wrong")
    example = min(clip_ids) if lost else clip_ids[0]
    assert problem == f"its clips have other groups or folds than in the task, such as {example}"


def test_two_records_of_one_manifest_with_other_groups_are_told_without_the_task(
    results: Path, unprepared: None
) -> None:
    first = folder_of(results)
    record = read_record(first)
    other = copied_as(results, results, cell=record.cell.model_copy(update={"seed": 1}))
    read = read_predictions(other, read_record(other))
    rows = read.log_probabilities[:, ::-1].copy()  # another system's, since copies are doubtful
    digest = write_predictions(
        other,
        read.clip_ids.to_pylist(),
        read.labels,
        rows,
        read.classes,
        [f"own {n}" for n in range(len(rows))],
    )
    changes = {"predictions_sha256": digest, "metrics": metrics.score(rows, read.labels)}
    write_record(other, read_record(other).model_copy(update=changes))
    (problem,) = found(results, "wrong")
    assert "its test clips, or their classes, groups or folds, are not those of" in problem


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": "real"}, "it names real data, and its task has synthetic data"),
        ({"metric": "roc_auc"}, "not a metric of this release for 8 classes"),
    ],
)
def test_facts_of_the_task_that_do_not_hold_are_wrong(
    change: dict[str, object], reason: str, results: Path
) -> None:
    task = read_record(folder_of(results)).task
    assert task is not None
    run_as(results, task=task.model_copy(update=change))
    assert any(reason in what for what in found(results, "wrong"))


def test_another_number_of_labels_than_labeled_clips_is_wrong(results: Path) -> None:
    rewrite(results, labels_for_training=3)
    (problem,) = found(results, "wrong")
    assert "it names 3 labels for training" in problem


@pytest.mark.parametrize("name", ["record.json", "predictions.parquet"])
def test_a_file_that_was_touched_is_wrong_and_the_others_are_verified(
    name: str, results: Path
) -> None:
    shutil.copytree(results, results / "copy")
    touched = next((results / "copy").rglob(name))
    touched.write_bytes(touched.read_bytes().replace(b"a", b"b"))
    (finding,) = (each for each in seen(results).findings if each.grade == "wrong")
    assert finding.folder == touched.parent
    assert name in finding.what


def test_a_record_in_another_cell_s_folder_is_wrong(results: Path) -> None:
    folder = folder_of(results)
    folder.rename(folder.with_name("linear-0.1-seed7"))
    assert any("not that of its cell" in what for what in found(results, "wrong"))


@pytest.mark.parametrize("level", [1, 2], ids=["system", "task"])
def test_a_record_below_another_system_or_task_is_wrong(level: int, results: Path) -> None:
    parent = folder_of(results).parents[level - 1]
    parent.rename(parent.with_name("another"))
    assert any("not that of its cell" in what for what in found(results, "wrong"))


def test_a_record_that_tells_of_another_task_than_its_cell_s_is_wrong(results: Path) -> None:
    task = read_record(folder_of(results)).task
    assert task is not None
    rewrite(results, task=task.model_copy(update={"variant": "other"}))
    assert any("facts are of synthetic-sounds@other" in what for what in found(results, "wrong"))


def test_a_record_ranked_by_what_is_no_metric_is_wrong(results: Path) -> None:
    task = read_record(folder_of(results)).task
    assert task is not None
    rewrite(results, task=task.model_copy(update={"metric": "luck"}))
    assert any("ranked by" in what and "luck" in what for what in found(results, "wrong"))


def test_predictions_that_have_lost_their_record_are_wrong(results: Path) -> None:
    folder = folder_of(results)
    (folder / "record.json").unlink()
    (told,) = found(results, "wrong")
    assert f"{folder} holds no record.json" in told


@pytest.mark.parametrize(
    ("update", "told"),
    [
        ({"protocol_version": 0}, "protocol version 0, now 2"),
        ({"system_version": 7}, "system version 7, now 1"),
        ({"environment": {"commit": "1234-dirty-56"}}, "differs from its commit"),
    ],
    ids=str,
)
def test_what_would_come_out_otherwise_today_is_outdated_and_not_wrong(
    update: dict[str, object], told: str, results: Path
) -> None:
    run_as(results, **update)
    assert any(told in what for what in found(results, "outdated"))
    assert not found(results, "wrong")


@pytest.mark.parametrize(
    ("update", "told"),
    [
        ({"card_version": 9}, "card version 9, now"),
        ({"classes": ("a", "b")}, "other classes now"),
        ({"manifest_hash": "0" * 64}, "manifest 000000000000, prepared here"),
        ({"folds": 3}, "other folds now"),
        ({"metric": "macro_f1"}, "another metric"),
    ],
    ids=str,
)
def test_a_task_that_has_changed_since_is_told(
    update: dict[str, object], told: str, results: Path
) -> None:
    task = read_record(folder_of(results)).task
    assert task is not None
    rewrite(results, task=task.model_copy(update=update))
    assert any(told in what for what in found(results, "outdated"))


def test_a_task_that_is_not_prepared_is_named_and_nothing_is_held_against_it(
    results: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAPE_BENCH_HOME", str(cache))
    assert seen(results) == VerificationResult(1, 0, ("synthetic-sounds",), ())


def test_a_system_that_is_not_installed_is_told_once_looked_for(results: Path) -> None:
    asked = []

    def version(name: str) -> int:
        asked.append(name)
        raise UserError(f"there is no system '{name}'")

    shutil.copytree(results, results / "copy")
    outdated = [each.what for each in verify(results, version).findings]
    assert sum("cannot be loaded here: there is no system" in what for what in outdated) == 2
    assert asked == ["log-mel-statistics"]


def test_a_cell_that_stands_twice_is_told(results: Path) -> None:
    shutil.copytree(results, results / "copy")
    assert any("holds the same cell" in what for what in found(results, "outdated"))


def test_failed_records_are_counted(results: Path) -> None:
    rewrite(results, status="failed", error="out of luck")
    assert seen(results) == VerificationResult(0, 1, (), ())


def test_the_command_s_exit_code_tells_a_machine(results: Path, bench: Bench) -> None:
    code, told, _ = bench("verify", str(results))
    assert (code, told.count("\n")) == (0, 2)
    assert "not checked, since nothing can confirm them: selection, validation" in told
    assert "1 finished and 0 failed records; none wrong, none outdated" in told
    run_as(results, protocol_version=0)
    assert bench("verify", str(results))[0] == 0
    code, told, _ = bench("verify", str(results), "--strict")
    assert code == 1
    assert f"outdated: {folder_of(results)}: protocol version 0, now 2" in told
    path = folder_of(results) / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    code, told, _ = bench("verify", str(results))
    assert code == 1
    assert "changed after it was written" in told
    (results / "empty").mkdir()
    for place in ("nowhere", "empty"):
        code, _, error = bench("verify", str(results / place))
        assert (code, error.count("\n")) == (2, 1)


def test_a_folder_of_a_cell_has_the_name_that_is_looked_for(results: Path) -> None:
    record = read_record(folder_of(results))
    assert cell_folder(results, record.cell, record.identity) == folder_of(results)


@pytest.mark.parametrize(
    "update",
    [
        {"seed": 7},
        {"fold": 3},
        {"labels": "50%"},
        {"protocol": "knn"},
        {"task": "synthetic-sounds@other"},
        {"system": "supervised"},
    ],
    ids=str,
)
def test_a_cell_with_the_identity_of_another_is_wrong(
    update: dict[str, object], results: Path
) -> None:
    cell = read_record(folder_of(results)).cell
    rewrite(results, cell=cell.model_copy(update=update))
    assert any("its identity does not follow" in what for what in found(results, "wrong"))


@pytest.mark.parametrize(
    "update",
    [
        {"settings": {"linear": {}}},
        {"system_versions": {"delores-m": 1}},
        {"provenance": {"file": "another"}},
        {"corpora": {"recordings": "0" * 64}},
        {"identity": "ab" * 32},
    ],
    ids=str,
)
def test_an_identity_that_does_not_follow_from_the_record_is_wrong(
    update: dict[str, object], results: Path
) -> None:
    rewrite(results, **update)
    assert any("its identity does not follow" in what for what in found(results, "wrong"))


def test_settings_of_a_cell_that_were_not_those_of_the_run_are_wrong(results: Path) -> None:
    record = read_record(folder_of(results))
    name, value = next(iter(record.settings.items()))
    rewrite(results, cell=record.cell.model_copy(update={"settings": {name: "another"}}))
    assert any(f"its cell has {name} = another" in what for what in found(results, "wrong"))
    rewrite(results, cell=record.cell.model_copy(update={"settings": {name: value}}))
    assert not found(results, "wrong")


def test_predictions_that_two_seeds_share_are_doubtful(results: Path) -> None:
    cell: Cell = read_record(folder_of(results)).cell
    copied_as(results, results, cell=cell.model_copy(update={"seed": 1}))
    assert not found(results, "wrong")
    (what,) = found(results, "doubtful")
    assert "the same predictions" in what


@pytest.mark.parametrize(
    "name", ["evil.py:E", "folder/evil.py:E", "hear:evil", "checkpoint:evil.pt", "torchaudio:EVIL"]
)
def test_no_code_that_a_record_names_is_run(
    name: str, results: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (tmp_path, tmp_path / "folder"):
        folder.mkdir(exist_ok=True)
        (folder / "evil.py").write_text("from pathlib import Path\nPath('RAN').write_text('x')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    cell = read_record(folder_of(results)).cell
    folder = run_as(results, cell=cell.model_copy(update={"system": name}))
    for command in (
        ["verify", str(results)],
        ["report", "--out", str(results)],
        ["show", str(folder)],
    ):
        bench(*command)
        assert not list(tmp_path.rglob("RAN"))
    code, told, _ = bench("verify", str(results))
    assert (code, "wrong: " in told) == (0, False)


def test_a_version_that_only_the_code_of_a_record_would_tell_is_not_compared(
    results: Path,
) -> None:
    assert seen(results, version=None).versions_not_compared == ("log-mel-statistics",)


def test_a_task_that_was_prepared_again_is_not_called_unprepared(results: Path) -> None:
    task = read_record(folder_of(results)).task
    assert task is not None
    run_as(results, task=task.model_copy(update={"manifest_hash": "0" * 64}))
    assert seen(results).not_compared == ()
    assert any("prepared here" in what for what in found(results, "outdated"))
