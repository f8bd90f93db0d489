"""The leaderboard, from predictions on disk to text."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import accuracy_score

from lape_bench.core.errors import UserError
from lape_bench.records.predictions import write_predictions
from lape_bench.records.record import (
    ArtifactUse,
    Cell,
    ParameterCounts,
    RunRecord,
    StageCost,
    TaskFacts,
    cell_folder,
    identity,
    write_record,
)
from lape_bench.report.leaderboard import (
    as_csv,
    as_data,
    as_markdown,
    footnotes,
    format_rows,
    leaderboard,
)
from lape_bench.results.cells import on_validation
from lape_bench.results.load import load_results

CLASSES = ("a", "b", "c")


def write(out: Path, seed: int, fold: int = 0, folds: int = 1, **how: object) -> float:
    """Write a record with random predictions and a wrong metric of its own; return its accuracy."""
    random = np.random.default_rng([seed, fold, len(str(how))])
    labels = random.integers(0, 3, 50)
    scores = random.normal(size=(50, 3)).astype(np.float32)
    scores[np.arange(50), labels] += 1
    return write_scores(out, labels, scores, seed, fold, folds, **how)


def write_scores(
    out: Path,
    true_labels: NDArray[np.int64],
    scores: NDArray[np.float32],
    seed: int,
    fold: int = 0,
    folds: int = 1,
    classes: tuple[str, ...] = CLASSES,
    groups: Sequence[str | None] | None = None,
    **how: object,
) -> float:
    """Write a record with these predictions; the clips' ids are their numbers."""
    cell_values = {"system": "s", "task": "t", "protocol": "linear", "seed": seed, "fold": fold}
    task_values = {"manifest_hash": "m" * 64, "data": "real", "metric": "accuracy"}
    more: dict[str, Any] = {"stages": (), "artifacts": (), "diagnosis": {}, "provenance": {}}
    more |= {"validation": None, "system_versions": {}}
    for key, value in how.items():
        place = next((each for each in (task_values, more) if key in each), cell_values)
        place[key] = value
    cell = Cell.model_validate(cell_values)
    name = identity({**cell_values, **task_values})
    folder = cell_folder(out, cell, name)
    record = RunRecord(
        cell=cell,
        identity=name,
        settings={},
        system_version=1,
        status="finished",
        metrics={"accuracy": 0.999},
        predictions_sha256=write_predictions(
            folder,
            [str(n) for n in range(len(true_labels))],
            true_labels,
            scores,
            classes,
            groups,
        ),
        parameters=ParameterCounts(encoder=10, inference=13, training=20),
        **more,
        task=TaskFacts.model_validate(
            task_values
            | {"name": "t", "variant": "", "card_version": 1, "classes": classes, "folds": folds}
            | {"clips": {}, "skipped": 0}
        ),
    )
    write_record(folder, record)
    return float(accuracy_score(true_labels, scores.argmax(axis=1)))


def board_of(out: Path) -> pd.DataFrame:
    results = load_results([out])
    assert not results.problems
    return leaderboard(results.cells)


def test_scores_are_recomputed_from_predictions_and_summed_up_over_seeds(tmp_path: Path) -> None:
    scores = [write(tmp_path, seed) for seed in range(3)]
    row = board_of(tmp_path).iloc[0]
    assert row["score"] == pytest.approx(np.mean(scores))
    assert row["std"] == pytest.approx(np.std(scores, ddof=1))
    low, high = stats.t.interval(0.95, 2, np.mean(scores), stats.sem(scores))
    assert row["interval"] == pytest.approx((high - low) / 2)
    assert (row["seeds"], row["folds"], row["parameters"]) == (3, 1, 13)


def test_on_validation_settings_are_compared_by_the_scores_there_and_not_on_test(
    tmp_path: Path,
) -> None:
    for name, values in {"better on test": (0.2, 0.4), "better there": (0.5, 0.7)}.items():
        for seed, value in enumerate(values):
            labels = np.arange(30) % 3
            scores = np.eye(3, dtype=np.float32)[(labels + (name == "better there")) % 3]
            write_scores(tmp_path, labels, scores, seed, system=name, validation=value)
    write(tmp_path, 0, system="neither", protocol="knn")
    cells = load_results([tmp_path]).cells
    on_test = leaderboard(cells).query("protocol == 'linear'")
    assert on_test["system"].tolist() == ["better on test", "better there"]
    board = leaderboard(on_validation(cells))
    assert board["system"].tolist() == ["better there", "better on test"]
    assert board["score"].tolist() == pytest.approx([0.6, 0.3])
    assert board["std"].tolist() == pytest.approx([np.std([0.5, 0.7], ddof=1)] * 2)
    table = tmp_path / "cells.csv"
    cells.to_csv(table, index=False)
    pd.testing.assert_frame_equal(leaderboard(on_validation(load_results([table]).cells)), board)
    cells.assign(validation=1.5).to_csv(table, index=False)
    with pytest.raises(UserError, match=r"line 2: 'validation' is '1\.5'"):
        load_results([table])


def test_results_without_a_score_on_validation_say_so(tmp_path: Path) -> None:
    write(tmp_path, 0)
    with pytest.raises(UserError, match="no cell has a score on validation"):
        on_validation(load_results([tmp_path]).cells)


def test_folds_are_averaged_within_a_seed_before_seeds_are_compared(tmp_path: Path) -> None:
    scores = [[write(tmp_path, seed, fold, 2) for fold in (1, 2)] for seed in (0, 1)]
    row = board_of(tmp_path).iloc[0]
    assert row["score"] == pytest.approx(np.mean(scores))
    assert row["std"] == pytest.approx(np.std(np.mean(scores, axis=1), ddof=1))


def test_scores_by_fold_stand_below_a_board_and_in_the_formats_of_machines(tmp_path: Path) -> None:
    scores = [[write(tmp_path, seed, fold, 3) for fold in (1, 2, 3)] for seed in (0, 1)]
    write(tmp_path, 2, 1, 3)  # this seed lacks folds, so that it does not count
    write(tmp_path, 0, 1, 3, system="half")
    write(tmp_path, 0, task="without folds")
    by_fold = np.mean(scores, axis=0)
    board = board_of(tmp_path)
    in_percent = ", ".join(f"{100 * score:.1f}" for score in by_fold)
    (line,) = [line for line in footnotes(board) if "by fold" in line]
    assert line == f"t, linear: % by fold: s {in_percent}"
    rows = {(row["task"], row["system"]): row["fold_scores"] for row in as_data(board)}
    assert rows == {
        ("t", "s"): pytest.approx(tuple(by_fold)),
        ("t", "half"): (),
        ("without folds", "s"): (),
    }
    read = pd.read_csv(io.StringIO(as_csv(board))).set_index(["task", "system"])
    written = read.loc[("t", "s"), "fold_scores"].split()
    assert [float(score) for score in written] == pytest.approx(by_fold)


def test_a_seed_that_lacks_a_fold_is_left_out_where_others_are_complete(tmp_path: Path) -> None:
    complete = [write(tmp_path, 0, fold, 2) for fold in (1, 2)]
    write(tmp_path, 1, 1, 2)
    row = board_of(tmp_path).iloc[0]
    assert row["score"] == pytest.approx(np.mean(complete))
    assert row["seeds"] == 1
    assert math.isnan(row["std"])


def test_seeds_that_are_left_out_are_told_in_a_note_and_in_the_formats_of_machines(
    tmp_path: Path,
) -> None:
    for seed, folds in [(3, (1, 2)), (4, (1,)), (5, (1, 2)), (6, (2,))]:
        for fold in folds:
            write(tmp_path, seed, fold, 2, labels="10%")
    write(tmp_path, 0, 1, 2, system="half")
    write(tmp_path, 1, 2, 2, system="half")
    board = board_of(tmp_path)
    assert footnotes(board)[0] == (
        "seeds that lack folds are not counted: 2 of s on t, linear, 10 % of labels"
    )
    rows = {row["system"]: (row["seed_numbers"], row["seeds_left_out"]) for row in as_data(board)}
    assert rows == {"s": ((3, 5), 2), "half": ((0, 1), 0)}
    read = pd.read_csv(io.StringIO(as_csv(board))).set_index("system")
    assert read.loc["s", ["seed_numbers", "seeds_left_out"]].tolist() == ["3 5", 2]


def test_seeds_with_other_folds_have_no_deviation(tmp_path: Path) -> None:
    for seed in (0, 1):
        write(tmp_path, seed, seed + 1, 5)
    row = board_of(tmp_path).iloc[0]
    assert not row["complete"]
    assert math.isnan(row["std"])
    assert math.isnan(row["interval"])


def test_missing_folds_are_shown(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 5)
    headings, rows = format_rows(board_of(tmp_path))
    assert dict(zip(headings, rows[0], strict=True))["folds"] == "1 of 5"


@pytest.mark.parametrize(
    "difference",
    [
        {"manifest_hash": "n" * 64},
        {"data": "synthetic"},
        {"labels": "10%"},
        {"protocol": "knn"},
        {"settings": {"width": 3}},
        {"task": "t@variant"},
    ],
    ids=str,
)
def test_what_cannot_be_compared_never_shares_a_row(
    difference: dict[str, object], tmp_path: Path
) -> None:
    write(tmp_path, 0)
    write(tmp_path, 1, **difference)
    board = board_of(tmp_path)
    assert list(board["seeds"]) == [1, 1]
    _, rows = format_rows(board)
    assert rows[0][:4] != rows[1][:4]


def test_other_weights_under_one_name_are_told_apart(tmp_path: Path) -> None:
    for seed, weights in enumerate(("old", "new")):
        write(tmp_path, seed, provenance={"weights": weights})
    _, rows = format_rows(leaderboard(load_results([tmp_path]).cells))
    assert len(rows) == 2
    assert all(row[3].startswith("s [version 1-") for row in rows)


def test_systems_are_ranked_best_first(tmp_path: Path) -> None:
    scores = {name: write(tmp_path, 0, system=name) for name in ("one", "three", "fifteen")}
    assert list(board_of(tmp_path)["system"]) == sorted(scores, key=lambda n: -scores[n])


def test_a_copied_cell_counts_once_and_is_named(tmp_path: Path) -> None:
    write(tmp_path / "here", 0)
    write(tmp_path / "there", 0)
    results = load_results([tmp_path])
    assert leaderboard(results.cells).iloc[0]["seeds"] == 1
    (problem,) = results.problems
    assert "here" in problem
    assert "that a later record holds too" in problem


def test_failed_and_damaged_cells_are_named_and_left_out(tmp_path: Path) -> None:
    write(tmp_path, 0)
    write(tmp_path, 1)
    damaged = sorted(tmp_path.rglob("predictions.parquet"))[1]
    damaged.write_bytes(b"x")
    failed = RunRecord(
        cell=Cell(system="s", task="t", protocol="linear", seed=7),
        identity="0",
        settings={},
        system_version=1,
        status="failed",
        error="out of luck",
    )
    write_record(tmp_path / "failed", failed)
    results = load_results([tmp_path])
    problems = results.problems
    assert len(results.cells) == 1
    assert any("seed 7) failed: out of luck" in problem for problem in problems)
    assert any(str(damaged) in problem for problem in problems)


def stages(**seconds: float) -> tuple[StageCost, ...]:
    return tuple(
        StageCost(name=name.replace("_", "-"), seconds=each, peak_memory_mib=1.0)
        for name, each in seconds.items()
    )


def minutes_of(out: Path) -> float:
    return float(board_of(out).iloc[0]["minutes"])


def test_minutes_are_of_learning_and_count_no_nested_stage_twice(tmp_path: Path) -> None:
    took = stages(audio=10, pre_training=60, pseudo_labels=30, fine_tuning=90, train=240, test=50)
    write(tmp_path, 0, stages=took)
    assert minutes_of(tmp_path) == pytest.approx(4.0)


def test_minutes_count_what_a_cached_stage_took_when_it_was_made(tmp_path: Path) -> None:
    # Made in this run, its time lies within that of "train"; found, it does not.
    made = ArtifactUse(kind="upstream", hash="a", seconds=100, found=False)
    found = ArtifactUse(kind="upstream", hash="a", seconds=100, found=True)
    write(tmp_path / "first", 0, stages=stages(train=180), artifacts=(made,))
    write(tmp_path / "later", 0, stages=stages(train=80), artifacts=(found,))
    assert minutes_of(tmp_path / "first") == minutes_of(tmp_path / "later") == pytest.approx(3.0)


def test_a_diagnosis_stands_beside_the_columns_and_replaces_none(tmp_path: Path) -> None:
    diagnosis = {"cluster_sizes": (3, 1), "purity": 0.25, "seed": 9.0, "seconds": 1e6}
    score = write(tmp_path, 0, stages=stages(train=60), diagnosis=diagnosis)
    frame = load_results([tmp_path]).cells
    assert frame["purity"].tolist() == [0.25]
    assert "cluster_sizes" not in frame
    assert (frame["seed"][0], frame["seconds"][0]) == (0, 60)
    assert frame["accuracy"][0] == pytest.approx(score)


def test_minutes_are_of_a_cell_and_not_of_all_cells_together(tmp_path: Path) -> None:
    for seed, seconds in enumerate((60, 120, 360)):
        write(tmp_path, seed, stages=stages(train=seconds))
    board = board_of(tmp_path)
    assert board.iloc[0]["minutes"] == pytest.approx((1 + 2 + 6) / 3)
    headings, rows = format_rows(board)
    assert dict(zip(headings, rows[0], strict=True))["minutes"] == "3.0"
    assert pd.read_csv(io.StringIO(as_csv(board)))["minutes"][0] == pytest.approx(3.0)


def test_minutes_are_of_the_cells_that_count(tmp_path: Path) -> None:
    for fold, seconds in ((1, 60), (2, 120)):
        write(tmp_path, 0, fold, 2, stages=stages(train=seconds))
    write(tmp_path, 1, 1, 2, stages=stages(train=6_000))
    assert minutes_of(tmp_path) == pytest.approx((1 + 2) / 2)


def test_markdown_and_csv_hold_the_same_figures(tmp_path: Path) -> None:
    score = write(tmp_path, 0, system="a|b")
    board = board_of(tmp_path)
    lines = as_markdown(*format_rows(board)).splitlines()
    assert f"{100 * score:.1f}" in lines[2]
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    assert pd.read_csv(io.StringIO(as_csv(board)))["score"][0] == pytest.approx(score)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder .*nowhere to report on"):
        load_results([tmp_path / "nowhere"])


def test_a_note_says_how_many_labels_training_and_selection_took(tmp_path: Path) -> None:
    write(tmp_path, 0)
    cells = load_results([tmp_path]).cells.assign(training_labels=180.0, selection_labels=180.0)
    other = cells.assign(system="b", selection_labels=0.0)
    notes = footnotes(leaderboard(pd.concat([cells, other], ignore_index=True)))
    assert any("180 for training, 0 to 180 for selection" in note for note in notes)
