"""Where a system stands: its place, the nearest systems with the differences of `bench compare`, and the curve."""

from pathlib import Path

import numpy as np
import pytest

from lape_bench.core.errors import UserError
from lape_bench.report.compare import compare_over_tasks
from lape_bench.report.standing import Standing, standing
from lape_bench.report.system_pair import find_pair
from lape_bench.results.load import Results, load_results
from tests.lape_bench.conftest import Bench
from tests.lape_bench.report.test_leaderboard import write_scores

RIGHT = {"best": 0.9, "mine": 0.6, "worst": 0.3}
ENCODER = """
import torch

class MyEncoder:
    sample_rate, embedding_size = 16_000, 4

    def __call__(self, waveforms):
        return waveforms.abs().unfold(1, 4000, 4000).mean(dim=(1, 2))[:, None].repeat(1, 4)
"""


@pytest.fixture
def results(tmp_path: Path) -> Results:
    random = np.random.default_rng(0)
    labels = np.arange(120) % 3
    for system, right in RIGHT.items():
        for task in ("a", "b"):
            for budget, more in (("1-shot", -0.2), ("10%", 0.0)):
                for seed in range(3):
                    wrong = random.random(120) > right + more
                    scores = np.zeros((120, 3), np.float32)
                    scores[np.arange(120), (labels + wrong) % 3] = 5
                    how = {"system": system, "task": task, "labels": budget}
                    groups = [f"g{clip // 10}" for clip in range(120)]
                    write_scores(tmp_path / "r", labels, scores, seed, groups=groups, **how)
    return load_results([tmp_path / "r"])


@pytest.fixture
def mine(results: Results) -> Standing:
    return standing(results, "mine")


def test_the_nearest_systems_are_named_with_the_difference_over_tasks(
    results: Results, mine: Standing
) -> None:
    assert [(each.side, each.system) for each in mine.neighbors] == [
        ("above", "best"),
        ("below", "worst"),
    ]
    for neighbor in mine.neighbors:
        pairs = [
            find_pair(results, "mine", neighbor.system, task, "linear", "10%") for task in "ab"
        ]
        expected = compare_over_tasks(pairs).verdict
        assert neighbor.verdict is not None
        assert neighbor.verdict.model_copy(update={"p_holm": None}) == expected
        assert neighbor.verdict.p_holm is not None


def test_systems_of_one_mean_share_a_place(tmp_path: Path) -> None:
    labels = np.arange(10) % 3
    for system, by_seed in (("a", (3, 2, 1)), ("b", (1, 2, 3)), ("c", (0, 0, 0))):
        for seed, right in enumerate(by_seed):
            scores = np.eye(3, dtype=np.float32)[(labels + (np.arange(10) >= right)) % 3]
            write_scores(tmp_path, labels, scores, seed, system=system)
    results = load_results([tmp_path])
    places = {system: standing(results, system).curve[0].place for system in "abc"}
    assert places == {"a": 1, "b": 1, "c": 3}


def test_the_curve_goes_from_few_labels_to_many(mine: Standing) -> None:
    assert [(point.labels, point.place, point.systems) for point in mine.curve] == [
        ("1-shot", 2, 3),
        ("10%", 2, 3),
    ]
    assert mine.curve[0].average < mine.curve[1].average


def test_the_text_names_place_neighbors_curve_and_cost(mine: Standing) -> None:
    text = str(mine)
    for part in ("place 2 of 3", "next above: best", "next below: worst", "1 label per class"):
        assert part in text
    assert "12 cells" in text


def test_the_best_system_has_nobody_above(results: Results) -> None:
    assert [each.side for each in standing(results, "best").neighbors] == ["below"]


def test_a_choice_without_results_is_refused(results: Results) -> None:
    with pytest.raises(UserError, match="no results for linear, 5-shot"):
        standing(results, "mine", labels="5-shot")


def test_one_command_places_an_encoder_of_a_file_from_an_empty_folder(
    synthetic: Path, tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_encoder.py").write_text(ENCODER)
    monkeypatch.chdir(tmp_path)
    code, out, problems = bench(
        *(
            "evaluate",
            "my_encoder.py:MyEncoder",
            "--suite",
            "synthetic",
            "--shots",
            "1,5",
            "--seeds",
            "2",
        ),
        *("--device", "cpu", "-q", "--html", "page.html"),
    )
    assert code == 0, problems
    assert "my_encoder.py:MyEncoder: place " in out
    assert "next above: log-mel-statistics" in out
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert bench("evaluate", "x", "--budget", "huge")[0] == 2
