"""The description of UnFuSeD's tables agrees with the systems that fill them."""

from itertools import chain

import pytest

from lape_bench.core.config import flatten
from lape_bench.data.catalog import suite_tasks
from lape_bench.evaluation.plan import load_system
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.report.papers.specification import PaperSystem, load_paper

PAPER = load_paper("unfused")
ROWS = [*PAPER.systems, *PAPER.ablated]


def test_every_task_of_the_suite_has_a_short_heading() -> None:
    assert set(PAPER.headings) == set(suite_tasks("lape"))


def test_no_system_of_the_project_is_forgotten() -> None:
    arguments = {"checkpoint", "hear", "hf", "torchaudio"}  # each stands for many
    assert {row.name for row in ROWS} == set(SYSTEMS.names()) - arguments


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_a_row_asks_for_settings_that_its_system_has(row: PaperSystem) -> None:
    kind = load_system(row.name).Settings
    assert set(row.settings) <= set(flatten(kind().model_dump()))


def test_defaults_are_those_of_the_system() -> None:
    for name, defaults in PAPER.defaults.items():
        own = flatten(load_system(name).Settings().model_dump())
        assert {key: own[key] for key in defaults} == defaults
        asked = chain.from_iterable(row.settings for row in PAPER.systems if row.name == name)
        assert set(asked) == set(defaults)


@pytest.mark.parametrize("row", PAPER.ablated, ids=lambda row: row.label)
def test_an_ablation_changes_something(row: PaperSystem) -> None:
    own = flatten(load_system(row.name).Settings().model_dump())
    assert any(own[key] != value for key, value in row.settings.items())
