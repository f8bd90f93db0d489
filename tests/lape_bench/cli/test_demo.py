"""`bench demo`: the method of the paper beside its baselines, as an ordinary sweep."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lape_bench.cli import demo
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import PlannedCell
from lape_bench.sweep.grid import PlannedItem, SweepConfig, plan_sweep

Bench = Callable[..., tuple[int, str, str]]


def test_the_demo_plans_unfused_its_teacher_and_two_baselines_with_a_tenth_of_the_labels(
    synthetic: Path, bench: Bench, progress: Progress
) -> None:
    code, out, _ = bench("demo", "--show-grid")
    assert code == 0
    items = plan_sweep(SweepConfig.model_validate(yaml.safe_load(out)).items(), progress)
    cells: list[PlannedCell] = [item.planned for item in items if isinstance(item, PlannedItem)]
    assert len(cells) == len(items)
    assert [(c.cell.system, c.settings.get("downstream_encoder")) for c in cells] == [
        ("unfused", "student"),
        ("unfused", "teacher"),
        ("supervised", None),
        ("log-mel-statistics", None),
    ]
    assert {(c.cell.task, c.cell.labels, c.cell.seed) for c in cells} == {
        ("synthetic-sounds", "10%", 0)
    }
    student, teacher = (dict(c.settings) for c in cells[:2])
    assert student | {"downstream_encoder": "teacher"} == teacher  # the two differ in nothing else


def test_the_demo_ends_in_a_leaderboard_with_short_names_and_says_what_to_do_next(
    synthetic: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    grid = tmp_path / "demo.yaml"
    grid.write_text(
        "systems:\n"
        "  - {name: log-mel-statistics, settings: {linear: {C: [0.1]}}}\n"
        "tasks: [synthetic-sounds]\n"
        "label_fractions: [0.1]\n"
    )
    monkeypatch.setattr(demo, "demo_grid", lambda: grid)
    code, out, err = bench(
        "demo", "--out", str(tmp_path / "r"), "--device", "cpu", "--threads", "1"
    )
    assert code == 0
    assert "synthetic-sounds [synthetic], linear, 10 % of labels" in out
    assert "  log-mel-statistics  " in out  # without its settings
    assert demo.WHAT in err + out
    assert demo.NEXT in err + out
