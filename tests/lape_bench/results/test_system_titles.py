"""What systems are called in reports."""

import json
import os
from pathlib import Path

import pandas as pd
import pytest

from lape_bench.core.errors import UserError
from lape_bench.records.record import Cell
from lape_bench.results.system_titles import (
    check_label,
    refuse_taken_label,
    system_title,
    with_titles,
)
from tests.lape_bench.conftest import Bench


def cell(name: str, label: str = "", provenance: str = "", **settings: object) -> dict[str, object]:
    return {
        "name": name,
        "settings": json.dumps(settings),
        "system_version": 1,
        "provenance_hash": provenance,
        "label": label,
    }


def titles(*cells: dict[str, object]) -> tuple[list[str], list[str]]:
    titled, problems = with_titles(pd.DataFrame(cells))
    return list(titled["system"]), problems


def test_a_title_shows_settings_without_the_folders_of_paths() -> None:
    settings = {"teacher": "checkpoint:/home/me/e.pt", "corpus": ["asc", "/data/audio"], "k": 8}
    title = "unfused (teacher=checkpoint:e.pt, corpus=asc,audio, k=8)"
    assert system_title("unfused", settings) == title


def test_a_label_names_every_cell_of_a_system_and_the_last_one_counts() -> None:
    cells = cell("s"), cell("s", label="old"), cell("s", label="new"), cell("s"), cell("s", k=1)
    assert titles(*cells) == (["new", "new", "new", "new", "s (k=1)"], [])


def test_two_systems_do_not_share_a_label() -> None:
    names, problems = titles(cell("s", label="mine"), cell("s", label="mine", k=1), cell("t"))
    assert names == ["s", "s (k=1)", "t"]
    assert len(problems) == 2
    assert "'mine' is left out for s (k=1)" in problems[0]


def test_a_label_that_is_another_systems_own_name_is_left_out() -> None:
    assert titles(cell("s", label="t"), cell("t"))[0] == ["s", "t"]
    assert titles(cell("s", label="t"), cell("t", k=1))[0] == ["s", "t (k=1)"]
    assert titles(cell("s", label="t"), cell("t", label="u"))[0] == ["s", "u"]
    assert titles(cell("s", k=1, label="s"))[0] == ["s"]


def test_settings_that_differ_in_folders_alone_are_told_apart() -> None:
    first, second = titles(cell("s", corpus="/a/audio"), cell("s", corpus="/b/audio"))[0]
    assert first != second
    assert first.startswith("s (corpus=audio) [settings ")


@pytest.mark.parametrize(("label", "systems"), [("<b>", 1), ("", 1), ("mine", 2)])
def test_a_label_that_no_record_could_hold_or_that_merges_systems_is_refused(
    label: str, systems: int
) -> None:
    with pytest.raises(UserError, match="label"):
        check_label(label, systems)


def test_a_label_names_a_finished_system_without_another_run(
    synthetic: Path, tmp_path: Path, bench: Bench
) -> None:
    run = ("run", "--system", "log-mel-statistics", "-q", "--out", str(tmp_path / "r"))
    assert bench(*run)[0] == 0
    record = next((tmp_path / "r").rglob("record.json"))
    finished_at = json.loads(record.read_text())["finished_at"]
    code, out, _ = bench(*run, "--label", "my floor")
    assert (code, "my floor" in out) == (0, True)
    assert json.loads(record.read_text())["finished_at"] == finished_at
    assert "wrong" not in bench("verify", str(tmp_path / "r"))[1].replace("none wrong", "")
    code, _, problem = bench(*run, "--label", "my floor", "--set", "linear.C=[0.5]")
    assert (code, "with the label 'my floor'" in problem) == (2, True)


def test_a_named_pipe_among_records_is_passed_over_when_a_label_is_looked_for(
    tmp_path: Path,
) -> None:
    (tmp_path / "x").mkdir()
    os.mkfifo(tmp_path / "x" / "record.json")
    own = Cell(system="s", task="t", protocol="linear")
    refuse_taken_label(tmp_path, own, "mine")
