"""Grids are expanded, checked, and restricted to some of their tasks."""

from pathlib import Path

import pytest

from lape_bench.core.config import read_yaml
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import ImpossibleCell, load_system
from lape_bench.sweep.grid import PlannedItem, Resources, SweepConfig, plan_sweep
from tests.lape_bench.sweep.conftest import GRID


def test_a_grid_expands_to_its_cells(grid: SweepConfig) -> None:
    assert len(grid.cells()) == (1 + 2) * 2 * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("seeds: 0", "'seeds'"),
        ("label_fractions: [0.1, 2.0]", "'label_fractions.1'"),
        ("label_fractions: [.nan]", "'label_fractions.0'"),
        ("protocols: [fine-tune]", "did you mean 'finetune'"),
        ("task: [esc10]", "'task' is not a known key: did you mean 'tasks'"),
        ("systems: []", "'systems'"),
        ("tasks: synthetic-sounds", "'tasks': Input should be a list"),
    ],
)
def test_a_wrong_grid_is_refused_with_the_path_of_the_key(
    line: str, message: str, tmp_path: Path
) -> None:
    key = line.split(":")[0]
    lines = [row for row in GRID.splitlines() if not row.startswith(f"{key}:")]
    if key == "systems":
        lines = [row for row in lines if not row.startswith("  ")]
    path = tmp_path / "grid.yaml"
    path.write_text("\n".join([*lines, line]))
    with pytest.raises(UserError, match=message):
        read_yaml(path, SweepConfig).cells()


def test_a_grid_of_some_tasks_has_the_cells_of_those_tasks(grid: SweepConfig) -> None:
    both = grid.model_copy(update={"tasks": ("synthetic-sounds", "esc10")})
    part = both.only(["esc10"]).cells()
    assert part == [cell for cell in both.cells() if cell.task == "esc10"]
    assert len(part) == 5 * len(grid.cells())  # five folds each


def test_a_sweep_may_hold_further_grids_with_settings_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "grids.yaml"
    path.write_text(
        GRID
        + "grids:\n"
        + "  - systems: [{name: supervised, settings: {width: 32}}]\n"
        + "    tasks: [esc10]\n"
        + "    seeds: 1\n"
    )
    grids = read_yaml(path, SweepConfig)
    assert len(grids.cells()) == (1 + 2) * 2 * 2 + 5
    assert {cell.settings["width"] for cell in grids.only(["esc10"]).cells()} == {32}
    assert {cell.task for cell in grids.only(["synthetic-sounds"]).cells()} == {"synthetic-sounds"}


def test_an_unknown_task_is_refused_with_the_tasks_of_the_grid(grid: SweepConfig) -> None:
    with pytest.raises(
        UserError, match="there is no task of this grid 'esc10'; known: synthetic-sounds"
    ):
        grid.only(["esc10"])


def test_each_grid_of_a_sweep_has_its_own_resources(tmp_path: Path) -> None:
    path = tmp_path / "grids.yaml"
    path.write_text(
        GRID
        + "resources: {cores: 4, gpus: 0.5}\n"
        + "grids:\n"
        + "  - {systems: [log-mel-statistics], tasks: [esc10], resources: {memory_gib: 2}}\n"
    )
    resources = {item.cell.task: item.resources for item in read_yaml(path, SweepConfig).items()}
    assert resources["synthetic-sounds"] == Resources(cores=4, gpus=0.5)
    assert resources["esc10"] == Resources(cores=1, memory_gib=2, gpus=None)


@pytest.mark.parametrize("resources", ["cores: 0", "gpus: -1", "memory_gib: 0", "nodes: 2"])
def test_impossible_resources_are_refused(resources: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(f"{GRID}resources: {{{resources}}}\n")
    with pytest.raises(UserError, match=f"resources.{resources.split(':')[0]}"):
        read_yaml(path, SweepConfig)


def plan_of(systems: list[object], **more: object) -> list[PlannedItem | ImpossibleCell]:
    values = {"systems": systems, "tasks": ["synthetic-sounds"], "protocols": ["finetune"], **more}
    return plan_sweep(SweepConfig.model_validate(values).items(), Progress(quiet=True))


def test_a_cell_that_a_sweep_holds_twice_is_planned_once(synthetic: Path) -> None:
    default = load_system("supervised").Settings().width
    same = {"name": "supervised", "settings": {"width": default}}
    other = {"name": "supervised", "settings": {"width": 16}}
    again = {
        "systems": [same, other],
        "tasks": ["synthetic-sounds", "synthetic-sounds"],
        "seeds": 2,
    }
    plan = plan_of(["supervised", same], grids=[again])
    assert [(item.cell.settings, item.cell.seed) for item in plan] == [
        ({}, 0),
        ({}, 1),
        ({"width": 16}, 0),
        ({"width": 16}, 1),
    ]
    assert len(plan_of(["log-mel-statistics"], tasks=["esc10", "esc10"], protocols=["linear"])) == 5


def test_a_label_of_two_systems_is_refused_before_a_cell_runs(synthetic: Path) -> None:
    entries = [
        {"name": "supervised", "settings": {"width": width}, "label": "ours"} for width in (16, 32)
    ]
    assert len(plan_of([entries[0], {**entries[0], "label": ""}])) == 1
    with pytest.raises(
        UserError,
        match=r"label 'ours' is given to supervised .width=16. and to supervised .width=32.",
    ):
        plan_of(entries)
