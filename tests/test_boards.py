"""The board of every baseline is that of its sweep file, shows what is said of it, and is what README quotes."""

from pathlib import Path
from typing import Any

import pytest
from pandas import DataFrame

from lape_bench.config import read_yaml
from lape_bench.report.frame import load_results
from lape_bench.sweep.grid import SweepConfig
from tests.baselines.test_upstreams import UPSTREAMS

BOARDS = Path(__file__).parents[1] / "results" / "boards"
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
RANDOM_ENCODER = {
    "ss-mast": "mast"
}  # of the others it is `supervised`, whose probe sees random weights


@pytest.fixture(scope="module")
def cells() -> DataFrame:
    return load_results([BOARDS / "baselines_cells.csv"]).cells


def test_every_cell_of_the_sweep_file_is_on_the_board(cells: DataFrame) -> None:
    grid = read_yaml(BOARDS / "baselines.yaml", SweepConfig)
    wanted: list[tuple[Any, ...]] = [
        (c.system, c.task, c.protocol, c.label_fraction, c.seed, c.fold) for c in grid.cells()
    ]
    keys = ["name", "task", "protocol", "label_fraction", "seed", "fold"]
    assert sorted(cells[keys].itertuples(index=False, name=None)) == sorted(wanted)


def test_the_readme_s_table_of_every_baseline_is_that_of_the_board(cells: DataFrame) -> None:
    head, _, *rows = README.split("### Every baseline\n")[1].split("\n\n")[1].splitlines()
    tasks = [word.split("`")[1] for word in head.split("|")[5:9]]
    board = cells.groupby(["name", "task", "protocol", "label_fraction"])["accuracy"].mean()
    assert len(rows) == cells["name"].nunique() - 1  # the floor stands elsewhere
    for row in rows:
        name, tenth, _, probe, *tuned = [word.strip() for word in row.split("|")[1:9]]
        system = name.split("`")[1]
        assert [f"{100 * board[system, task, 'finetune', 1.0]:.2f}" for task in tasks] == tuned
        for shown, fraction in ((tenth, 0.1), (probe, 1.0)):
            key = (system, "asc-keywords", "linear", fraction)
            assert shown == (f"{100 * board[key]:.2f}" if key in board.index else "")


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_a_probe_of_an_upstream_is_above_that_of_its_random_encoder(
    upstream: str, cells: DataFrame
) -> None:
    probes = cells[
        (cells["task"] == "asc-keywords")
        & (cells["protocol"] == "linear")
        & (cells["label_fraction"] == 0.1)
    ]
    means = probes.groupby("name")["accuracy"].mean()
    assert means[upstream] > means[RANDOM_ENCODER.get(upstream, "supervised")]
