"""A board holds the cells of its sweep file, and says so if its protocol is an earlier one."""

import json
from pathlib import Path
from typing import Any

import pytest
from pandas import DataFrame

from lape_bench.core.config import flatten, read_yaml
from lape_bench.records.record import PROTOCOL_VERSION
from lape_bench.results.load import load_results
from lape_bench.sweep.grid import SweepConfig
from tests.baselines.test_upstreams import UPSTREAMS

BOARDS = Path(__file__).parents[1] / "results" / "boards"
OUTDATED = "Outdated: measured under version 1 of the protocol."
RANDOM_ENCODER = {
    "ss-mast": "mast"
}  # of the others it is `supervised`, whose probe sees random weights


@pytest.fixture(scope="module")
def cells() -> DataFrame:
    return load_results([BOARDS / "baselines_cells.csv"]).cells


@pytest.mark.parametrize("table", sorted(BOARDS.glob("*_cells.csv")), ids=lambda path: path.stem)
def test_a_board_holds_the_cells_of_its_sweep_file(table: Path) -> None:
    grid = read_yaml(table.with_name(table.name.replace("_cells.csv", ".yaml")), SweepConfig)
    wanted: set[tuple[Any, ...]] = {
        (
            c.system,
            json.dumps(dict(sorted(flatten(c.settings).items()))),
            c.task,
            c.protocol,
            c.labels,
            c.seed,
            c.fold,
        )
        for c in grid.cells()
    }
    keys = ["name", "settings", "task", "protocol", "labels", "seed", "fold"]
    found = [*load_results([table]).cells[keys].itertuples(index=False, name=None)]
    assert len(found) == len(set(found))
    assert not wanted - set(found)
    if table.stem != "unfused_cells":  # of which unfused.md says what else was run
        assert set(found) == wanted


def test_a_board_of_an_earlier_protocol_says_that_it_is_outdated() -> None:
    for table in sorted(BOARDS.glob("*_cells.csv")):
        versions = set(load_results([table]).cells["protocol_version"])
        page = table.with_name(table.name.replace("_cells.csv", ".md"))
        outdated = versions != {PROTOCOL_VERSION}
        assert (OUTDATED in page.read_text(encoding="utf-8")) == outdated, page.name


@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_a_probe_of_an_upstream_is_above_that_of_its_random_encoder(
    upstream: str, cells: DataFrame
) -> None:
    probes = cells[
        (cells["task"] == "asc-keywords")
        & (cells["protocol"] == "linear")
        & (cells["labels"] == "10%")
    ]
    means = probes.groupby("name")["accuracy"].mean()
    assert means[upstream] > means[RANDOM_ENCODER.get(upstream, "supervised")]
