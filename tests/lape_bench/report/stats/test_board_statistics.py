"""Intervals and ranks on a leaderboard: over groups and seeds, by the board's metric, absent for one seed."""

import io
import re
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats

from lape_bench.records.record import ArtifactUse
from lape_bench.report import compare
from lape_bench.report.leaderboard import (
    OTHER_CLIPS_NOTE,
    as_csv,
    as_markdown,
    as_table,
    footnotes,
    format_rows,
    leaderboard,
)
from lape_bench.report.stats.alignment import predictions_by_seed
from lape_bench.report.stats.grouped_scores import compare_pairs, grouped_scores
from lape_bench.report.system_pair import find_pair
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


@pytest.mark.parametrize("systems", [("a", "b"), ("b",)])
def test_cells_of_other_test_clips_are_named(systems: tuple[str, ...], tmp_path: Path) -> None:
    for system, seed in product(systems, range(3)):
        clips = 57 if (system, seed) == ("b", 2) else 60
        write_right(tmp_path, system, np.arange(clips) > 20, seed)
    assert any(OTHER_CLIPS_NOTE in line for line in footnotes(board_of(tmp_path)))
    write_right(tmp_path, "b", np.arange(60) > 20, 2)
    assert not any(OTHER_CLIPS_NOTE in line for line in footnotes(board_of(tmp_path)))


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
    for n in range(12):
        for seed in range(3):
            right = (np.arange(3_000) + 7 * seed) % 3_000 < 200 * (n + 1)
            write_right(tmp_path, f"s{n}", right, seed)
    assert ranks_of(tmp_path) == {f"s{n}": str(12 - n) for n in range(12)}


def test_intervals_and_ranks_are_over_groups_and_seeds(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(list("uvwxyz"), 50).tolist()
    # Each speaker suits one system by 20 points, so that 300 clips are six answers.
    suits = np.repeat([0.2, -0.2, 0.2, 0.2, 0.2, -0.2], 50)
    for system, sign in (("a", 1), ("b", -1)):
        for seed in range(3):
            right = random.random(300) < 0.6 + sign * suits / 2
            write_right(tmp_path, system, right, seed, groups=groups)
    board = board_of(tmp_path)
    assert ranks_of(tmp_path) == {"a": "1\u20132", "b": "1\u20132"}
    assert set(board["interval_over"]) == {"groups and seeds"}
    assert board["groups"].tolist() == [6, 6]
    first, second = footnotes(board)
    assert first == "t, linear: 95 % intervals are over 6 groups and 3 seeds"
    assert second.startswith(
        "t, linear: systems share ranks unless a test over groups and seeds tells"
    )
    # The interval of a system is that of its own mean over the same groups and seeds.
    found = compare.compare(find_pair(load_results([tmp_path]), "a", "b", "t"), 0)
    assert board["detectable"].tolist() == pytest.approx([found.verdict.detectable] * 2)


def test_pairs_of_many_are_compared_as_two_alone_are(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    groups = random.integers(0, 9, 100).astype(str).tolist()
    for n, seeds in enumerate([(0, 1, 2), (0, 1, 2), (0, 1), (1, 5), (2,)]):
        for seed in seeds:
            write_answers(tmp_path, f"s{n}", 0.6 + 0.05 * n, seed, groups=groups)
    results = load_results([tmp_path])
    names = [f"s{n}" for n in range(5)]
    by_seed = [
        predictions_by_seed(results.cells[results.cells["system"] == name], results.predictions)
        for name in names
    ]
    for metric in ("accuracy", "macro_f1"):
        grouped = grouped_scores(by_seed, metric)
        pairs = compare_pairs(grouped)
        for i, j in product(range(5), repeat=2):
            if i == j or not (grouped.was_run[i] & grouped.was_run[j]).any():
                continue
            alone = grouped.difference(i, j)
            assert pairs.differences[i, j] == pytest.approx(float(alone.value))
            assert pairs.p[i, j] == pytest.approx(float(alone.p()), nan_ok=True)
        assert np.isnan(pairs.differences[3, 4])
        assert np.isfinite(pairs.p[0]).tolist() == [True, True, True, False, False]


def test_a_group_in_several_folds_is_one_and_folds_count_alike(tmp_path: Path) -> None:
    rows = {1: np.array([1, 1, 0, 1, 0, 0]) == 1, 2: np.array([1, 0, 1]) == 1}
    names = {1: list("aabbcc"), 2: list("add")}
    for seed in range(2):
        for fold in (1, 2):
            write_right(tmp_path, "s", rows[fold], seed, fold, folds=2, groups=names[fold])
    results = load_results([tmp_path])
    grouped = grouped_scores([predictions_by_seed(results.cells, results.predictions)], "accuracy")
    assert grouped.clips.names == ("a", "b", "c", "d")
    weights = np.array([1 / 6 + 1 / 6, 1 / 6, 1 / 6, 1 / 3])
    assert grouped.clips.sizes().weights == pytest.approx(weights)
    mean = (3 / 6 + 2 / 3) / 2
    sums = np.array([2 / 12 + 1 / 6, 1 / 12, 0, 1 / 6])  # of the weights of the correct clips
    expected = (sums - weights * mean) / (1 - weights) * np.sqrt(3 / 4)
    assert grouped.deviations[0, 0] == pytest.approx(expected)


def test_clips_without_a_group_are_groups_of_their_own(tmp_path: Path) -> None:
    right = np.arange(6) < 4
    for seed in range(2):
        write_right(tmp_path, "s", right, seed, groups=["a", "a", None, "b", None, "b"])
    results = load_results([tmp_path])
    grouped = grouped_scores([predictions_by_seed(results.cells, results.predictions)], "accuracy")
    assert grouped.clips.groups.tolist() == [0, 0, 1, 2, 3, 2]


def test_the_interval_of_an_area_under_the_curve_is_delong_s_by_groups(tmp_path: Path) -> None:
    # Each clip a group of its own: variance by DeLong, DeLong and Clarke-Pearson, from its definition.
    random = np.random.default_rng(1)
    labels = np.arange(80) % 2
    odds = random.normal(size=80) + labels
    scores = np.stack([-odds / 2, odds / 2], axis=1).astype(np.float32)
    groups = [f"g{n}" for n in range(80)]
    write_scores(
        tmp_path, labels, scores, 0, classes=("no", "yes"), metric="roc_auc", groups=groups
    )
    above = (odds[labels == 1][:, None] > odds[labels == 0][None, :]).astype(float)
    variance = above.mean(axis=1).var(ddof=1) / 40 + above.mean(axis=0).var(ddof=1) / 40
    row = board_of(tmp_path).iloc[0]
    assert row["interval"] == pytest.approx(stats.t.ppf(0.975, 79) * variance**0.5, rel=0.02)
    assert row["interval_over"] == "groups"


def test_ranks_stand_in_markdown_and_as_two_numbers_in_csv(tmp_path: Path) -> None:
    for system, accuracy in [("good", 0.9), ("fine", 0.9), ("bad", 0.1)]:
        for seed in range(3):
            write_answers(tmp_path, system, accuracy, seed)
    board = board_of(tmp_path)
    assert re.search("\\| +1\u20132 \\|", as_markdown(*format_rows(board)))
    read = pd.read_csv(io.StringIO(as_csv(board))).set_index("system")
    assert read.loc["bad", ["rank_best", "rank_worst"]].tolist() == [3, 3]


def test_without_predictions_with_one_system_or_with_one_seed_there_is_no_rank(
    tmp_path: Path,
) -> None:
    for seed in range(2):
        write_answers(tmp_path, "good", 0.9, seed)
    assert "rank_best" not in board_of(tmp_path)
    write_answers(tmp_path, "bad", 0.1)
    assert "rank_best" not in board_of(tmp_path)
    write_answers(tmp_path, "bad", 0.1, 1)
    assert "rank_best" in board_of(tmp_path)
    cells = load_results([tmp_path]).cells
    assert "rank_best" not in leaderboard(cells)
    table = tmp_path / "cells.csv"
    cells.to_csv(table, index=False)
    write_answers(tmp_path / "later", "new", 0.5)
    results = load_results([table, tmp_path / "later"])
    assert len(results.predictions) == 1
    assert "rank_best" not in leaderboard(results.cells, results.predictions)


def test_a_system_that_lacks_a_fold_has_neither_rank_nor_interval_and_takes_none(
    tmp_path: Path,
) -> None:
    for seed in range(3):
        for fold in (1, 2):
            write_answers(tmp_path, "good", 0.9, seed, fold=fold, folds=2)
            write_answers(tmp_path, "bad", 0.1, seed, fold=fold, folds=2)
        write_answers(tmp_path, "half", 0.5, seed, fold=1, folds=2)
    assert ranks_of(tmp_path) == {"good": "1", "half": "", "bad": "2"}
    half = board_of(tmp_path).set_index("system").loc["half"]
    assert np.isnan(half["interval"])
    assert half["interval_over"] == ""


def test_systems_tested_on_other_clips_are_not_ranked(tmp_path: Path) -> None:
    write_answers(tmp_path, "good", 0.9)
    write(tmp_path, 0, system="other")
    assert "rank_best" not in board_of(tmp_path)


def test_ranks_are_of_one_board_each(tmp_path: Path) -> None:
    for task, order in (("t", (0.9, 0.1)), ("u", (0.1, 0.9))):
        for system, accuracy in zip("ab", order, strict=True):
            for seed in range(3):
                write_answers(tmp_path, system, accuracy, seed, task=task)
    board = board_of(tmp_path).set_index(["task", "system"])["rank_best"]
    assert board.to_dict() == {("t", "a"): 1, ("t", "b"): 2, ("u", "b"): 1, ("u", "a"): 2}


def test_ranks_and_intervals_are_by_the_metric_of_the_board(tmp_path: Path) -> None:
    # One system finds the frequent class alone, the other all classes a little less often.
    labels = np.repeat([0, 1, 2], [160, 20, 20])
    for seed in range(4):
        random = np.random.default_rng(seed)
        frequent = np.where(random.random(200) < 0.02, 1, 0)
        fair = np.where(random.random(200) < 0.7, labels, (labels + 1) % 3)
        for system, predicted in (("frequent", frequent), ("fair", fair)):
            scores = np.eye(3, dtype=np.float32)[predicted]
            write_scores(tmp_path, labels, scores, seed, system=system, metric="macro_f1")
            write_scores(tmp_path, labels, scores, seed, system=system, task="u")
    assert board_of(tmp_path).set_index(["task", "system"])["rank_best"].to_dict() == {
        ("t", "fair"): 1,
        ("t", "frequent"): 2,
        ("u", "frequent"): 1,
        ("u", "fair"): 2,
    }


def test_one_seed_ranks_nothing_and_its_interval_is_said_to_be_of_this_run(tmp_path: Path) -> None:
    for system in ("a", "b"):
        for task in ("t", "u"):
            write_answers(tmp_path, system, 0.5, task=task)
    board = board_of(tmp_path)
    assert "rank_best" not in board
    assert set(board["interval_over"]) == {"groups"}
    assert footnotes(board) == [
        "t, linear; u, linear: one seed: 95 % intervals are over 100 clips, of this run alone",
        "t, linear; u, linear: no ranks: one seed does not show how runs vary",
    ]
    for task in ("v", "w"):
        for system in ("a", "b"):
            write_answers(tmp_path, system, 0.5, task=task)
    assert footnotes(board_of(tmp_path)) == [
        "4 boards: one seed: 95 % intervals are over clips, of this run alone",
        "4 boards: no ranks: one seed does not show how runs vary",
    ]


def test_systems_without_two_common_seeds_are_said_to_be_never_compared(tmp_path: Path) -> None:
    for system, accuracy, seeds in [
        ("a", 0.9, (0, 1, 2)),
        ("b", 0.5, (1, 2, 3)),
        ("c", 0.1, (2, 3, 4)),
    ]:
        for seed in seeds:
            write_answers(tmp_path, system, accuracy, seed)
    assert ranks_of(tmp_path)["c"] != "3", "it is not told apart from the best"
    said = "t, linear: not compared, since they do not share two seeds: a with c"
    assert footnotes(board_of(tmp_path))[-1] == said
    write_answers(tmp_path, "c", 0.1, 0)
    assert said not in footnotes(board_of(tmp_path))
    for number in range(4):
        write_answers(tmp_path, f"s{number}", 0.01, 9 + number)
    assert footnotes(board_of(tmp_path))[-1].endswith("; 15 more")


def test_one_upstream_behind_all_seeds_is_told_below_the_board(tmp_path: Path) -> None:
    for seed in range(2):
        write_answers(
            tmp_path, "fixed", 0.9, seed, artifacts=(ArtifactUse(kind="upstream", hash="ab"),)
        )
        own = (ArtifactUse(kind="upstream", hash=f"c{seed}"),)
        write_answers(tmp_path, "own", 0.9, seed, artifacts=own)
        write_answers(tmp_path, "none", 0.9, seed)
    board = board_of(tmp_path)
    assert board.set_index("system")["fixed_upstream"].to_dict() == {
        "fixed": True,
        "own": False,
        "none": False,
    }
    assert footnotes(board)[-1] == (
        "t, linear: all seeds of fixed rest on one pre-trained upstream, so intervals and ranks leave out how much another "
        "pre-training run would differ"
    )


def test_boards_without_ranks_for_want_of_predictions_are_told_in_one_line(tmp_path: Path) -> None:
    for task, systems in [("t", "ab"), ("u", "ab"), ("one-system", "a")]:
        for system in systems:
            write_answers(tmp_path / "records", system, 0.5, task=task)
    cells = load_results([tmp_path / "records"]).cells
    cells[cells["system"] == "a"].to_csv(tmp_path / "cells.csv", index=False)
    for record in sorted((tmp_path / "records").rglob("a/*/record.json")):
        record.unlink()
    results = load_results([tmp_path / "cells.csv", tmp_path / "records"])
    assert footnotes(leaderboard(results.cells, results.predictions))[-1] == (
        "t, linear; u, linear: no ranks, since cells from a table have no predictions"
    )


def test_more_systems_than_can_be_ranked_are_said_to_be_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("stats.board_statistics", "leaderboard"):
        monkeypatch.setattr(f"lape_bench.report.{module}.MOST_RANKED", 2)
    for system in ("a", "b", "c"):
        write_answers(tmp_path, system, 0.5)
    board = board_of(tmp_path)
    assert "rank_best" not in board
    assert footnotes(board)[-1] == "t, linear: no ranks among more than 2 systems"


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
