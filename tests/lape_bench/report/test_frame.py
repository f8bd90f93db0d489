"""Cells from records, and from tables of cells that were kept without them."""

import json
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from lape_bench.errors import UserError
from lape_bench.report.frame import load_results
from lape_bench.report.leaderboard import as_markdown, columns, leaderboard

from .test_leaderboard import write

BOARDS = Path(__file__).parents[3] / "results" / "boards"


def kept(out: Path, name: str) -> Path:
    """What `bench report --format cells` writes of a folder."""
    frame = load_results([out]).cells
    path = out.parent / name
    frame.to_csv(path, index=False)
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
    frame = pd.read_csv(table)
    frame["accuracy"] = 0.0
    frame.to_csv(table, index=False)
    newer = [write(tmp_path / "new", seed) for seed in (1, 2)]
    results = load_results([table, tmp_path / "new"])
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


@pytest.mark.parametrize("table", sorted(BOARDS.glob("*_cells.csv")), ids=lambda path: path.stem)
def test_a_board_that_the_repository_shows_is_what_its_cells_give(table: Path) -> None:
    board = table.with_name(table.name.replace("_cells.csv", ".md")).read_text(encoding="utf-8")
    frame = load_results([table]).cells
    rows = as_markdown(*columns(leaderboard(frame)))
    assert board[board.index("| task") :] == rows
