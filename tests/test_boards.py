"""The board of every baseline is that of its sweep file, and shows what is said of it."""

from pathlib import Path
from typing import Any

import pytest
from pandas import DataFrame

from lape_bench.config import read_yaml
from lape_bench.report.frame import load_results
from lape_bench.sweep.grid import SweepConfig
from tests.baselines.test_upstreams import UPSTREAMS

BOARDS = Path(__file__).parents[1] / "results" / "boards"
RANDOM_ENCODER = {
    "ss-mast": "mast"
}  # of the others it is `supervised`, whose probe sees random weights


@pytest.fixture(scope="module")
def cells() -> DataFrame:
    return load_results([BOARDS / "baselines_cells.csv"]).cells


def test_every_cell_of_the_sweep_file_is_on_the_board_of_its_task(cells: DataFrame) -> None:
    tasks = set(cells["task"])
    grid = read_yaml(BOARDS / "baselines.yaml", SweepConfig)
    wanted: list[tuple[Any, ...]] = [
        (c.system, c.task, c.protocol, c.label_fraction, c.seed, c.fold)
        for c in grid.cells()
        if c.task in tasks
    ]
    keys = ["name", "task", "protocol", "label_fraction", "seed", "fold"]
    assert sorted(cells[keys].itertuples(index=False, name=None)) == sorted(wanted)


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
