"""The harness of the checks: a few clips of the synthetic task, a seed, and a temporary folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lape_bench.conformance.claims import ClaimFailed, ClaimSkipped
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.data.catalog import load_card
from lape_bench.data.prepare import ensure_prepared
from lape_bench.runtime.device import Compute
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.system import LabeledClips, RunContext, System, TargetTask, TrainingData

TASK = "synthetic-sounds"
CLIPS_A_CLASS = {"train": 8, "val": 4, "test": 4}
SAME_WITHIN = (
    0.05  # of log-probabilities: kernels may round differently for another batch size in bf16
)


@dataclass(frozen=True)
class CheckData:
    """The clips of a check, all at one rate."""

    train: LabeledClips
    validation: LabeledClips
    test: LabeledClips


def target_task() -> TargetTask:
    """Return the synthetic task as a system sees it."""
    card = load_card(TASK)
    return TargetTask(classes=card.classes, window_seconds=card.window_seconds, metric=card.metric)


def load_check_data(rate: int, progress: Progress) -> CheckData:
    """Return some clips of each class and split of the synthetic task, at a sample rate in Hz."""
    card = load_card(TASK)
    manifest = ensure_prepared(card, progress)
    clips, table = manifest.open_clips(rate), manifest.clips
    number = {label: index for index, label in enumerate(card.classes)}
    labels = torch.tensor([number[label] for label in table["label"]])

    def side(name: str) -> LabeledClips:
        positions = np.flatnonzero(table["split"] == name)
        by_class = table.iloc[positions].groupby("label").indices.values()
        rows = np.concatenate([positions[rows[: CLIPS_A_CLASS[name]]] for rows in by_class])
        return LabeledClips(clips.select(rows).numbered(), labels[rows], torch.arange(len(rows)))

    return CheckData(*(side(name) for name in CLIPS_A_CLASS))


class Harness:
    """A system's class, under one protocol, on the check's clips.

    Args:
        make: builds an untrained system.
        clips: the clips that it learns from and scores.
        compute: device, precision and threads.
        folder: the folder for all files that are written.
        resampled_train: the train clips at further rates, by the rate in Hz.

    Attributes:
        reported_epochs: how often the trainings by `trained` have called `context.on_epoch`.
    """

    def __init__(
        self,
        make: Callable[[], System],
        clips: CheckData,
        compute: Compute,
        folder: Path,
        resampled_train: Mapping[int, Clips] | None = None,
    ) -> None:
        self.make, self.folder, self.test = make, folder, clips.test
        self.resampled_train = resampled_train or {}
        self.device, self.precision = compute.resolve()
        self.data = TrainingData(clips.train.clips, clips.train, None)
        self.reported_epochs = 0

    def context(self, name: str, device: torch.device | None = None) -> RunContext:
        """Return the context of a run with a work folder of this name."""
        work, device = self.folder / name, device or self.device
        work.mkdir(exist_ok=True)
        seeds, profiler = Seeds(0, "check"), StageProfiler(device)
        context = RunContext(device, self.precision, seeds, Progress(quiet=True), work, profiler)
        # A folder of its own, or a second training would find the artifacts of the first.
        context.artifact_folder = work / "artifacts"
        context.resampled_train = self.resampled_train
        context.checkpoint_seconds = 0.0  # a stopped run needs a checkpoint to resume from
        return context

    def trained(self, name: str) -> System:
        """Train a new system in the work folder `name`, and return it."""
        system, context = self.make(), self.context(name)
        context.on_epoch = self._count_epoch
        system.train(self.data, context)
        return system

    def _count_epoch(self, epoch: int, scorer: object) -> None:
        self.reported_epochs += 1

    def saved(self, system: System, name: str) -> Path:
        """Save a system in a folder of this name."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        system.save(folder)
        return folder

    def scores(self, system: System, clips: Clips) -> Tensor:
        """Score clips, shape (clips, classes)."""
        return system.score(clips, self.context("score"))

    def equal_scores(self, one: Tensor, other: Tensor) -> bool:
        """Return True if scores are equal: exactly on a CPU, and up to rounding on devices that may add in any order."""
        within = 0.0 if self.device.type == "cpu" else SAME_WITHIN
        return one.shape == other.shape and torch.allclose(
            one, other, rtol=0, atol=within, equal_nan=True
        )

    def require_same_scores(self, one: System, other: System, message: str) -> None:
        """Raise `ClaimFailed` with `message` unless two systems give the test clips the same scores."""
        scores = self.scores(other, self.test.clips)
        if self.equal_scores(self.scores(one, self.test.clips), scores):
            return
        if not self.equal_scores(self.scores(other, self.test.clips), scores):
            raise ClaimSkipped(
                "its own scores differ from call to call, so nothing can be compared"
            )
        raise ClaimFailed(message)

    def require_same_training(self, one: System, other: System, message: str) -> None:
        """Raise `ClaimFailed` with `message` if the scores of two trained systems differ; on a GPU, raise `ClaimSkipped`."""
        try:
            self.require_same_scores(one, other, message)
        except ClaimFailed:
            if self.device.type == "cpu":
                raise
            raise ClaimSkipped(
                f"two trainings on {self.device} may differ, since it adds in any order; use --device cpu"
            ) from None
