"""System: the contract between the harness and a system under test.

The harness gives a system the train and validation clips of a task and a run context, and later clips to score. None of
this leads to the label of a test clip or of an unlabeled train clip: audio is copied, clips are numbered in a random
order, and scores are matched with labels outside of the system. This covers what the harness passes on. A plug-in is
code of its user and could read the disk.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Self
from typing import Protocol as Callback

import torch
from pydantic import Field
from torch import Tensor

from lape_bench.core.config import Config, merge
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.data.streams.streamed_clips import CorpusClips

# Both are part of the contract too, so a plug-in finds them here.
from lape_bench.records.record import Cell as Cell
from lape_bench.records.record import ParameterCounts as ParameterCounts
from lape_bench.records.record import ProtocolName as ProtocolName
from lape_bench.runtime.artifacts import Artifact, ArtifactStore, artifact, cache
from lape_bench.runtime.device import Precision
from lape_bench.runtime.distributed import ALONE, ProcessGroup
from lape_bench.runtime.profiling import StageProfiler

Curve = tuple[dict[str, float], ...]  # one mapping per logged epoch: {"epoch": 1, "loss": 2.9}


class TargetTask(Config):
    """The task as a system sees it."""

    classes: tuple[str, ...]
    window_seconds: float
    metric: str


@dataclass(frozen=True)
class LabeledClips:
    """Clips and their classes.

    Attributes:
        clips: the audio.
        labels: index into the target's classes, shape (clips,), int64, on the CPU.
        groups: number of each clip's group, such as its speaker, shape (clips,), int64, on the CPU. A clip without a group is
            a group of its own.
    """

    clips: Clips
    labels: Tensor
    groups: Tensor


@dataclass(frozen=True)
class TrainingData:
    """Everything that a system may learn from.

    Attributes:
        train: the audio of the whole train split, for stages that use no label. The ID of a clip is its position.
        labeled: the clips of the label budget, whose labels may be used to train and to select; a clip has the same ID
            as in `train`.
        validation: further labeled clips for selection; None unless the budget includes them (`+validation`).
    """

    train: Clips
    labeled: LabeledClips
    validation: LabeledClips | None


logger = logging.getLogger(__name__)

TARGET_AUDIO = "target"  # corpus entry for the train split of the task under evaluation


class CorpusLoader(Callback):
    """Loads unlabeled audio to learn from."""

    def __call__(self, entries: tuple[str, ...], train: Clips | None, rate: int) -> CorpusClips:
        """Return the clips of all entries.

        Args:
            entries: "target", names of tasks, folders of audio, or shards. A task gives its train split.
            train: the audio for the entry "target"; None if no task is evaluated.
            rate: sample rate of the clips and of `train`, in Hz.

        Raises:
            UserError: an entry is unknown, or holds a validation or test clip of the task under evaluation.
        """


def target_audio_only(entries: tuple[str, ...], train: Clips | None, rate: int) -> Clips:
    """Return the task's own train audio: the only corpus if the harness gives no loader."""
    if entries != (TARGET_AUDIO,) or train is None:
        raise UserError(
            f"the corpus {', '.join(entries)} cannot be found here",
            allowed=f"'{TARGET_AUDIO}', the train audio of the task itself",
        )
    return train


@dataclass
class RunContext:
    """What a run gives its system in addition to the data.

    Attributes:
        device: the device to compute on.
        precision: precision of the encoder, used by `autocast`.
        seeds: the run's named generators.
        progress: shows progress to the user.
        work_folder: folder for checkpoints; it is kept until the cell is finished, and then deleted.
        profiler: measures time and peak memory of the stages; see `stage`.
        checkpoint_seconds: shortest time between two checkpoints; results do not depend on it.
        artifacts: artifacts that were taken from the cache or added to it so far.
        artifact_folder: the cache of artifacts.
        artifact_store: exchanges artifacts with machines that have another cache; None if there are none.
        checkpoint_stamp: device, versions and state of the code; a checkpoint with another stamp is not resumed.
        process_group: the processes that pre-train together; a cell runs in a single process.
        load_corpus: returns the unlabeled audio that entries name; see `CorpusLoader`.
        resampled_train: the audio of the whole train split at the rates of `System.further_rates`, by the rate in Hz.
        train_groups: number of the group of each clip of the whole train split, such as its speaker, shape (clips,), int64, on the
            CPU, by first appearance. A clip without a group is a group of its own. None if no two clips share a group.
        on_epoch: called after each epoch of fine-tuning with its number and a function that scores clips with the
            current model. The audit uses it. It must not change the training.
        caches_scored_clips: whether `System.score` may keep the embeddings of its clips in the cache. Only the harness sets it,
            when it scores the test clips of a task, which other cells score too.
    """

    device: torch.device
    precision: Precision
    seeds: Seeds
    progress: Progress
    work_folder: Path
    profiler: StageProfiler
    checkpoint_seconds: float = 10.0
    artifacts: list[Artifact] = field(default_factory=list)
    artifact_folder: Path = field(default_factory=cache)
    artifact_store: ArtifactStore | None = None
    checkpoint_stamp: Mapping[str, Any] = field(default_factory=dict)
    process_group: ProcessGroup = ALONE
    load_corpus: "CorpusLoader" = field(default=target_audio_only)
    resampled_train: Mapping[int, Clips] = field(default_factory=dict)
    train_groups: Tensor | None = None
    on_epoch: Callable[[int, Callable[[Clips], Tensor]], None] | None = None
    caches_scored_clips: bool = False

    def train_at(self, rate: int, train: Clips) -> Clips:
        """Return the audio of the whole train split at a sample rate: the same clips in the same order.

        Args:
            rate: in Hz.
            train: the same audio at the rate of the system.

        Raises:
            UserError: the rate is neither that of the system nor one of its `further_rates`.
        """
        if rate == train.rate:
            return train
        if rate not in self.resampled_train:
            raise UserError(
                f"the train audio is not given at {rate:,} Hz",
                allowed=" or ".join(
                    f"{known:,} Hz" for known in (train.rate, *self.resampled_train)
                ),
                next_step="name the rate in further_rates of the system",
            )
        return self.resampled_train[rate]

    def autocast(self) -> AbstractContextManager[Any]:
        """Compute the block in the run's precision."""
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"
        )

    def artifact(
        self,
        kind: str,
        about: str,
        determined_by: Mapping[str, Any],
        compute: Callable[[Path, "RunContext"], None],
    ) -> Artifact:
        """Find the result of a stage in the cache, or compute it. In both cases the record names it.

        The processes of a group compute it together, and rank 0 keeps it.

        Args:
            kind: for example "embeddings".
            about: a description for listings of the cache.
            determined_by: everything that its bytes depend on, apart from device, precision and versions of torch and
                torchaudio.
            compute: fills the empty folder it is given; the context has a work folder of the artifact's own.
        """
        # Not the number of threads: it changes only the last digits, and runs with any number share the cache.
        environment = {
            "precision": self.precision,
            "device": self.device.type,
            "torch": torch.__version__,
            "torchaudio": version("torchaudio"),
        }

        def compute_together(folder: Path, work: Path) -> None:
            self.process_group.broadcast(work)
            # Artifacts that it uses itself are not listed: a run that finds this one in the cache does not know them.
            compute(folder, replace(self, work_folder=work, artifacts=[]))

        if self.process_group.rank == 0:
            result = artifact(
                kind,
                about,
                {**determined_by, **environment},
                compute_together,
                self.artifact_folder,
                self.checkpoint_stamp,
                lambda: logger.info(f"waiting for another run that computes {kind}, {about}"),
                self.artifact_store,
            )
            self.process_group.broadcast(result)
        else:
            result = self._follow_rank_0(compute)
        self.artifacts.append(result)
        how = "computed" if result.computed else "found in the cache"
        logger.debug(f"{kind} {result.hash[:12]} {how}")
        return result

    def _follow_rank_0(self, compute: Callable[[Path, "RunContext"], None]) -> Artifact:
        """Take part in computing an artifact, unless rank 0 found it in the cache; return what rank 0 returns."""
        message = self.process_group.broadcast(None)
        if isinstance(message, Path):  # the work folder of an artifact that is computed now
            with TemporaryDirectory() as unused:
                compute(Path(unused), replace(self, work_folder=message, artifacts=[]))
            message = self.process_group.broadcast(None)
        assert isinstance(message, Artifact), "rank 0 ends with the artifact"
        return message

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure time and peak memory of the block under the name `name`."""
        logger.debug(f"stage {name}")
        with self.profiler.stage(name):
            yield


class TrainingSummary(Config):
    """Facts about the training for the record.

    Attributes:
        curves: the learning curve of each stage, one mapping per logged epoch, such as
            {"fine-tuning": ({"epoch": 1, "loss": 2.9, "validation": 0.21},)}.
        selection: what was selected, and how, such as {"C = 0.01": "5-fold cross-validation of 180 labeled clips"}.
        selection_clips: number of labels that selection used; 0 if nothing was selected.
        validation: score of the selected setting in selection, by the metric of the task; None if nothing was scored.
        warnings: reasons to doubt the score, one sentence each.
        clusters: cluster of each train clip, if the system forms clusters; the harness compares them with the labels.
        diagnosis: numbers that help to explain a score, by name.
    """

    curves: dict[str, Curve] = Field(default_factory=dict)
    selection: dict[str, str] = Field(default_factory=dict)
    selection_clips: int = 0
    warnings: tuple[str, ...] = ()
    validation: float | None = None
    clusters: tuple[int, ...] | None = None
    diagnosis: dict[str, float | tuple[int, ...]] = Field(default_factory=dict)


class System(ABC):
    """A system learns a task and scores clips.

    Args:
        settings: an instance of the class's `Settings`.
        target: the task.
        protocol: one of the class's `protocols`.
    """

    Settings: ClassVar[type[Config]]
    protocols: ClassVar[tuple[ProtocolName, ...]]  # the first is the default
    version: ClassVar[int] = 1  # raised whenever a score could change
    sample_rate: ClassVar[int] = 16_000  # sample rate in Hz of the clips that it gets
    smoke_settings: ClassVar[
        dict[str, Any]
    ] = {}  # settings for a run of seconds, used by `bench systems check`
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # named sets of settings
    frozen_because: ClassVar[str] = (
        ""  # why `finetune` is missing from the protocols, if one would expect it
    )

    def __init__(self, settings: Any, target: TargetTask, protocol: ProtocolName) -> None:
        self.settings, self.target, self.protocol = settings, target, protocol

    @classmethod
    def with_smoke_settings(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Merge settings into `smoke_settings`."""
        return merge(cls.smoke_settings, given)

    @property
    def system_versions(self) -> dict[str, int]:
        """Return the versions of the other systems that this one uses, by name."""
        return {}

    @property
    def provenance(self) -> dict[str, str]:
        """Return what else determines a result, apart from code and settings, such as the SHA-256 of weights, by
        name.
        """
        return {}

    @property
    def corpus(self) -> tuple[str, ...]:
        """Return the corpus entries that it learns from. Their state is part of the identity of a cell."""
        return ()

    @property
    def further_rates(self) -> tuple[int, ...]:
        """Return further sample rates in Hz at which it needs the train audio; see `RunContext.train_at`."""
        return ()

    def shared_artifacts(self, cell: Cell, train: Callable[[], str]) -> tuple[Any, ...]:
        """Return keys of the artifacts of a cell that other cells need too, as plain data; by default none.

        They are used to schedule sweeps. A wrong key only costs time and never changes a result.

        Args:
            cell: a cell of this system.
            train: a name for the train audio of the cell.
        """
        return ()

    @abstractmethod
    def train(self, data: TrainingData, context: RunContext) -> TrainingSummary:
        """Learn the task, or resume from the checkpoints of a killed run in `context.work_folder`.

        The result must not depend on whether or when an earlier run was killed.
        """

    @abstractmethod
    def score(self, clips: Clips, context: RunContext) -> Tensor:
        """Return log-probabilities of the classes for whole clips, shape (clips, classes), float32, CPU.

        The scores of a clip must not depend on the other clips.
        """

    @abstractmethod
    def count_parameters(self) -> ParameterCounts:
        """Count parameters, None for each count that is unknown; after `train` or `load`."""

    @abstractmethod
    def count_macs(self) -> int | None:
        """Count the multiply-accumulate operations for scoring one second of audio; after `train` or `load`.

        None if unknown.
        """

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write everything that scoring needs into an existing folder."""

    @abstractmethod
    def load(self, folder: Path, context: RunContext) -> Self:
        """Load the files that `save` wrote, on the context's device, and return this system.

        Raises:
            UserError: the files are not of this system, do not match it in every tensor, or hold code.
        """
