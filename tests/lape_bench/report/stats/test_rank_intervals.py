"""Ranks on a leaderboard: told from predictions, shared by what cannot be told apart, absent without them."""

import io
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from rich.console import Console

from lape_bench.report.leaderboard import (
    as_csv,
    as_markdown,
    as_table,
    footnotes,
    format_rows,
    leaderboard,
)
from lape_bench.report.terminal import TerminalTable
from lape_bench.results.load import load_results
from tests.lape_bench.report.test_leaderboard import write, write_scores


def labels_of(fold: int, clips: int) -> NDArray[np.int64]:
    return np.random.default_rng(fold).integers(0, 3, clips)


def write_right(
    out: Path, system: str, right: NDArray[np.bool_], seed: int = 0, fold: int = 0, **how: Any
) -> float:
    """A record of a system that has just these clips right; the fold alone decides their labels."""
    labels = labels_of(fold, len(right))
    scores = np.eye(3, dtype=np.float32)[np.where(right, labels, (labels + 1) % 3)]
    return write_scores(out, labels, scores, seed, fold, system=system, **how)


def write_answers(
    out: Path, system: str, accuracy: float, seed: int = 0, fold: int = 0, **how: Any
) -> float:
    """The same, of one that has about this share of 100 clips right."""
    right = np.random.default_rng([*system.encode(), seed, fold]).random(100) < accuracy
    return write_right(out, system, right, seed, fold, **how)


def board_of(out: Path) -> pd.DataFrame:
    results = load_results([out])
    assert not results.problems
    return leaderboard(results.cells, results.predictions)


def ranks_of(out: Path) -> dict[str, str]:
    headings, rows = format_rows(board_of(out))
    return {row[headings.index("system")]: row[headings.index("rank")] for row in rows}


def test_systems_that_cannot_be_told_apart_share_their_ranks(tmp_path: Path) -> None:
    for system, accuracy in [("good", 0.95), ("fine", 0.94), ("bad", 0.4)]:
        for seed in range(3):
            write_answers(tmp_path, system, accuracy, seed)
    assert ranks_of(tmp_path) == {"good": "1\u20132", "fine": "1\u20132", "bad": "3"}


def test_the_same_records_give_the_same_ranks(tmp_path: Path) -> None:
    for n in range(6):
        for seed in range(2):
            write_answers(tmp_path, f"s{n}", 0.5 + 0.05 * n, seed)
    boards = [as_csv(board_of(tmp_path)) for _ in range(2)]
    assert boards[0] == boards[1]
    # Ranks widen around a system's place and ascend with it.
    board = board_of(tmp_path)
    assert (board["rank_best"] <= np.arange(1, 7)).all()
    assert (board["rank_worst"] >= np.arange(1, 7)).all()
    assert all(one <= other for one, other in pairwise(board["rank_best"]))


def test_of_many_systems_every_one_that_is_apart_has_a_rank_of_its_own(tmp_path: Path) -> None:
    # 66 pairs: with as few resamples as for two systems no p would pass Holm's first step.
    for n in range(12):
        write_right(tmp_path, f"s{n}", np.arange(3_000) < 200 * (n + 1))
    assert ranks_of(tmp_path) == {f"s{n}": str(12 - n) for n in range(12)}


def test_ranks_stand_in_markdown_and_as_two_numbers_in_csv(tmp_path: Path) -> None:
    for system, accuracy in [("good", 0.9), ("fine", 0.9), ("bad", 0.1)]:
        write_answers(tmp_path, system, accuracy)
    board = board_of(tmp_path)
    assert re.search("\\| +1\u20132 \\|", as_markdown(*format_rows(board)))
    read = pd.read_csv(io.StringIO(as_csv(board))).set_index("system")
    assert read.loc["bad", ["rank_best", "rank_worst"]].tolist() == [3, 3]


def test_without_predictions_or_with_one_system_there_is_no_rank(tmp_path: Path) -> None:
    write_answers(tmp_path, "good", 0.9)
    assert "rank_best" not in board_of(tmp_path)
    write_answers(tmp_path, "bad", 0.1)
    assert "rank_best" in board_of(tmp_path)
    cells = load_results([tmp_path]).cells
    assert "rank_best" not in leaderboard(cells)
    table = tmp_path / "cells.csv"
    cells.to_csv(table, index=False)
    write_answers(tmp_path / "later", "new", 0.5)
    results = load_results([table, tmp_path / "later"])
    assert len(results.predictions) == 1
    assert "rank_best" not in leaderboard(results.cells, results.predictions)


def test_a_system_that_lacks_a_fold_has_no_rank_and_takes_none(tmp_path: Path) -> None:
    for fold in (1, 2):
        write_answers(tmp_path, "good", 0.9, fold=fold, folds=2)
        write_answers(tmp_path, "bad", 0.1, fold=fold, folds=2)
    write_answers(tmp_path, "half", 0.5, fold=1, folds=2)
    assert ranks_of(tmp_path) == {"good": "1", "half": "", "bad": "2"}


def test_systems_tested_on_other_clips_are_not_ranked(tmp_path: Path) -> None:
    write_answers(tmp_path, "good", 0.9)
    write(tmp_path, 0, system="other")
    assert "rank_best" not in board_of(tmp_path)


def test_ranks_are_of_one_board_each(tmp_path: Path) -> None:
    for task, order in (("t", (0.9, 0.1)), ("u", (0.1, 0.9))):
        for system, accuracy in zip("ab", order, strict=True):
            write_answers(tmp_path, system, accuracy, task=task)
    board = board_of(tmp_path).set_index(["task", "system"])["rank_best"]
    assert board.to_dict() == {("t", "a"): 1, ("t", "b"): 2, ("u", "b"): 1, ("u", "a"): 2}


def test_where_the_metric_is_another_it_is_said_that_ranks_are_by_accuracy(tmp_path: Path) -> None:
    for system, accuracy in [("good", 0.9), ("bad", 0.1)]:
        for seed in range(2):
            how = {"metric": "macro_f1", "label_fraction": 0.1}
            write_answers(tmp_path, system, accuracy, seed, **how)
            write_answers(tmp_path, system, accuracy, seed, task="u")
    assert footnotes(board_of(tmp_path)) == [
        "t, linear, 0.1 of the labels: ranks are by accuracy, scores are macro f1"
    ]


def test_ranks_over_one_seed_are_said_to_be_over_clips_alone(tmp_path: Path) -> None:
    for system in ("a", "b"):
        for task in ("t", "u"):
            write_answers(tmp_path, system, 0.5, task=task)
    said = "ranks are over clips alone: one seed"
    assert footnotes(board_of(tmp_path)) == [f"t, linear; u, linear: {said}"]
    for task in ("v", "w"):
        for system in ("a", "b"):
            write_answers(tmp_path, system, 0.5, task=task)
    assert footnotes(board_of(tmp_path)) == [f"4 boards: {said}"]
    write_answers(tmp_path, "a", 0.5, seed=1)
    assert footnotes(board_of(tmp_path)) == [f"u, linear; v, linear; w, linear: {said}"]


def test_systems_without_a_common_seed_are_said_to_be_never_compared(tmp_path: Path) -> None:
    for system, accuracy, seeds in [("a", 0.9, (0, 1)), ("b", 0.5, (1, 2)), ("c", 0.1, (2, 3))]:
        for seed in seeds:
            write_answers(tmp_path, system, accuracy, seed)
    assert ranks_of(tmp_path)["c"] != "3", "it is not told apart from the best"
    assert footnotes(board_of(tmp_path)) == [
        "t, linear: not compared, since they share no seed: a with c"
    ]
    write_answers(tmp_path, "c", 0.1, 0)
    assert footnotes(board_of(tmp_path)) == []
    for number in range(4):
        write_answers(tmp_path, f"s{number}", 0.01, 9 + number)
    assert footnotes(board_of(tmp_path))[0].endswith("; 15 more")


def test_boards_without_ranks_for_want_of_predictions_are_told_in_one_line(tmp_path: Path) -> None:
    for task, systems in [("t", "ab"), ("u", "ab"), ("one-system", "a")]:
        for system in systems:
            write_answers(tmp_path / "records", system, 0.5, task=task)
    cells = load_results([tmp_path / "records"]).cells
    cells[cells["system"] == "a"].to_csv(tmp_path / "cells.csv", index=False)
    for record in sorted((tmp_path / "records").rglob("a/*/record.json")):
        record.unlink()
    results = load_results([tmp_path / "cells.csv", tmp_path / "records"])
    assert footnotes(leaderboard(results.cells, results.predictions)) == [
        "t, linear; u, linear: no ranks, since cells from a table have no predictions"
    ]


def test_more_systems_than_can_be_ranked_are_said_to_be_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("stats.rank_intervals", "leaderboard"):
        monkeypatch.setattr(f"lape_bench.report.{module}.MOST_RANKED", 2)
    for system in ("a", "b", "c"):
        write_answers(tmp_path, system, 0.5)
    board = board_of(tmp_path)
    assert "rank_best" not in board
    assert footnotes(board) == ["t, linear: no ranks among more than 2 systems"]


def test_a_board_with_ranks_stands_within_a_terminal_of_80_characters(tmp_path: Path) -> None:
    for system in ("log-mel-statistics", "unfused", "delores-m"):
        for seed in range(3):
            for fold in (1, 2):
                write_answers(tmp_path, system, 0.5, seed, fold=fold, folds=10)
    console = Console(width=80, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(TerminalTable(as_table(*format_rows(board_of(tmp_path)))))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    (row,) = [line.split() for line in lines if "log-mel-statistics" in line]
    assert (row[1], row[3]) == ("1\u20133", "3x2/10")
