"""Fixtures of the harness's tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lape_bench.cli import app as cli
from lape_bench.records.predictions import write_predictions
from lape_bench.records.record import Cell, RunRecord, write_record
from tests.lape_bench.http_server import Server

Bench = Callable[..., tuple[int, str, str]]
ESC_FOLDERS = [
    "001 - Dog bark", "002 - Rain", "003 - Sea waves", "004 - Baby cry", "005 - Clock tick",
    "006 - Person sneeze", "007 - Helicopter", "008 - Chainsaw", "009 - Rooster", "010 - Fire crackling",
]  # fmt: skip


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as serving:
        yield serving


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    """Run `bench` in this process; returns exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["bench", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def esc_folder(tmp_path: Path, write_clip: Callable[..., Path]) -> Path:
    """A small ESC-10: one clip of each class in each fold."""
    root = tmp_path / "esc"
    for number, folder in enumerate(ESC_FOLDERS):
        for fold in range(1, 6):
            path = root / folder / f"{fold}-{100 * number + fold}-A.ogg"
            write_clip(path, 10 * number + fold, rate=16_000, format="OGG", subtype="VORBIS")
    return root


@pytest.fixture
def log_probabilities() -> np.ndarray:
    scores = np.random.default_rng(0).normal(size=(4, 3))
    return (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))).astype(np.float32)


@pytest.fixture
def written(tmp_path: Path, log_probabilities: np.ndarray) -> tuple[Path, RunRecord]:
    """A folder with predictions and the record that names them."""
    digest = write_predictions(
        tmp_path, list("wxyz"), np.array([0, 2, 1, 2]), log_probabilities, ("a", "b", "c")
    )
    cell = Cell(system="s", task="t", protocol="linear")
    record = RunRecord(
        cell=cell,
        identity="0" * 64,
        settings={},
        system_version=1,
        status="finished",
        predictions_sha256=digest,
    )
    write_record(tmp_path, record)
    return tmp_path, record
