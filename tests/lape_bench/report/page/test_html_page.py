"""The page's file: one, whole, closed to the network, with the board's own figures in it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix
from typer.testing import CliRunner

from lape_bench.cli.app import app
from lape_bench.core.errors import UserError
from lape_bench.records.predictions import read_predictions
from lape_bench.records.record import read_record, record_folders, write_record
from lape_bench.report.formatting import percent
from lape_bench.report.leaderboard import footnotes, leaderboard
from lape_bench.report.page.html_page import page
from lape_bench.results.load import load_results
from tests.lape_bench.report.test_leaderboard import stages, write

# Cells of six systems on three tasks, written by an earlier release, which knew fewer columns.
CELLS = Path(__file__).parents[1] / "earlier_cells.csv"


def page_of(*sources: Path, **how: Any) -> str:
    results = load_results(sources)
    return page(results, leaderboard(results.cells, results.predictions), sources, **how)


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def add(out: Path, **what: Any) -> None:
    """Give every record below a folder more to tell."""
    for folder in record_folders(out)[0]:
        write_record(folder, read_record(folder).model_copy(update=what))


def curve(epochs: int) -> dict[str, tuple[dict[str, float], ...]]:
    return {"fine-tuning": tuple({"epoch": n + 1.0, "loss": 1 / (n + 1)} for n in range(epochs))}


def test_the_page_holds_the_figures_of_the_board() -> None:
    board = leaderboard(load_results([CELLS]).cells)
    data = data_of(page_of(CELLS))
    for row, entry in zip(board.to_dict("records"), data["entries"], strict=True):
        assert entry["system"] == row["system"]
        assert entry["score"] == row["score"]
        assert entry["parameters"] == row["parameters"]
        assert data["boards"][entry["board"]]["task"] == row["task"]
        assert np.mean([score for _, score in entry["by_seed"]]) == pytest.approx(row["score"])
        assert len(entry["cells"]) == row["seeds"] * row["folds"]
        assert entry["details"] is None


def test_nothing_in_it_is_loaded_from_elsewhere() -> None:
    text = page_of(CELLS)
    assert re.findall(r'(?:src|href|action)\s*=\s*"([^"]*)"', text) == ["data:,"]
    assert not re.search(
        r"url\(|@import|fetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon", text
    )
    assert set(re.findall(r"https?://[^\"'\s]+", text)) == {"http://www.w3.org/2000/svg"}
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_a_name_is_text_wherever_it_stands(tmp_path: Path) -> None:
    name = "</script><b onclick='x'>&amp;<!--"
    write(tmp_path, 0, system=name, task="<i>task", settings={"a": "</style>"})
    add(tmp_path, environment={"device": "<img src=x>"})
    text = page_of(tmp_path)
    assert "<b onclick" not in text
    assert "<img" not in text
    assert "<i>task" not in text
    data = data_of(text)
    assert data["entries"][0]["system"] == f"{name} (a=</style>)"
    assert data["environments"] == [{"device": "<img src=x>"}]


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, seed)
    assert page_of(tmp_path) == page_of(tmp_path)


def matrix_of(entry: dict[str, Any]) -> NDArray[np.int64]:
    """The confusion matrix that an entry tells, whole, of three classes."""
    found = np.zeros((3, 3), np.int64)
    for row, column, clips in np.reshape(entry["details"]["confusion"], (-1, 3)):
        found[row, column] = clips
    return found


def confusions(*folders: Path) -> Any:
    """The sum of the confusion matrices of some records."""
    matrices = []
    for folder in folders:
        predictions = read_predictions(folder, read_record(folder))
        taken = predictions.log_probabilities.argmax(axis=1)
        matrices.append(confusion_matrix(predictions.labels, taken))
    return sum(matrices)


def test_confusions_are_summed_over_seeds_and_folds(tmp_path: Path) -> None:
    for seed in range(2):
        for fold in (1, 2):
            write(tmp_path, seed, fold, 2)
    (entry,) = data_of(page_of(tmp_path))["entries"]
    assert np.array_equal(matrix_of(entry), confusions(*record_folders(tmp_path)[0]))


def test_only_the_cells_behind_a_score_are_summed_up_and_the_others_are_listed(
    tmp_path: Path,
) -> None:
    scores = [write(tmp_path, 0, fold, 2, stages=stages(train=10)) for fold in (1, 2)]
    write(tmp_path, 1, 1, 2, stages=stages(train=1000))  # a seed that lacks its second fold
    add(tmp_path, curves=curve(3))
    (entry,) = data_of(page_of(tmp_path))["entries"]
    assert entry["score"] == pytest.approx(np.mean(scores))
    assert entry["by_seed"] == [[0, entry["score"]]]
    assert [cell[:2] + cell[4:] for cell in entry["cells"]] == [
        [0, 1, True],
        [0, 2, True],
        [1, 1, False],
    ]
    counted = [each for each in record_folders(tmp_path)[0] if read_record(each).cell.seed == 0]
    assert len(counted) == 2
    assert np.array_equal(matrix_of(entry), confusions(*counted))
    assert {told["seed"] for told in entry["details"]["curves"]} == {0}
    ((_, seconds, _),) = entry["details"]["stages"]
    assert seconds == 10


def test_where_no_seed_has_every_fold_all_cells_are_summed_up(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path, seed, 1, 2)
    (entry,) = data_of(page_of(tmp_path))["entries"]
    assert [cell[4] for cell in entry["cells"]] == [True, True]
    assert np.array_equal(matrix_of(entry), confusions(*record_folders(tmp_path)[0]))


def test_a_record_that_does_not_count_never_stands_for_a_score_from_a_table(
    tmp_path: Path,
) -> None:
    for fold in (1, 2):
        write(tmp_path / "whole", 0, fold, 2)
    table = tmp_path / "cells.csv"
    load_results([tmp_path / "whole"]).cells.to_csv(table, index=False)
    write(tmp_path / "part", 1, 1, 2)
    (entry,) = data_of(page_of(table, tmp_path / "part"))["entries"]
    assert entry["details"] is None
    assert [(bool(cell[3]), cell[4]) for cell in entry["cells"]] == [
        (False, True),
        (False, True),
        (True, False),
    ]


def test_a_board_tells_what_its_own_ranks_do_not(tmp_path: Path) -> None:
    write(tmp_path, 0)
    write(tmp_path, 0, task="u")
    results = load_results([tmp_path])
    board = leaderboard(results.cells, results.predictions)
    told = data_of(page(results, board, [tmp_path]))["boards"]
    assert [each["notes"] for each in told] == [
        footnotes(board[board["task"] == each["task"]]) for each in told
    ]


def test_a_long_curve_is_thinned_and_keeps_its_ends(tmp_path: Path) -> None:
    write(tmp_path, 0)
    add(tmp_path, curves=curve(1000))
    (told,) = data_of(page_of(tmp_path))["entries"][0]["details"]["curves"]
    epochs, losses = told["stages"]["fine-tuning"]["loss"]
    assert len(epochs) == len(losses) == 100
    assert (epochs[0], epochs[-1]) == (1, 1000)
    assert (losses[0], losses[-1]) == (1, 0.001)
    assert all(
        loss == pytest.approx(1 / epoch, rel=1e-3)
        for epoch, loss in zip(epochs, losses, strict=True)
    )


def test_a_value_that_is_not_finite_is_a_gap(tmp_path: Path) -> None:
    write(tmp_path, 0)
    add(
        tmp_path,
        curves={"stage": ({"epoch": 1.0, "loss": float("nan")}, {"epoch": 2.0, "loss": 2.0})},
    )
    (told,) = data_of(page_of(tmp_path))["entries"][0]["details"]["curves"]
    assert told["stages"]["stage"]["loss"] == [[1, 2], [None, 2]]


def test_what_finds_no_room_is_left_out_and_counted_first_cells_last(tmp_path: Path) -> None:
    for system in ("a", "b"):
        for seed in range(3):
            write(tmp_path, seed, system=system)
    add(tmp_path, curves=curve(500))
    whole = data_of(page_of(tmp_path))
    size = len(json.dumps(whole, separators=(",", ":")))
    assert whole["left_out"] == {"records": 0, "curves": 0, "confusions": 0}
    one_curve = len(json.dumps(whole["entries"][0]["details"]["curves"][0], separators=(",", ":")))
    room = size - 3 * one_curve + one_curve // 2
    data = data_of(page_of(tmp_path, most_bytes=room))
    kept = [[each["seed"] for each in entry["details"]["curves"]] for entry in data["entries"]]
    assert len(json.dumps(data, separators=(",", ":"))) <= room
    assert kept[0] == [0, 1]
    assert kept[1] == [0]
    assert data["left_out"]["curves"] == 3
    assert data["left_out"]["confusions"] == 0
    nothing = data_of(page_of(tmp_path, most_bytes=0))
    assert nothing["left_out"] == {"records": 0, "curves": 6, "confusions": 2}
    assert [entry["score"] for entry in nothing["entries"]] == [
        e["score"] for e in whole["entries"]
    ]


def test_what_records_share_is_kept_once(tmp_path: Path) -> None:
    for system in ("a", "b"):
        for seed in range(2):
            write(tmp_path, seed, system=system)
    add(tmp_path, environment={"device": "cpu"}, settings={"finetune": {"epochs": 3}})
    data = data_of(page_of(tmp_path))
    assert data["settings"] == [{"finetune.epochs": 3}]
    assert data["environments"] == [{"device": "cpu"}]
    assert [e["details"]["environments"] for e in data["entries"]] == [[[0, 2]], [[0, 2]]]


def test_stages_are_told_by_their_mean_time_and_highest_memory(tmp_path: Path) -> None:
    for seed, seconds in enumerate((60, 120)):
        write(tmp_path, seed, stages=stages(train=seconds))
    peak = stages(train=60)[0].peak_memory_mib
    details = data_of(page_of(tmp_path))["entries"][0]["details"]
    assert details["stages"] == [["train", 90, round(peak, 1)]]


def test_records_are_named_relative_to_the_folder_of_results(tmp_path: Path) -> None:
    write(tmp_path / "results", 0)
    (folder,) = record_folders(tmp_path / "results")[0]
    text = page_of(tmp_path / "results")
    (cell,) = data_of(text)["entries"][0]["cells"]
    assert tmp_path / "results" / cell[3] == folder
    assert str(tmp_path) not in text


def test_real_and_synthetic_are_never_on_one_board(tmp_path: Path) -> None:
    write(tmp_path, 0)
    write(tmp_path, 0, data="synthetic")
    data = data_of(page_of(tmp_path))
    assert [board["data"] for board in data["boards"]] == ["real", "synthetic"]
    assert [entry["board"] for entry in data["entries"]] == [0, 1]


def test_a_task_s_suite_is_that_of_its_card(tmp_path: Path) -> None:
    for task in ("esc10", "us8k", "us8k-synthetic", "nobody-s-task"):
        write(tmp_path, 0, task=task)
    suites = {board["task"]: board["suite"] for board in data_of(page_of(tmp_path))["boards"]}
    assert suites["esc10"] == "open"
    assert suites["us8k"] == "lape"
    assert suites["nobody-s-task"] == "other"


def test_without_scripts_the_plain_board_is_there() -> None:
    board = leaderboard(load_results([CELLS]).cells)
    found = re.search(r"<noscript>(.*)</noscript>", page_of(CELLS), re.DOTALL)
    assert found
    assert found[1].count("<tr><td>") == len(board)
    assert all(f"<td>{percent(score, 1)}</td>" in found[1] for score in board["score"])


def test_the_command_writes_it_whole_and_says_where(tmp_path: Path) -> None:
    write(tmp_path / "results", 0)
    path = tmp_path / "page.html"
    arguments = ["report", "--out", str(tmp_path / "results"), "--html", str(path)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert path.read_text(encoding="utf-8") == page_of(tmp_path / "results")
    with pytest.raises(UserError, match="--html writes a page, --format and --paper tables"):
        CliRunner().invoke(app, [*arguments, "--format", "csv"], catch_exceptions=False)
