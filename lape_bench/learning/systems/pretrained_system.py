"""Upstream systems: an encoder is pre-trained on unlabeled audio and cached as an artifact."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import ConfigDict, Field, field_validator

from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.data.streams.streamed_clips import CorpusClips
from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.systems.encoder_system import DOWNSTREAM, PretrainedEncoder, ProbeConfig
from lape_bench.learning.systems.spectrogram_system import SpectrogramConfig, SpectrogramSystem
from lape_bench.learning.training.cached_normalization import cached_normalization
from lape_bench.learning.training.checkpoints import load_strictly, load_tensors, save_tensors
from lape_bench.learning.training.inference import fit_normalization
from lape_bench.learning.training.pretrain import STAGE, Objective, PretrainConfig, pretrain
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.plugins.single_file import class_code
from lape_bench.records.record import PROTOCOL_VERSION
from lape_bench.runtime.artifacts import Artifact, stable_name
from lape_bench.system import TARGET_AUDIO, Cell, Curve, RunContext, TrainingSummary

FILE = "upstream.pt"
MAX_NORMALIZED = 300_000  # clips; of a larger corpus, so many random ones fit the normalization
# Settings that act after pre-training, or whose effect is in the key as seed and corpus.
NOT_IN_KEY = {**dict.fromkeys(DOWNSTREAM, True), "corpus": True, "pretrain": {"seed"}}


class UpstreamConfig(SpectrogramConfig):
    """Settings of an encoder that is pre-trained on unlabeled audio."""

    # With an infinite temperature, for example, a training would learn nothing and say nothing.
    model_config = ConfigDict(allow_inf_nan=False)

    corpus: tuple[str, ...] = Field(
        (TARGET_AUDIO,),
        min_length=1,
        description="what to learn from: target (the task's own train audio), tasks, folders, shards; comma-separated",
    )
    pretrain: PretrainConfig = Field(default_factory=PretrainConfig)

    @field_validator("corpus", mode="before")
    @classmethod
    def _commas_separate(cls, corpus: Any) -> Any:
        return [part.strip() for part in corpus.split(",")] if isinstance(corpus, str) else corpus


@dataclass(frozen=True)
class PretrainedUpstream:
    """A pre-trained encoder with its artifact.

    Attributes:
        encoder: on the run's device; its features are normalized with the statistics of the corpus.
        artifact: the cache entry that holds it.
        curve: the learning curve of pre-training.
        n_parameters: number of parameters during pre-training, with heads and momentum teacher.
    """

    encoder: Encoder
    artifact: Artifact
    curve: Curve
    n_parameters: int


class UpstreamSystem(SpectrogramSystem):
    """A system whose encoder is pre-trained by a self-supervised objective.

    A subclass defines `new_encoder` and `build_objective`.

    Attributes:
        artifact_name: the name of exactly this class in the keys of its upstreams, so that it may move; by default module and
            class name.
    """

    artifact_name: ClassVar[str]

    Settings: ClassVar[type[ProbeConfig]] = UpstreamConfig
    smoke_settings: ClassVar[dict[str, Any]] = SpectrogramSystem.smoke_settings | {
        "pretrain": {"epochs": 1, "min_steps": 1, "batch_size": 16},
    }

    @classmethod
    @abstractmethod
    def new_encoder(cls, settings: Any) -> Encoder:
        """Return an encoder with random weights; the caller seeds them.

        Args:
            settings: an instance of the class's `Settings`.
        """

    @classmethod
    def new_views(cls, settings: Any, shape: tuple[int, ...], clips: int) -> Views:
        """Return the augmentation that makes the views; by default log-mixup-exp and random resize crop.

        Args:
            settings: an instance of the class's `Settings`.
            shape: bands and frames of one window's log-mel spectrogram.
            clips: number of clips in the corpus.
        """
        n_mels, frames = shape
        return Views((n_mels, frames), clips)

    @classmethod
    @abstractmethod
    def build_objective(cls, encoder: Any, settings: Any, clips: int) -> Objective:
        """Return the objective: the encoder with its heads and its loss. The caller seeds random weights.

        Args:
            encoder: a new encoder, on the CPU.
            settings: an instance of the class's `Settings`.
            clips: number of clips in the corpus.
        """

    @classmethod
    def plugin_code(cls) -> list[str]:
        """Return the code of the class where it is a plug-in of a single file; nothing for others, whose version says it."""
        return class_code(cls)

    @classmethod
    def artifact_key(cls, settings: Any, seed: int) -> dict[str, Any]:
        """Return the part of an upstream's cache key that does not depend on the corpus.

        Args:
            settings: an instance of the class's `Settings`.
            seed: of the run; used if `settings.pretrain.seed` is None.
        """
        return {
            "system": stable_name(cls),
            "system_version": cls.version,
            "protocol_version": PROTOCOL_VERSION,
            "settings": settings.model_dump(mode="json", exclude=NOT_IN_KEY),
            "seed": seed if settings.pretrain.seed is None else settings.pretrain.seed,
            **({"code": code} if (code := cls.plugin_code()) else {}),
        }

    @classmethod
    def planned_artifact_key(
        cls, settings: Any, cell: Cell, train: Callable[[], str]
    ) -> dict[str, Any]:
        """Return the same with a name of the corpus, for the plan of a sweep; see `System.shares`."""
        own = (TARGET_AUDIO, cell.task)
        corpus = [train() if entry in own else entry for entry in settings.corpus]
        return cls.artifact_key(settings, cell.seed) | {"corpus": corpus}

    @property
    def corpus(self) -> tuple[str, ...]:
        """Return the entries of the audio that the encoder is pre-trained on."""
        return tuple(self.settings.corpus)

    def shared_artifacts(self, cell: Cell, train: Callable[[], str]) -> tuple[Any, ...]:
        """Return the key of the upstream too."""
        return (
            *super().shared_artifacts(cell, train),
            self.planned_artifact_key(self.settings, cell, train),
        )

    @classmethod
    def load_or_pretrain(
        cls, settings: Any, train: Clips | None, context: RunContext
    ) -> PretrainedUpstream:
        """Load the upstream of these settings from the cache, or pre-train it.

        Args:
            settings: an instance of the class's `Settings`.
            train: the train audio of the task under evaluation, for a corpus with the entry "target"; None without a task.
            context: device, seeds, progress and cache of the run.

        Raises:
            UserError: the corpus cannot be found or is too small, or the loss is not finite.
        """
        corpus = context.load_corpus(settings.corpus, train, cls.sample_rate)
        key = cls.artifact_key(settings, context.seeds.seed)
        seeds = Seeds(key["seed"], "upstream")
        # With the seed of the training: a plug-in may draw more than weights, and only weights are loaded below.
        with seeds.globally("initial weights"):
            encoder = cls.new_encoder(settings)

        def compute(folder: Path, inside: RunContext) -> None:
            inside = replace(inside, seeds=seeds)
            with inside.stage(STAGE):
                with seeds.globally("initial weights"):
                    objective = cls.build_objective(
                        cls.new_encoder(settings), settings, len(corpus)
                    )
                objective.to(inside.device)
                learner = objective.encoder
                window_seconds = settings.pretrain.window_seconds
                some = _some_clips(corpus, seeds)
                fit_normalization(learner, some, window_seconds, inside)
                shape = learner.feature_shape(window_seconds)
                views = cls.new_views(settings, shape, len(corpus)).to(inside.device)
                curve = pretrain(objective, views, corpus, settings.pretrain, inside)
            n_parameters = sum(parameter.numel() for parameter in objective.parameters())
            content = {
                "encoder": learner.state_dict(),
                "curve": list(curve),
                "parameters": n_parameters,
            }
            save_tensors(folder / FILE, content)

        artifact = context.artifact(
            "upstream",
            f"{cls.__name__}, d = {encoder.embedding_size}, on {', '.join(settings.corpus)}: {len(corpus):,} clips",
            key | {"corpus": corpus.key},
            compute,
        )
        content = load_tensors(artifact.folder / FILE, context.device)
        load_strictly(
            encoder.to(context.device), content["encoder"], f"the upstream in {artifact.folder}"
        )
        return PretrainedUpstream(encoder, artifact, tuple(content["curve"]), content["parameters"])

    def build_encoder(self) -> Encoder:
        """Return a new encoder of these settings."""
        return self.new_encoder(self.settings)

    def prepare_encoder(self, train: Clips, context: RunContext) -> PretrainedEncoder:
        """Load the encoder from the cache, or pre-train it; then fit its normalization to the task."""
        upstream = self.load_or_pretrain(self.settings, train, context)
        cached_normalization(upstream.encoder, train, self.target.window_seconds, context)
        summary = TrainingSummary(curves={STAGE: upstream.curve})
        return PretrainedEncoder(upstream.encoder, summary, upstream.n_parameters)


def _some_clips(corpus: CorpusClips, seeds: Seeds) -> CorpusClips:
    """Return the clips that fit the normalization of the features."""
    if len(corpus) <= MAX_NORMALIZED:
        return corpus
    chosen = seeds.numpy("normalization").choice(len(corpus), MAX_NORMALIZED, replace=False)
    return corpus.view(np.sort(chosen))


def load_upstream(name: str) -> type[UpstreamSystem]:
    """Import the class of an upstream system by its name.

    Raises:
        UserError: there is no such system, or it is not an `UpstreamSystem`.
    """
    system: type[UpstreamSystem] = SYSTEMS.load(
        name,
        lambda loaded: isinstance(loaded, type) and issubclass(loaded, UpstreamSystem),
        "an upstream (a class derived from lape_bench.learning.systems.pretrained_system.UpstreamSystem)",
    )
    return system
