"""Cells are known by what determines their result: settings in one spelling, and the audio that they learn from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lape_bench.core.config import read_yaml
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import PlannedCell, resolve, version_if_installed, with_preset
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_planned_cell
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.records.record import Cell
from lape_bench.sweep.grid import SweepConfig

pytestmark = pytest.mark.usefixtures("synthetic")


def planned(progress: Progress, system: str = "supervised", **settings: Any) -> PlannedCell:
    cell = Cell(system=system, settings=settings, task="synthetic-sounds", protocol="finetune")
    return resolve(cell, progress).planned


@pytest.mark.parametrize(
    ("settings", "same", "shown"),
    [
        (
            {"finetune": {"learning_rates": [1e-3]}},
            {"finetune": {"learning_rates": ["0.001"]}},
            None,
        ),
        ({"width": 64}, {"width": "64"}, {"width": 64}),
        ({"width": 64, "finetune": {}}, {"width": 64.0}, {"width": 64}),
    ],
    ids=str,
)
def test_two_spellings_of_settings_are_one_cell(
    settings: dict[str, Any], same: dict[str, Any], shown: dict[str, Any] | None, progress: Progress
) -> None:
    one, other = planned(progress, **settings), planned(progress, **same)
    assert one == other
    if shown is not None:
        assert one.cell.settings == shown


def test_every_default_given_by_hand_is_the_cell_without_settings(progress: Progress) -> None:
    plain = planned(progress)
    assert plain.cell.settings == {}
    assert planned(progress, **plain.settings) == plain
    teacher = planned(progress, "unfused")
    assert planned(progress, "unfused", **teacher.settings) == teacher


def test_a_preset_is_its_settings_and_given_settings_change_it(tmp_path: Path) -> None:
    assert with_preset("supervised", "", {"width": 8}) == {"width": 8}
    preset = with_preset("unfused", "paper", {"clusters": 8, "distill": {"epochs": 7}})
    assert preset["clusters"] == 8
    assert preset["distill"]["epochs"] == 7
    assert preset["distill"]["optimizer"]["name"] == "sgd"
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        "systems: [{name: unfused, preset: paper, settings: {clusters: 8, distill: {epochs: 7}}}]\n"
        "tasks: [synthetic-sounds]\n"
    )
    (cell,) = read_yaml(grid, SweepConfig).cells()
    assert cell.settings == preset


@pytest.mark.parametrize("name", SYSTEMS.names())
def test_presets_are_settings_of_their_system(name: str) -> None:
    kind = SYSTEMS.load_kind(name)
    for preset in kind.presets.values():
        assert kind.Settings.model_validate(preset) != kind.Settings()


def test_another_setting_is_another_cell(progress: Progress) -> None:
    assert planned(progress, width=64).identity != planned(progress).identity


@pytest.mark.parametrize(
    ("system", "settings"),
    [
        ("delores-m", lambda corpus: {"corpus": ["target", corpus]}),
        ("unfused", lambda corpus: {"teacher_settings": {"corpus": ["target", corpus]}}),
    ],
    ids=["upstream", "teacher"],
)
def test_a_cell_is_another_one_after_its_corpus_has_changed(
    system: str,
    settings: Callable[[str], dict[str, Any]],
    tmp_path: Path,
    write_clip: Callable[..., Path],
    progress: Progress,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAPE_BENCH_HOME", str(cache))
    corpus = tmp_path / "recordings"
    write_clip(corpus / "1.wav")
    before = planned(progress, system, **settings(str(corpus)))
    assert [*before.corpora] == [str(corpus)]
    assert planned(progress, system, **settings(str(corpus))) == before
    write_clip(corpus / "2.wav", 1)
    assert planned(progress, system, **settings(str(corpus))).identity != before.identity
    with pytest.raises(UserError, match="holds other audio"):
        run_planned_cell(before, RunOptions(out=tmp_path / "results"), progress)


@pytest.mark.parametrize(
    ("name", "version"), [("supervised", int), ("hear:evil", int), ("evil.py:E", type(None))]
)
def test_the_version_of_a_system_is_known_without_the_code_that_its_name_leads_to(
    name: str, version: type
) -> None:
    assert isinstance(version_if_installed(name), version)
