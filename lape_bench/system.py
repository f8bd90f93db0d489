"""System: the contract between the harness and whatever is benchmarked.

The harness gives a system the train and validation clips of a task and a run context, and later clips to score.
Nothing that it hands over leads to the label of a test clip, or to the label of a train clip that is not labeled: audio is
copied, clips go by numbers in a random order, and scores are matched with labels outside. This is a promise about what is
handed over: a plug-in is its user's code and could read the disk.
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

# Both are part of the contract too, so a plug-in finds them here.
from lape_bench.records.record import Cell as Cell
from lape_bench.records.record import ParameterCounts as ParameterCounts
from lape_bench.records.record import ProtocolName as ProtocolName
from lape_bench.runtime.artifacts import Artifact, ArtifactStore, artifact, cache
from lape_bench.runtime.device import Precision
from lape_bench.runtime.distributed import ALONE, ProcessGroup
from lape_bench.runtime.profiling import StageProfiler

Curve = tuple[dict[str, float], ...]  # one mapping a logged epoch: {"epoch": 1, "loss": 2.9}


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
    """All that a system may learn from.

    Attributes:
        train: the audio of the whole train split, for stages that use no label. The ID of a clip is its position.
        labeled: the label budget, clips of it whose labels may be used to train and to select; a clip has the same ID as in
            `train`.
        validation: further labeled clips that may be selected on; None unless the budget is of that variant.
    """

    train: Clips
    labeled: LabeledClips
    validation: LabeledClips | None


logger = logging.getLogger(__name__)

TARGET_AUDIO = (
    "target"  # the entry of a corpus that is the train split of the task under evaluation
)


class CorpusLoader(Callback):
    """Finds unlabeled audio to learn from."""

    def __call__(self, entries: tuple[str, ...], train: Clips | None, rate: int) -> Clips:
        """Return the clips of all entries.

        Args:
            entries: "target", names of tasks (of which the train split is taken), or folders of audio.
            train: what "target" stands for; none where no task is evaluated.
            rate: of the clips in Hz, that of `train` too.

        Raises:
            UserError: an entry is none of these, or holds a clip that validates or tests the task under
                evaluation.
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
    """What a run gives its system beside the data.

    Attributes:
        device: where to compute.
        precision: of the encoder's arithmetic, for `autocast`.
        seeds: the run's named generators.
        progress: what the user sees.
        work_folder: for checkpoints; kept while the cell is unfinished and deleted after.
        profiler: notes seconds and peak memory of the stages, by `stage`.
        checkpoint_seconds: the least time between two checkpoints; no result depends on it.
        artifacts: those that were taken from or added to the cache so far.
        artifact_folder: the cache of artifacts.
        artifact_store: how artifacts are exchanged with machines that have another cache; none if there are none.
        checkpoint_stamp: device, versions and state of the code; a checkpoint with another stamp is not resumed.
        process_group: the processes that pre-train together; a cell is run by one alone.
        load_corpus: returns the unlabeled audio that entries name; see `CorpusLoader`.
        resampled_train: the audio of the whole train split at the rates of `System.further_rates`, by the rate in Hz.
        on_epoch: called after each epoch of fine-tuning with its number and a function that scores clips with the model of
            that moment; the audit listens here, and it must not change what is learned.
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
    on_epoch: Callable[[int, Callable[[Clips], Tensor]], None] | None = None

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
        """Find a stage's result in the cache, or compute it; either way the record will name it.

        The processes of a group compute it together, and rank 0 keeps it.

        Args:
            kind: what is kept, such as "embeddings".
            about: what it is, for people who list the cache.
            determined_by: what its bytes depend on beside device, precision and versions of torch and torchaudio.
            compute: fills the empty folder it is given; the context has a work folder of the artifact's own.
        """
        # The number of threads moves the last digits only, and a cache is shared between runs of any number.
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
                lambda: logger.info(f"waiting for another run that makes this: {kind}, {about}"),
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
        """Note seconds and peak memory of the block under `name`."""
        logger.debug(f"stage {name}")
        with self.profiler.stage(name):
            yield


class TrainingSummary(Config):
    """What a record keeps of the training.

    Attributes:
        curves: the learning curve of each stage, one mapping a logged epoch, such as
            {"fine-tuning": ({"epoch": 1, "loss": 2.9, "validation": 0.21},)}.
        selection: what was selected, and how, such as {"C = 0.01": "5-fold cross-validation of 180 labeled clips"}.
        selection_clips: how many labels were looked at for it; 0 if nothing was selected.
        validation: the target's metric in selection, of what was selected; None if nothing was scored.
        warnings: what makes the score doubtful, a sentence each.
        clusters: which cluster each train clip was put in, where the system formed any; the harness holds
            them against the labels.
        diagnosis: numbers that help to see why a score came out, by name.
    """

    curves: dict[str, Curve] = Field(default_factory=dict)
    selection: dict[str, str] = Field(default_factory=dict)
    selection_clips: int = 0
    warnings: tuple[str, ...] = ()
    validation: float | None = None
    clusters: tuple[int, ...] | None = None
    diagnosis: dict[str, float | tuple[int, ...]] = Field(default_factory=dict)


class System(ABC):
    """Something that learns a task and scores clips.

    Args:
        settings: an instance of the class's `Settings`.
        target: the task.
        protocol: one of the class's `protocols`.
    """

    Settings: ClassVar[type[Config]]
    protocols: ClassVar[tuple[ProtocolName, ...]]  # the first is the default
    version: ClassVar[int] = 1  # raised whenever a score could change
    sample_rate: ClassVar[int] = 16_000  # Hz, of the clips it is given
    smoke_settings: ClassVar[
        dict[str, Any]
    ] = {}  # settings for a run of seconds, for the conformance check
    frozen_because: ClassVar[str] = (
        ""  # why `finetune` is not among the protocols, where one would expect it
    )

    def __init__(self, settings: Any, target: TargetTask, protocol: ProtocolName) -> None:
        self.settings, self.target, self.protocol = settings, target, protocol

    @classmethod
    def with_smoke_settings(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Lay settings over `smoke_settings` ones."""
        return merge(cls.smoke_settings, given)

    @property
    def system_versions(self) -> dict[str, int]:
        """Return the versions of other systems that this one is built on, by name."""
        return {}

    @property
    def provenance(self) -> dict[str, str]:
        """Return what a result rests on beside code and settings, such as the SHA-256 of weights, by name."""
        return {}

    @property
    def corpus(self) -> tuple[str, ...]:
        """Return the entries of the unlabeled audio that it learns from; their state is part of a cell's identity."""
        return ()

    @property
    def further_rates(self) -> tuple[int, ...]:
        """Return further sample rates, in Hz, at which it wants the train audio: see `RunContext.train_at`."""
        return ()

    def shared_artifacts(self, cell: Cell, train: Callable[[], str]) -> tuple[Any, ...]:
        """Return, as plain data, what is made on the way to a cell that other cells need too; by default nothing.

        A sweep plans by it. To name two things alike that differ costs time, and no more; so does the contrary.

        Args:
            cell: of this system.
            train: names the train audio of the cell.
        """
        return ()

    @abstractmethod
    def train(self, data: TrainingData, context: RunContext) -> TrainingSummary:
        """Learn the task, from scratch or on from what `context.work_folder` holds of a killed run.

        The result must not depend on whether, or when, an earlier run was killed.
        """

    @abstractmethod
    def score(self, clips: Clips, context: RunContext) -> Tensor:
        """Return log-probabilities of the classes for whole clips, shape (clips, classes), float32, CPU.

        A clip's row must not depend on the clips beside it.
        """

    @abstractmethod
    def count_parameters(self) -> ParameterCounts:
        """Count parameters, None for each count that is unknown; after `train` or `load`."""

    @abstractmethod
    def count_macs(self) -> int | None:
        """Count multiply-accumulate operations of scoring a second of audio, None if unknown; after `train` or `load`."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write all that scoring needs into an existing folder."""

    @abstractmethod
    def load(self, folder: Path, context: RunContext) -> Self:
        """Take up what `save` wrote, on the context's device, and return this system.

        Raises:
            UserError: the files are not this system's, do not fit it to the last tensor, or hold code.
        """
