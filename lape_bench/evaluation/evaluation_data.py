"""The clips of the evaluated task, as a system gets them for training and for the test."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from lape_bench.core.progress import Progress
from lape_bench.data.audio_store import Clips
from lape_bench.data.manifest import Manifest
from lape_bench.data.splits import Split
from lape_bench.evaluation.corpus import EvaluatedTask
from lape_bench.evaluation.plan import ResolvedCell
from lape_bench.system import LabeledClips, TrainingData
from lape_bench.task import TaskCard


@dataclass(frozen=True)
class EvaluationData:
    """The clips of the evaluated task, by side of the cell's split.

    Attributes:
        clips: all of them, in the manifest's order.
        labels: index of the class of each, shape (clips,).
        groups: number of the group of each, shape (clips,).
        resampled: all of them at the further rates of the system, by the rate in Hz.
        split: rows of the sides.
        training: what the system may learn from.
        test: what it is scored on.
        test_labels: their classes.
    """

    clips: Clips
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    resampled: Mapping[int, Clips]
    split: Split
    training: TrainingData
    test: Clips
    test_labels: NDArray[np.int64]

    @classmethod
    def open(cls, resolved: ResolvedCell, progress: Progress) -> "EvaluationData":
        """Open the audio of a cell's task at the rates of its system."""
        split, labels = resolved.split, class_numbers(resolved.manifest, resolved.card)
        groups, system = group_numbers(resolved.manifest), resolved.system
        clips = resolved.manifest.open_clips(system.sample_rate, progress)
        resampled = {
            rate: resolved.manifest.open_clips(rate, progress) for rate in system.further_rates
        }
        training = training_data(clips, labels, groups, split)
        test = clips.select(split.test)
        return cls(clips, labels, groups, resampled, split, training, test, labels[split.test])

    def held_back(self, resolved: ResolvedCell, progress: Progress) -> EvaluatedTask:
        """Return the clips that no corpus may contain: those of validation and test."""
        manifest = resolved.manifest
        if not resolved.planned.corpora:  # no audio but that of the task is learned from
            return EvaluatedTask(manifest.reference, frozenset())
        rows = np.concatenate([self.split.validation, self.split.test])
        return EvaluatedTask.from_manifest(manifest, rows, progress)

    def resampled_train(self, split: Split) -> dict[int, Clips]:
        """Return the train audio of a split at the further rates, under numbers and in the order of `TrainingData.train`."""
        return {
            rate: clips.select(_train_rows(split)).numbered()
            for rate, clips in self.resampled.items()
        }

    def train_groups(self, split: Split) -> Tensor | None:
        """Return the groups of the train clips of a split, in the order of `TrainingData.train`; see `RunContext`."""
        # In the random order of the clips. Those of the manifest follow the names of clips, which often reveal their classes.
        groups, names = pd.factorize(self.groups[_train_rows(split)])
        return torch.from_numpy(groups) if len(names) < len(groups) else None


def class_numbers(manifest: Manifest, card: TaskCard) -> NDArray[np.int64]:
    """Return the index of each clip's class, in the manifest's order, shape (clips,)."""
    number = {label: index for index, label in enumerate(card.classes)}
    return np.array([number[label] for label in manifest.clips["label"]], np.int64)


def group_numbers(manifest: Manifest) -> NDArray[np.int64]:
    """Return the number of each clip's group. A clip without a group gets its own number."""
    names = manifest.clips["group"].fillna("clip " + manifest.clips["clip_id"])
    numbers: NDArray[np.int64] = pd.factorize(names)[0].astype(np.int64)
    return numbers


def training_data(
    clips: Clips, labels: NDArray[np.int64], groups: NDArray[np.int64], split: Split
) -> TrainingData:
    """Return the training data with numbers as IDs, since the names of unlabeled clips may reveal their class."""

    def side(indices: NDArray[np.int64], numbers: NDArray[np.int64]) -> LabeledClips:
        own = clips.select(indices).numbered(numbers)
        codes = np.unique(groups[indices], return_inverse=True)[1]
        return LabeledClips(own, torch.from_numpy(labels[indices]), torch.from_numpy(codes))

    place = np.empty(len(clips), np.int64)
    place[split.train] = np.arange(len(split.train))
    labeled = side(split.labeled, place[split.labeled])
    rows = _train_rows(split)
    return TrainingData(
        train=labeled.clips if rows is split.labeled else clips.select(rows).numbered(),
        labeled=labeled,
        validation=side(split.validation, np.arange(len(split.validation)))
        if len(split.validation)
        else None,
    )


def _train_rows(split: Split) -> NDArray[np.int64]:
    """Return the rows of the train split in the order in which a system gets them."""
    return split.labeled if len(split.labeled) == len(split.train) else split.train
