import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lape_bench.data.catalog import load_card
from tests.lape_bench.conftest import Bench


@pytest.fixture
def model(bench: Bench, own_artifacts: Path, tmp_path: Path) -> str:
    """The folder of a cell with a kept model."""
    out = str(tmp_path / "results")
    run = ("run", "--system", "log-mel-statistics", "--keep-model", "--out", out, "-q")
    assert bench(*run)[0] == 0
    return str(next((tmp_path / "results").rglob("record.json")).parent)


def test_predict_prints_class_and_probability_of_each_file_as_csv_or_json(
    model: str, bench: Bench, tmp_path: Path, write_clip: Callable[..., Path]
) -> None:
    clips = [str(write_clip(tmp_path / f"{seed}.wav", seed)) for seed in range(2)]
    code, table, said = bench("predict", model, *clips)
    rows = list(csv.DictReader(io.StringIO(table)))
    assert (code, said, [row["file"] for row in rows]) == (0, "", clips)
    code, text, _ = bench("predict", model, *clips, "--format", "json", "--all-classes")
    for row, other in zip(rows, json.loads(text), strict=True):
        assert row["predicted"] == other["predicted"]
        assert float(row["probability"]) == pytest.approx(other["probability"], abs=1e-6)
        probabilities = [other[f"P({name})"] for name in load_card("synthetic-sounds").classes]
        assert sum(probabilities) == pytest.approx(1)
        assert max(probabilities) == other["probability"]


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_classified(
    model: str, bench: Bench, tmp_path: Path, write_clip: Callable[..., Path]
) -> None:
    good, missing = str(write_clip(tmp_path / "good.wav")), str(tmp_path / "missing.wav")
    code, table, said = bench("predict", model, missing, good)
    assert code == 1
    assert [row["file"] for row in csv.DictReader(io.StringIO(table))] == [good]
    assert said == f"left out: {missing}: cannot be read (No such file or directory)\n"


def test_mistakes_of_usage_end_with_2(model: str, bench: Bench, tmp_path: Path) -> None:
    assert bench("predict", model)[0] == 2
    code, _, said = bench("predict", str(tmp_path), "a.wav")
    assert code == 2
    assert "holds no kept model" in said
    code, _, said = bench("predict", model, "a.wav", "--format", "xml")
    assert code == 2
    assert "known: csv, json" in said
