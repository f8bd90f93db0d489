"""A system whose number of parameters is unknown: no report gives it a number, and none leaves it out."""

import io
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from rich.console import Console

from lape_bench.api.result_set import ResultSet
from lape_bench.core.errors import UserError
from lape_bench.records.record import ParameterCounts, find_records, write_record
from lape_bench.report.figures.cost import accuracy_against, parameters
from lape_bench.report.figures.style import marks, styled
from lape_bench.report.leaderboard import as_csv, as_data, as_markdown, format_rows, leaderboard
from lape_bench.report.page.html_page import page
from lape_bench.report.record_view import record_view
from lape_bench.results.cells import write_cells
from lape_bench.results.load import load_results
from tests.lape_bench.report.test_leaderboard import write

UNKNOWN = ParameterCounts(encoder=None, inference=None, training=None)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Two seeds of a system of 13 parameters, and two of one whose number is unknown."""
    for seed in range(2):
        write(tmp_path / "out", seed, system="known")
        write(tmp_path / "out", seed, system="onnx")
    for folder, record in find_records(tmp_path / "out")[0]:
        if record.cell.system == "onnx":
            write_record(folder, record.model_copy(update={"parameters": UNKNOWN}))
    return tmp_path / "out"


def test_it_is_on_the_board_as_unknown(out: Path) -> None:
    board = leaderboard(load_results([out]).cells)
    sizes = dict(zip(board["system"], board["parameters"], strict=True))
    assert sizes["known"] == 13
    assert pd.isna(sizes["onnx"])
    assert board.set_index("system").loc["onnx", "seeds"] == 2
    assert re.search(r"onnx.*\| +unknown \|", as_markdown(*format_rows(board)))


def test_csv_leaves_it_empty_and_json_says_null(out: Path, tmp_path: Path) -> None:
    results = load_results([out])
    board = leaderboard(results.cells)
    (entry,) = (row for row in as_data(board) if row["system"] == "onnx")
    assert json.loads(json.dumps(entry))["parameters"] is None
    (line,) = pd.read_csv(io.StringIO(as_csv(board))).query("system == 'onnx'").to_dict("records")  # fmt: skip
    assert pd.isna(line["parameters"])
    (tmp_path / "cells.csv").write_text(write_cells(results.cells))
    assert_frame_equal(leaderboard(load_results([tmp_path / "cells.csv"]).cells), board)


def test_the_page_shows_it_without_a_number(out: Path) -> None:
    results = load_results([out])
    html = page(results, leaderboard(results.cells, results.predictions), [out])
    assert html.count("<td>unknown</td>") == 1
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert data
    entries = {entry["system"]: entry for entry in json.loads(data[1])["entries"]}
    assert entries["onnx"]["parameters"] is None
    assert entries["onnx"]["encoder"] is None
    assert len(entries["onnx"]["cells"]) == 2


def test_the_data_frame_of_the_api_misses_it(out: Path) -> None:
    results = load_results([out])
    board = ResultSet(results.cells, results.predictions, results.problems).leaderboard()
    assert board.set_index("system")["parameters"].isna().to_dict() == {"known": False, "onnx": True}  # fmt: skip


def test_a_record_s_page_says_so(out: Path) -> None:
    (record,) = (r for _, r in find_records(out)[0] if r.cell.system == "onnx" and not r.cell.seed)
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as shown:
        console.print(record_view(record))
    assert "encoder unknown, inference unknown, training unknown" in shown.get()


def test_a_figure_of_cost_counts_it_below_the_panel(out: Path) -> None:
    board = leaderboard(load_results([out]).cells)
    looks = marks(board["system"])
    with styled():
        (axis,) = accuracy_against(board, parameters(board), looks).axes
    assert axis.get_xlabel().endswith("unknown of 1 system")
    assert len([bar for bar in axis.containers if bar.has_yerr]) == 1
    alone = board[board["system"] == "onnx"]
    with pytest.raises(UserError, match="n_parameters"):
        accuracy_against(alone, parameters(alone), looks)
