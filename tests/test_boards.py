"""The grids in `results/boards` can be run, and what was measured under an earlier protocol is not kept."""

from pathlib import Path

import pytest

from lape_bench.core.config import read_yaml
from lape_bench.records.record import PROTOCOL_VERSION
from lape_bench.results.load import load_results
from lape_bench.sweep.grid import SweepConfig

BOARDS = Path(__file__).parents[1] / "results" / "boards"


@pytest.mark.parametrize("path", sorted(BOARDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_grid_names_cells_that_this_release_can_run(path: Path) -> None:
    grid = read_yaml(path, SweepConfig)
    # Examples need packages that the tests do without.
    systems = tuple(entry for entry in grid.systems if not entry.name.startswith("examples/"))
    grid = grid.model_copy(update={"systems": systems})
    cells = grid.cells()
    assert len(cells) == len({cell.model_dump_json() for cell in cells}) > 0


def test_a_board_of_an_earlier_protocol_is_not_kept() -> None:
    for table in BOARDS.glob("*_cells.csv"):
        assert set(load_results([table]).cells["protocol_version"]) == {PROTOCOL_VERSION}, (
            table.name
        )
    for page in BOARDS.glob("*.md"):
        assert f"rotocol {PROTOCOL_VERSION}" in page.read_text(encoding="utf-8"), page.name
