"""Cells from records, and from tables of cells that were kept without them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas.testing import assert_frame_equal

from lape_bench.core.errors import UserError
from lape_bench.core.paths import sha256
from lape_bench.records.predictions import PredictionsFile, read_predictions
from lape_bench.records.record import find_records, read_record, write_record
from lape_bench.report.leaderboard import MIXED_NOTE, footnotes, leaderboard
from lape_bench.results import load
from lape_bench.results.cells import COLUMNS, NEWER_COLUMNS, by_metric, write_cells
from lape_bench.results.load import load_results
from tests.lape_bench.conftest import Bench
from tests.lape_bench.report.test_leaderboard import write, write_scores


def kept(out: Path, name: str) -> Path:
    """What `bench report --format cells` writes of a folder."""
    cells = load_results([out]).cells
    path = out.parent / name
    path.write_text(write_cells(cells))
    return path


def test_a_table_of_cells_gives_the_board_of_its_records(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path / "records", seed)
    table = kept(tmp_path / "records", "cells.csv")
    boards = [leaderboard(load_results([source]).cells) for source in (tmp_path / "records", table)]
    assert_frame_equal(*boards)


def test_settings_stand_in_the_system_s_name_as_on_the_command_line_and_as_data(
    tmp_path: Path,
) -> None:
    write(tmp_path, 0, settings={"teacher": {"corpus": ["a", "b"]}, "clusters": 8})
    row = load_results([tmp_path]).cells.iloc[0]
    assert row["system"] == "s (clusters=8, teacher.corpus=a,b)"
    assert row["name"] == "s"
    assert json.loads(row["settings"]) == {"clusters": 8, "teacher.corpus": ["a", "b"]}


def test_sources_are_joined_and_of_a_cell_in_two_the_later_counts(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path / "old", seed)
    table = kept(tmp_path / "old", "old.csv")
    cells = pd.read_csv(table)
    cells["accuracy"] = 0.0
    cells.to_csv(table, index=False)
    newer = [write(tmp_path / "new", seed) for seed in (1, 2)]
    results = load_results([tmp_path / "new", table])  # a record counts before a line of a table
    joined = results.cells
    assert not results.problems
    assert dict(zip(joined["seed"], joined["accuracy"], strict=True)) == {
        0: 0.0,
        1: newer[0],
        2: newer[1],
    }


@pytest.mark.parametrize(
    ("content", "named"),
    [(b"a,b\n1,2\n", "system"), (b"", "cells"), (b"\xff\xfe\x00", "cells")],
    ids=["other columns", "empty", "not text"],
)
def test_a_file_that_is_no_table_of_cells_is_refused(
    content: bytes, named: str, tmp_path: Path
) -> None:
    path = tmp_path / "cells.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=named):
        load_results([path])


def test_a_cell_that_stands_twice_in_a_table_counts_once_and_is_told_by_its_line(
    tmp_path: Path,
) -> None:
    accuracy = write(tmp_path / "records", 0)
    path = kept(tmp_path / "records", "cells.csv")
    cells = pd.read_csv(path)
    pd.concat([cells.assign(accuracy=0.0), cells]).to_csv(path, index=False)
    results = load_results([path])
    assert results.cells["accuracy"].tolist() == [pytest.approx(accuracy)]
    assert results.problems == [f"{path}, line 2: a later line holds the same cell"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"metric": "luck"}, "'luck'"),
        ({"metric": "roc_auc"}, "is not a metric of this release for 3 classes"),
        ({"classes": ("a", "b")}, "predictions of other classes than its task"),
    ],
)
def test_a_record_that_cannot_be_scored_is_left_out_by_name(
    change: dict[str, object], reason: str, tmp_path: Path, bench: Bench
) -> None:
    write(tmp_path, 0)
    ((folder, record),) = find_records(tmp_path)[0]
    assert record.task is not None
    write(tmp_path, 1)
    write_record(folder, record.model_copy(update={"task": record.task.model_copy(update=change)}))
    results = load_results([tmp_path])
    (problem,) = results.problems
    assert str(folder) in problem
    assert reason in problem
    assert len(results.cells) == 1
    assert bench("report", "--out", str(tmp_path), "--html", str(tmp_path / "p.html"))[0] == 0


def test_a_diagnosis_is_never_taken_for_a_metric(tmp_path: Path) -> None:
    write(tmp_path, 0, diagnosis={"roc_auc": 5.0, "purity": 0.5})
    (row,) = load_results([tmp_path]).cells.to_dict("records")
    assert (row["purity"], np.isnan(row["roc_auc"])) == (0.5, True)


def test_a_column_that_is_read_later_is_checked_with_the_others(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, seed)
    folder, record = find_records(tmp_path)[0][0]
    table = pq.read_table(folder / "predictions.parquet")
    numbers = pa.array(range(len(table)), pa.int64())
    pq.write_table(
        table.drop_columns("group").append_column("group", numbers), folder / "predictions.parquet"
    )
    digest = sha256(folder / "predictions.parquet")
    write_record(folder, record.model_copy(update={"predictions_sha256": digest}))
    results = load_results([tmp_path])
    assert len(leaderboard(results.cells, results.predictions)) == 1
    assert "a column 'group' with types that no run writes" in results.problems[0]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("system", "red \x1b[31m"),
        ("settings", '{"a": "\u202e"}'),
        ("accuracy", "high"),
        ("accuracy", ""),
        ("encoder_parameters", "x"),
        ("seconds", "inf"),
        ("metric", "luck"),
        ("manifest_hash", "m/1"),
        ("card_version", ""),
        ("protocol_version", "1.5"),
        ("provenance_hash", "no hash"),
        ("validation", "2"),
        ("purity", "high"),
        ("settings", "width=3"),
        ("settings", ""),
        ("accuracy", "97.2"),
        ("accuracy", "-0.1"),
        ("labels", "0"),
        ("folds_of_task", "0"),
        ("parameters", "-1"),
        ("data", "fake"),
        ("system_version", "x"),
        ("seed", "9" * 20),
    ],
)
def test_a_cell_with_a_value_that_no_report_writes_is_refused_by_its_line(
    column: str, value: str, tmp_path: Path
) -> None:
    for seed in (0, 1):
        write(tmp_path / "records", seed, diagnosis={"purity": 0.5})
    path = kept(tmp_path / "records", "cells.csv")
    cells = pd.read_csv(path, dtype=str)
    cells.loc[1, column] = value
    cells.to_csv(path, index=False)
    with pytest.raises(UserError, match=f"line 3: '{column}' is"):
        load_results([path])


@pytest.mark.parametrize("column", [name for name in COLUMNS if name not in NEWER_COLUMNS])
def test_a_table_without_a_column_is_refused_by_its_name(column: str, tmp_path: Path) -> None:
    write(tmp_path / "records", 0)
    path = kept(tmp_path / "records", "cells.csv")
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(UserError, match=f"has no column '{column}'"):
        load_results([path])


def test_a_table_of_before_a_column_existed_is_read_without_its_values(tmp_path: Path) -> None:
    write(tmp_path / "records", 0)
    path = kept(tmp_path / "records", "cells.csv")
    labels = {"training_labels": np.nan, "selection_labels": np.nan}
    before = load_results([path]).cells.assign(**labels)
    pd.read_csv(path).drop(columns=NEWER_COLUMNS).to_csv(path, index=False)
    pd.testing.assert_frame_equal(load_results([path]).cells, before)


def write_two_classes(out: Path, seed: int, logits: list[float], labels: list[int]) -> None:
    """Write a record of the task "pairs", of two classes, with these log-odds."""
    odds = np.array(logits)
    scores = -np.logaddexp(0, np.stack([odds, -odds], axis=1)).astype(np.float32)
    write_scores(out, np.array(labels), scores, seed, task="pairs", classes=("no", "yes"))


def test_of_two_classes_the_area_under_the_roc_curve_is_recomputed_and_of_others_it_is_missing(
    tmp_path: Path,
) -> None:
    write_two_classes(tmp_path, 0, [3.0, 1.0, 2.0, 0.5], [1, 0, 1, 1])
    write(tmp_path, 1)
    cells = load_results([tmp_path]).cells.set_index("task")
    assert cells.loc["pairs", "roc_auc"] == pytest.approx(2 / 3)
    assert np.isnan(cells.loc["t", "roc_auc"])


def test_scores_are_read_for_two_classes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 0)

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(PredictionsFile, "predictions", refuse)
    assert len(load_results([tmp_path]).cells) == 1
    write_two_classes(tmp_path, 1, [1.0, 2.0], [0, 1])
    with pytest.raises(AssertionError):
        load_results([tmp_path])


def test_cells_are_ranked_by_any_metric_that_they_have(tmp_path: Path) -> None:
    write_two_classes(tmp_path, 0, [3.0, 1.0, 2.0, 0.5], [1, 0, 1, 1])
    write(tmp_path, 1)
    cells = load_results([tmp_path]).cells
    for metric in ("accuracy", "balanced_accuracy", "macro_f1"):
        board = leaderboard(by_metric(cells, metric))
        expected = dict(zip(cells["task"], cells[metric], strict=True))
        assert dict(zip(board["task"], board["score"], strict=True)) == pytest.approx(expected)
    board = leaderboard(by_metric(cells, "roc_auc"))
    assert board["task"].tolist() == ["pairs"]
    assert board["score"].tolist() == pytest.approx([2 / 3])


def test_a_metric_that_is_unknown_or_that_no_cell_has_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 0)
    cells = load_results([tmp_path]).cells
    with pytest.raises(UserError, match=r"'macro_f2'.*did you mean 'macro_f1'"):
        by_metric(cells, "macro_f2")
    with pytest.raises(
        UserError, match="no cell has the metric 'roc_auc'; roc_auc for tasks of two"
    ):
        by_metric(cells, "roc_auc")


def test_cells_of_records_and_of_tables_have_the_types_of_their_columns(tmp_path: Path) -> None:
    write(tmp_path / "records", 0, diagnosis={"purity": 0.5})
    write(tmp_path / "records", 1)
    table = kept(tmp_path / "records", "cells.csv")
    expected = {name: column.dtype for name, column in COLUMNS.items()} | {"purity": "float64"}
    for source in (tmp_path / "records", table):
        assert load_results([source]).cells.dtypes.astype(str).to_dict() == expected


def test_a_system_called_none_and_a_provenance_come_back_as_they_were(
    tmp_path: Path,
) -> None:
    write(tmp_path / "records", 0, system="None")
    write(tmp_path / "records", 1, provenance={"weights": "new"})
    table = kept(tmp_path / "records", "cells.csv")
    both = load_results([tmp_path / "records", table])
    assert sorted(both.cells["system"]) == ["None", "s"]  # each counts once
    assert_frame_equal(both.cells, load_results([table]).cells)


def test_a_system_that_learns_from_a_corpus_of_tasks_is_one_system_on_all_of_them(
    tmp_path: Path,
) -> None:
    states = {"a": "1" * 64, "b": "2" * 64, "c": "3" * 64}
    for task in "abcd":
        write(tmp_path, 0, task=task, manifest_hash=states.get(task, "4" * 64))
    for folder, record in find_records(tmp_path)[0]:
        others = {entry: state for entry, state in states.items() if entry != record.cell.task}
        settings = {"teacher_settings": {"corpus": [*states]}}
        write_record(folder, record.model_copy(update={"corpora": others, "settings": settings}))
    assert load_results([tmp_path]).cells["provenance_hash"].nunique() == 1
    folder, record = find_records(tmp_path)[0][0]
    write_record(folder, record.model_copy(update={"corpora": {**record.corpora, "c": "5"}}))
    assert load_results([tmp_path]).cells["provenance_hash"].nunique() == 2


def test_a_teacher_of_another_version_is_another_system(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, seed, system_versions={"teacher": 1 + (seed == 2)})
    board = leaderboard(load_results([tmp_path]).cells)
    assert sorted(board["seeds"]) == [1, 2]


def test_reference_seeds_beside_own_ones_are_named_and_the_worst_contamination_counts(
    tmp_path: Path,
) -> None:
    for seed in range(3):
        write(tmp_path / ("own" if seed == 0 else "others"), seed)
    cells = load_results([tmp_path / "own"], [tmp_path / "others"]).cells
    cells.loc[cells["seed"] == 2, "contamination"] = "labels"
    board = leaderboard(cells.sort_values("seed"))
    assert board["contamination"].tolist() == ["labels"]
    assert board[["reference", "reference_seeds"]].values.tolist() == [[False, 2]]
    assert f"{MIXED_NOTE}: 2 of s on t, linear" in footnotes(board)
    alone = leaderboard(load_results([tmp_path / "own"]).cells)
    assert not any(MIXED_NOTE in line for line in footnotes(alone))


def test_large_seeds_come_back_from_a_table_as_they_were(tmp_path: Path) -> None:
    seeds = [2**53, 2**53 + 1, 2**63 - 1025]
    for seed in seeds:
        write(tmp_path / "records", seed)
    assert sorted(load_results([kept(tmp_path / "records", "cells.csv")]).cells["seed"]) == seeds


def test_records_read_by_several_processes_are_those_read_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(3):
        write(tmp_path, seed)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "record.json").write_text("{")
    one = load_results([tmp_path])
    monkeypatch.setattr(load, "PARALLEL_FROM", 1)
    several = load_results([tmp_path])
    assert_frame_equal(one.cells, several.cells)
    assert one.problems == several.problems
    for number, of_cell in one.predictions.items():
        assert several.predictions[number][:2] == of_cell[:2]
        assert np.array_equal(several.predictions[number].predicted, of_cell.predicted)


def test_an_outcome_is_what_the_predictions_say_of_each_clip(tmp_path: Path) -> None:
    accuracy = write(tmp_path, 0)
    results = load_results([tmp_path])
    (of_cell,) = results.predictions.values()
    assert np.mean(of_cell.labels == of_cell.predicted) == pytest.approx(accuracy)
    predictions = read_predictions(of_cell.folder, read_record(of_cell.folder))
    assert np.array_equal(of_cell.labels, predictions.labels)
    assert np.array_equal(of_cell.predicted, predictions.log_probabilities.argmax(axis=1))


def test_of_a_cell_that_was_run_twice_the_later_one_counts(tmp_path: Path) -> None:
    write(tmp_path / "a", 0)
    accuracy = write(tmp_path / "b", 0, diagnosis={"purity": 0.5})
    for name, day in (("a", 2), ("b", 3)):
        ((folder, record),) = find_records(tmp_path / name)[0]
        write_record(folder, record.model_copy(update={"finished_at": f"2026-01-0{day}"}))
    assert load_results([tmp_path]).cells["accuracy"].tolist() == [accuracy]
    ((folder, record),) = find_records(tmp_path / "a")[0]
    write_record(folder, record.model_copy(update={"finished_at": "2026-01-04"}))
    assert load_results([tmp_path]).cells["accuracy"].tolist() != [accuracy]


def test_results_of_some_tasks_keep_their_predictions(tmp_path: Path) -> None:
    write(tmp_path, 0)
    ((folder, record),) = find_records(tmp_path)[0]
    other = record.model_copy(update={"cell": record.cell.model_copy(update={"task": "esc10"})})
    write_record(tmp_path / "esc10" / "x", other)
    shutil.copy(folder / "predictions.parquet", tmp_path / "esc10" / "x")
    results = load_results([tmp_path])
    assert len(results.cells) == 2
    chosen = load.of_tasks(results, ["esc10"])
    assert chosen.cells["task"].tolist() == ["esc10"]
    assert chosen.predictions[0].folder == tmp_path / "esc10" / "x"
    with pytest.raises(
        UserError, match=r"no finished cell of the task 'esc1'.*did you mean 'esc10'"
    ):
        load.of_tasks(results, ["esc1"])
