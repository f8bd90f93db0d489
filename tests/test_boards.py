"""A board holds its sweep file; that of every baseline shows what is said of it, and is what README quotes."""

import json
from pathlib import Path
from typing import Any

import pytest
from pandas import DataFrame, Series

from lape_bench.core.config import flatten, read_yaml
from lape_bench.results.load import load_results
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


def test_the_readme_s_table_of_every_baseline_is_that_of_the_board(cells: DataFrame) -> None:
    head, _, *rows = README.split("### Every baseline\n")[1].split("\n\n")[1].splitlines()
    tasks = [word.split("`")[1] for word in head.split("|")[5:9]]
    told = {}
    for row in rows:
        name, *figures = [word.strip() for word in row.split("|")[1:-1]]
        told[name.split("`")[1]] = figures
    assert set(told) == set(cells["name"]) - {"log-mel-statistics"}  # the floor stands elsewhere
    groups = cells.groupby(["name", "task", "protocol", "labels"])["accuracy"]
    means, deviations = 100 * groups.mean(), 100 * groups.std()
    parameters = (
        cells.groupby("name")["encoder_parameters"].unique().map(lambda all_of: all_of.item())
    )
    for system, figures in told.items():
        tenth, all_labels = ((system, "asc-keywords", "linear", part) for part in (0.1, 1.0))
        tuned = [(system, task, "finetune", 1.0) for task in tasks]
        assert figures == [
            shown(means, tenth),
            shown(deviations, tenth),
            *(shown(means, each) for each in (all_labels, *tuned)),
            f"{parameters[system]:,}",
        ]


def shown(figures: "Series[float]", key: tuple[Any, ...]) -> str:
    return f"{figures[key]:.2f}" if key in figures.index else ""


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
