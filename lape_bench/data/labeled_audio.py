"""Audio and labels of a task by split, for your own training loop."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from lape_bench.core.errors import UserError
from lape_bench.core.label_budget import LabelBudget
from lape_bench.core.progress import Progress
from lape_bench.data.audio_store import STORE_RATE, Clips
from lape_bench.data.catalog import load_card, suite_tasks, task_names
from lape_bench.data.manifest import Manifest
from lape_bench.data.prepare import ensure_prepared
from lape_bench.data.splits import Indices, make_split
from lape_bench.task import TaskCard


class LabeledClip(NamedTuple):
    """One clip.

    Attributes:
        waveform: shape (samples,), float32, full scale at 1.0.
        label: index into the task's classes.
    """

    waveform: NDArray[np.float32]
    label: int


@dataclass(frozen=True)
class Waveforms(Sequence[NDArray[np.float32]]):
    """The waveforms of clips, each of shape (samples,), float32, and read from disk when it is used."""

    clips: Clips

    def __len__(self) -> int:
        return len(self.clips)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.float32]: ...

    @overload
    def __getitem__(self, index: slice) -> "Waveforms": ...

    def __getitem__(self, index: int | slice) -> "NDArray[np.float32] | Waveforms":
        if isinstance(index, slice):
            return Waveforms(self.clips.view(range(*index.indices(len(self)))))
        return self.clips[index + len(self) if index < 0 else index]


@dataclass(frozen=True)
class LabeledAudio:
    """The clips of one side of a split: a sequence of `LabeledClip`, which a torch DataLoader accepts.

    Attributes:
        clips: the audio; `clips[3]` is one waveform, shape (samples,), float32. Clips differ in length.
        labels: index into the task's classes, shape (clips,), int64.
        groups: the group of each clip, such as its speaker, which never is on two sides; None if unknown.
    """

    clips: Clips
    labels: NDArray[np.int64]
    groups: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> LabeledClip:
        """Return a copy of a clip, and its label."""
        return LabeledClip(self.clips[index].copy(), int(self.labels[index]))

    def __iter__(self) -> Iterator[LabeledClip]:
        return (self[index] for index in range(len(self)))

    @property
    def ids(self) -> tuple[str, ...]:
        """The clips' ids, as in the predictions of a record."""
        return self.clips.ids

    @property
    def waveforms(self) -> Waveforms:
        """Every waveform, shape (samples,), float32; read from disk when it is used."""
        return Waveforms(self.clips)


@dataclass(frozen=True)
class TaskSplit:
    """The train, validation and test clips of a cell.

    Attributes:
        train: the clips whose labels may be used.
        unlabeled: the audio of the other train clips, whose labels may not be used; empty with all labels.
        validation: the clips to choose epochs and settings on; empty unless the label budget includes them.
        test: the clips to score once, at the end.
        classes: names of the classes; a label is an index into them.
        sample_rate: Hz.
    """

    train: LabeledAudio
    unlabeled: Clips
    validation: LabeledAudio
    test: LabeledAudio
    classes: tuple[str, ...]
    sample_rate: int


@dataclass(frozen=True)
class Task:
    """A task, described by its card.

    Attributes:
        card: classes, window length, metric, split rule, license, citation.
    """

    card: TaskCard

    def load_split(
        self,
        fold: int | None = None,
        seed: int = 0,
        labels: str = "100%",
        sample_rate: int = STORE_RATE,
    ) -> TaskSplit:
        """Return the audio and labels of a split, the same as a system gets in a run.

        A generated task is prepared if it is not prepared yet.

        Args:
            fold: the fold to test on, from 1; None for a task with an official split.
            seed: seed of the run; it decides which clips are labeled, and the validation set if the task has none.
            labels: label budget, such as "10%" or "5-shot"; "10%+validation" adds a validation set.
            sample_rate: sample rate in Hz; the audio is resampled once and cached.

        Raises:
            UserError: the task is not prepared, has no such fold, or has folds and none is given; or
                `labels` is not a label budget.

        Example:
            >>> import lape_bench as lb
            >>> split = lb.get_task("synthetic-sounds").load_split(labels="50%")
            >>> waveform, label = split.train[0]
            >>> waveform.dtype, split.sample_rate, split.classes[label] in split.classes
            (dtype('float32'), 16000, True)
        """
        card = self.card
        budget = LabelBudget.parse(labels)
        if fold is None and card.split.folds:
            raise UserError(
                f"{card.reference} has {card.split.folds} folds, but no fold is given",
                next_step=f"give fold=1 to {card.split.folds}, and average over all of them",
            )
        manifest = ensure_prepared(card, Progress(quiet=True))
        split = make_split(manifest, card, fold or 0, seed, budget)
        clips = manifest.open_clips(sample_rate)
        labeled, unlabeled = split.labeled, np.setdiff1d(split.train, split.labeled)
        return TaskSplit(
            train=_labeled_audio(clips, manifest, card, labeled),
            unlabeled=clips.view(unlabeled),
            validation=_labeled_audio(clips, manifest, card, split.validation),
            test=_labeled_audio(clips, manifest, card, split.test),
            classes=card.classes,
            sample_rate=sample_rate,
        )


def _labeled_audio(clips: Clips, manifest: Manifest, card: TaskCard, rows: Indices) -> LabeledAudio:
    number = {name: index for index, name in enumerate(card.classes)}
    table = manifest.clips.iloc[rows]
    labels = np.array([number[name] for name in table["label"]], np.int64)
    groups = tuple(group if isinstance(group, str) else None for group in table["group"])
    return LabeledAudio(clips.view(rows), labels, groups)


def get_task(name: str) -> Task:
    """Return a task by its name, or name@variant.

    Raises:
        UserError: there is no such task or variant; the message suggests the nearest name.

    Example:
        >>> import lape_bench as lb
        >>> task = lb.get_task("esc10")
        >>> len(task.card.classes), task.card.folds, task.card.metric
        (10, (1, 2, 3, 4, 5), 'accuracy')
    """
    return Task(load_card(name))


def list_tasks(suite: str | None = None) -> list[str]:
    """Return the names of all tasks, or of those of a suite, such as "open", "lape" or "lape-synthetic".

    Raises:
        UserError: there is no such suite.

    Example:
        >>> import lape_bench as lb
        >>> lb.list_tasks(suite="open")
        ['asc-keywords', 'asc-speaker', 'esc10', 'fsdd-digits']
    """
    return task_names() if suite is None else suite_tasks(suite)
