"""What a killed run left is compared with its checksums; a damaged work folder costs time and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
import pytest
import torch

from lape_bench.core.config import Config
from lape_bench.core.progress import Progress
from lape_bench.data.audio_store import Clips
from lape_bench.evaluation import cell_run, train_and_score
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_cell
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.records.record import Cell, ParameterCounts, RunRecord, cell_folder
from lape_bench.runtime.device import Compute
from lape_bench.system import RunContext, System, TrainingData, TrainingSummary

CPU = Compute(device="cpu", precision="float32")


class Means(System):
    """Scores clips by random projections of their first samples, which it draws when it is trained."""

    class Settings(Config):
        """None."""

    protocols = ("finetune",)

    def train(self, data: TrainingData, context: RunContext) -> TrainingSummary:
        self.weights = np.random.default_rng(0).normal(size=(64, len(self.target.classes)))
        return TrainingSummary(selection={}, validation=None)

    def score(self, clips: Clips, context: RunContext) -> torch.Tensor:
        rows = np.stack([np.resize(clips[index], 64) for index in range(len(clips))])
        return torch.log_softmax(torch.from_numpy(rows @ self.weights), 1)

    def count_parameters(self) -> ParameterCounts:
        return ParameterCounts(encoder=0, inference=1, training=1)

    def count_macs(self) -> int:
        return 0

    def save(self, folder: Path) -> None:
        np.save(folder / "weights.npy", self.weights)

    def load(self, folder: Path, context: RunContext) -> Self:
        if (context.work_folder / "own-state").exists():
            raise ValueError("it cannot read its own state")
        self.weights = np.load(folder / "weights.npy")
        return self


def run(out: Path) -> RunRecord:
    cell = Cell(system=SYSTEMS.register_class(Means), task="synthetic-sounds", protocol="finetune")
    return run_cell(cell, RunOptions(out=out, compute=CPU), Progress(quiet=True))


@pytest.fixture
def killed(synthetic: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, str]:
    """The work folder of a run that was killed while it scored, and the predictions of one that was not."""
    reference = run(tmp_path / "reference")

    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cell_run, "score", kill)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "out")
    folder = cell_folder(tmp_path / "out", reference.cell, reference.identity)
    assert reference.predictions_sha256 is not None
    return folder / "work", reference.predictions_sha256


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_whole_work_folder_is_taken_up(
    killed: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        train_and_score, "save_model", None
    )  # nothing is trained, so that nothing is saved
    record = run(tmp_path / "out")
    assert (record.predictions_sha256, record.resumed) == (killed[1], 1)


@pytest.mark.parametrize(
    "damage",
    [
        lambda work: flip(work / "model" / "weights.npy"),
        lambda work: (work / "model" / "weights.npy").unlink(),
        lambda work: flip(work / "trained.json"),
        lambda work: (work / "trained.json").write_text(""),
        lambda work: [flip(path) for path in work.rglob("*") if path.is_file()],
    ],
    ids=["a bit of the model", "no model", "a bit of the summary", "no summary", "a bit of each"],
)
def test_a_damaged_work_folder_starts_the_cell_again_with_a_word(
    damage: Callable[[Path], object],
    killed: tuple[Path, str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    work, predictions = killed
    damage(work)
    record = run(tmp_path / "out")
    assert record.status == "finished", record.error
    assert (record.predictions_sha256, record.resumed) == (predictions, 0)
    assert "starting again" in caplog.text
    assert "damaged" in caplog.text or "missing" in caplog.text
    assert not work.exists()


def test_files_of_a_plug_in_that_break_its_run_are_dropped_with_the_work_folder(
    killed: tuple[Path, str], tmp_path: Path
) -> None:
    work, predictions = killed
    (work / "own-state").write_text("damaged")
    record = run(tmp_path / "out")
    assert (record.predictions_sha256, record.resumed) == (predictions, 0)
