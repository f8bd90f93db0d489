"""Descriptions of a paper's tables: found by name or path, refused where they contradict themselves."""

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml

from lape_bench.core.config import validate
from lape_bench.core.errors import UserError
from lape_bench.plugins import registry
from lape_bench.report.papers.specification import PaperSpecification, load_paper

PAPER: dict[str, Any] = {
    "title": "A paper",
    "groups": [
        {"title": "Speech", "domains": ["speech"]},
        {"title": "Other", "domains": ["sound", "music", "bioacoustics"]},
    ],
    "systems": [
        {"label": "Floor", "name": "log-mel-statistics"},
        {"label": "Wide", "name": "s", "settings": {"net": {"width": 64}, "a.b": 1}},
    ],
    "reference": "Floor",
    "ablations": {"base": "Wide", "rows": [{"label": "narrow", "settings": {"net.width": 8}}]},
}


def test_a_file_is_read_and_settings_get_dotted_keys(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(PAPER))
    paper = load_paper(str(path))
    assert paper.system("Wide").settings == {"net.width": 64, "a.b": 1}
    (narrow,) = paper.ablated
    assert (narrow.name, narrow.settings) == ("s", {"net.width": 8, "a.b": 1})


def test_an_installed_paper_is_found_by_its_name() -> None:
    assert load_paper("unfused").source == "arXiv:2303.05668"


def test_an_unknown_paper_gets_the_nearest_and_what_else_may_be_given() -> None:
    with pytest.raises(UserError, match=r"no paper 'unfuse': did you mean 'unfused'.*YAML file"):
        load_paper("unfuse")


def test_a_package_that_registers_a_paper_without_a_file_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def registered(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
        return (EntryPoint("lost", "json", group),)

    monkeypatch.setattr(registry, "registered", registered)
    with pytest.raises(UserError, match=r"'lost' of an unnamed package.*lost\.yaml"):
        load_paper("lost")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"reference": "Flor"}, "reference: there is no label 'Flor': did you mean 'Floor'"),
        (
            {"ablations": {"base": "x", "rows": [{"label": "y", "settings": {"z": 1}}]}},
            "ablations.base: there is no label 'x'",
        ),
        (
            {"ablations": {"base": "Wide", "rows": [{"label": "Floor", "settings": {"z": 1}}]}},
            "the label 'Floor' appears twice",
        ),
        ({"systems": [PAPER["systems"][0]] * 2, "ablations": None}, "'Floor' appears twice"),
        ({"groups": [{"title": t, "domains": ["speech"]} for t in "ab"]}, "is in two of them"),
        ({"groups": [{"title": "a", "domains": ["noise"]}]}, "'groups.0.domains.0'"),
        ({"protocol": "probe"}, "'protocol'"),
        ({"label_budgets": ["10%", "200%"]}, "'label_budgets.1'"),
        ({"tile": 1}, "'tile' is not a known key: did you mean 'title'"),
    ],
)
def test_a_description_that_does_not_hold_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        validate({**PAPER, **change}, PaperSpecification, where="mine.yaml")
