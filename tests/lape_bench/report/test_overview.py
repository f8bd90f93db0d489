"""The overview: averages and ranks by hand, its places in 80 columns, and the fields that programs rely on."""

import csv
import io
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from lape_bench.core.errors import UserError
from lape_bench.report.latex import latex
from lape_bench.report.leaderboard import leaderboard
from lape_bench.report.overview import Overview, OverviewScore, OverviewSystem, overviews
from lape_bench.report.overview_view import (
    OverviewView,
    as_csv,
    as_json,
    as_table,
    rank_text,
    short_count,
)
from lape_bench.results.load import load_results
from tests.lape_bench.conftest import Bench
from tests.lape_bench.report.test_leaderboard import write, write_scores

RIGHT = {  # clips of 100 that a system has right, by task
    "good": {"a": 90, "b": 80, "c": 70},
    "fair": {"a": 60, "b": 85, "c": 50},
    "poor": {"a": 30, "b": 35, "c": 30},
    "partial": {"a": 99},
}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    labels = np.arange(100) % 3
    for system, tasks in RIGHT.items():
        for task, right in tasks.items():
            for seed in range(2):
                scores = np.zeros((100, 3), np.float32)
                predicted = (labels + (np.arange(100) + seed >= right)) % 3
                scores[np.arange(100), predicted] = 5
                groups = [f"g{clip // 5}" for clip in range(100)]
                write_scores(
                    tmp_path / "r", labels, scores, seed, groups=groups, system=system, task=task
                )
    return tmp_path / "r"


@pytest.fixture
def overview(out: Path) -> Overview:
    (only,) = overviews(load_results([out]))
    return only


def of(overview: Overview, system: str) -> OverviewSystem:
    return next(each for each in overview.systems if each.system == system)


def test_averages_and_ranks_are_over_the_systems_that_have_every_task(overview: Overview) -> None:
    assert [each.system for each in overview.systems] == ["good", "fair", "poor", "partial"]
    assert of(overview, "good").average == pytest.approx((89.5 + 79.5 + 69.5) / 300)
    ranks = {each.system: each.average_rank for each in overview.systems}
    assert ranks == {"good": 4 / 3, "fair": 5 / 3, "poor": 3.0, "partial": None}
    assert (of(overview, "partial").average, of(overview, "partial").scores["a"].rank) == (
        None,
    ) * 2


def test_systems_that_differ_by_rounding_alone_share_rank_and_mark(tmp_path: Path) -> None:
    labels = np.arange(10) % 3
    for system, by_seed in (("a", (1, 2, 3)), ("b", (3, 2, 1)), ("c", (0, 0, 0))):
        for seed, right in enumerate(by_seed):
            scores = np.eye(3, dtype=np.float32)[(labels + (np.arange(10) >= right)) % 3]
            write_scores(tmp_path, labels, scores, seed, system=system)
    (overview,) = overviews(load_results([tmp_path]))
    assert of(overview, "a").average != of(overview, "b").average
    assert [of(overview, system).average_rank for system in "abc"] == [1.5, 1.5, 3]
    assert [row.entries[1].rank for row in as_table(overview).rows] == ["best", "best", "second"]


def test_without_a_system_on_every_task_there_is_no_rank(tmp_path: Path) -> None:
    labels = np.arange(60) % 3
    for task, systems in (("a", "xy"), ("b", "z")):
        for system, seed in product(systems, range(2)):
            right = np.arange(60) < 20 + 30 * (system == "x") + seed
            scores = np.eye(3, dtype=np.float32)[(labels + ~right) % 3]
            write_scores(tmp_path, labels, scores, seed, system=system, task=task)
    results = load_results([tmp_path])
    assert leaderboard(results.cells, results.predictions)["rank_best"].notna().any()
    (overview,) = overviews(results)
    assert {s.rank for system in overview.systems for s in system.scores.values()} == {None}


def test_a_score_of_some_folds_is_named_and_never_best(tmp_path: Path) -> None:
    labels = np.arange(10) % 3
    for system, right, folds in (("part", 10, 1), ("whole", 5, 2), ("other", 4, 2)):
        for fold in range(1, folds + 1):
            scores = np.eye(3, dtype=np.float32)[(labels + (np.arange(10) >= right)) % 3]
            write_scores(tmp_path, labels, scores, 0, fold, folds=2, system=system)
    (overview,) = overviews(load_results([tmp_path]))
    table = as_table(overview)
    ranks = {row.entries[0].text: row.entries[1].rank for row in table.rows}
    assert ranks == {"whole": "best", "other": "second", "part": ""}
    assert any("part on t (1 fold)" in line for line in table.remarks)


def test_the_interval_of_an_average_rank_is_the_mean_of_those_of_the_tasks(
    overview: Overview,
) -> None:
    system = of(overview, "poor")
    ends = [score.rank for score in system.scores.values()]
    assert system.average_rank_interval == tuple(np.mean(ends, axis=0))
    low, high = system.average_rank_interval or (0, 0)
    assert low <= 3 <= high


def test_one_kind_of_data_protocol_and_labels_is_chosen(out: Path) -> None:
    results = load_results([out])
    assert len(overviews(results, protocol="linear", labels="100%")) == 1
    with pytest.raises(UserError, match="no results for knn"):
        overviews(results, protocol="knn")


def test_tasks_of_references_alone_are_left_out_beside_own_results(out: Path) -> None:
    results = load_results([out])
    reference = (results.cells["system"] != "partial").astype("int64")
    cells = results.cells.assign(reference=reference)
    (only,) = overviews(type(results)(cells, results.predictions, []))
    assert [task.task for task in only.tasks] == ["a"]
    assert [each.system for each in only.systems if not each.reference] == ["partial"]


def system(name: str, tasks: list[str]) -> OverviewSystem:
    score = OverviewScore(
        score=0.5, std=0.01, interval=0.02, seeds=3, folds=5, complete=True, rank=(1, 3)
    )
    return OverviewSystem(
        system=name,
        reference=True,
        average=0.5,
        average_rank=2.3,
        average_rank_interval=(1.5, 13.0),
        encoder_parameters=5_321_856,
        seconds=123.4,
        scores=dict.fromkeys(tasks, score),
    )


@pytest.mark.parametrize("count", [1, 4, 11])
def test_it_fits_in_80_columns_and_names_every_task_once(count: int) -> None:
    tasks = ["asc-keywords", "asc-speaker", "esc10", "fsdd-digits", "tut-urban-2018", "birdsong"]
    tasks = [*tasks, "librispeech-speaker", "sc-v2-35", "voxforge", "us8k", "nsynth"][:count]
    overview = Overview(
        data="real",
        protocol="linear",
        labels="5-shot",
        tasks=[{"task": task, "metric": "accuracy"} for task in tasks],
        systems=[system("examples.py:SomeEncoder (width=512)", tasks)],
    )
    console = Console(width=80, file=io.StringIO())
    console.print(OverviewView(overview))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("50.0") == count + 1
    assert "2.3 (1.5\u201313.0)" in text
    assert latex([as_table(overview)]).count("50.0") == count + 1


def test_numbers_are_short() -> None:
    assert [short_count(n) for n in (0, 999, 600_192, 5_321_856, 94_000_000, None)] == [
        *("0", "999", "600k", "5.3M", "94M", "?")
    ]
    assert rank_text(system("s", [])) == "2.3 (1.5\u201313.0)"


def test_the_fields_that_programs_read_are_those_of_version_1(overview: Overview) -> None:
    (plain,) = json.loads(as_json([overview]))
    fields = ["schema_name", "schema_version", "data", "protocol", "labels", "tasks", "systems"]
    assert [*plain] == fields
    assert plain["schema_version"] == 1
    assert [*plain["systems"][0]] == [
        *("system", "reference", "average", "average_rank", "average_rank_interval"),
        *("encoder_parameters", "seconds", "contamination", "scores"),
    ]
    fields = ["score", "std", "interval", "seeds", "folds", "complete", "rank", "contamination"]
    assert [*plain["systems"][0]["scores"]["a"]] == fields
    rows = [*csv.DictReader(io.StringIO(as_csv([overview])))]
    assert [*rows[0]] == [
        *("schema_version", "data", "protocol", "labels", "system", "reference", "average"),
        *("average_rank", "encoder_parameters", "seconds", "average_rank_low"),
        *("average_rank_high", "task", "metric", "score", "std", "interval", "seeds", "folds"),
        *("complete", "contamination", "rank_best", "rank_worst"),
    ]
    assert len(rows) == 10


@pytest.mark.parametrize("format", ["terminal", "markdown", "csv", "latex", "json"])
def test_the_command_writes_every_format(out: Path, bench: Bench, format: str) -> None:
    code, text, _ = bench("overview", "--out", str(out), "--format", format)
    assert (code, "partial" in text) == (0, True)


def test_seeds_by_another_metric_are_another_column(tmp_path: Path, bench: Bench) -> None:
    for seed in range(4):
        write(tmp_path, seed, metric="accuracy" if seed < 2 else "macro_f1")
    for command in ("overview", "report"):
        code, told, error = bench(command, "--out", str(tmp_path))
        assert (code, error) == (0, "")
        assert "macro_f1" in told
    assert bench("report", "--out", str(tmp_path), "--html", str(tmp_path / "p.html"))[0] == 0
