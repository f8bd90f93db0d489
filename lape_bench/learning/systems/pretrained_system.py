"""Upstream systems: an encoder learns from unlabeled audio, and is kept as an artifact."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.systems.encoder_system import PretrainedEncoder, ProbeConfig
from lape_bench.learning.systems.spectrogram_system import SpectrogramConfig, SpectrogramSystem
from lape_bench.learning.training.batches import whole_clip_batches
from lape_bench.learning.training.checkpoints import load_strictly, load_tensors, save_tensors
from lape_bench.learning.training.pretrain import STAGE, Objective, PretrainConfig, pretrain
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.plugins.single_file import class_code
from lape_bench.runtime.artifacts import Artifact, stable_name
from lape_bench.system import TARGET_AUDIO, Cell, Curve, RunContext, TrainingSummary

FILE = "upstream.pt"
# Settings that act later, or whose effect stands in the artifact's name as seed and corpus.
NAMED_OTHERWISE = {"finetune": True, "linear": True, "corpus": True, "pretrain": {"seed"}}


class UpstreamConfig(SpectrogramConfig):
    """Settings of an encoder that learns from unlabeled audio first."""

    corpus: tuple[str, ...] = Field(
        (TARGET_AUDIO,),
        min_length=1,
        description="what to learn from: target (the task's own train audio), tasks, folders; comma-separated",
    )
    pretrain: PretrainConfig = Field(default_factory=PretrainConfig)

    @field_validator("corpus", mode="before")
    @classmethod
    def _commas_separate(cls, corpus: Any) -> Any:
        return [part.strip() for part in corpus.split(",")] if isinstance(corpus, str) else corpus


@dataclass(frozen=True)
class PretrainedUpstream:
    """A pre-trained encoder.

    Attributes:
        encoder: on the run's device, with the corpus's feature statistics.
        artifact: where it is kept.
        curve: of its training.
        n_parameters: held while it was trained, heads and momentum teacher among them.
    """

    encoder: Encoder
    artifact: Artifact
    curve: Curve
    n_parameters: int


class UpstreamSystem(SpectrogramSystem):
    """A system whose encoder is pre-trained by an objective.

    Attributes:
        artifact_name: what upstreams of exactly this class are named by; without one, its module and name.
    """

    artifact_name: ClassVar[str]

    Settings: ClassVar[type[ProbeConfig]] = UpstreamConfig
    smoke_settings: ClassVar[dict[str, Any]] = SpectrogramSystem.smoke_settings | {
        "pretrain": {"epochs": 1, "min_steps": 1, "batch_size": 16},
    }

    @classmethod
    @abstractmethod
    def new_encoder(cls, settings: Any) -> Encoder:
        """Return an encoder with random weights, which are seeded by the caller."""

    @classmethod
    def new_views(cls, settings: Any, shape: tuple[int, ...], clips: int) -> Views:
        """Return what turns features into the views that are compared, for a corpus of so many clips."""
        n_mels, frames = shape
        return Views((n_mels, frames), clips)

    @classmethod
    @abstractmethod
    def build_objective(cls, encoder: Any, settings: Any, clips: int) -> Objective:
        """Give a new encoder the heads and the loss it learns by, from a corpus of so many clips.

        Random weights are seeded by the caller.
        """

    @classmethod
    def plugin_code(cls) -> list[str]:
        """Return the code of the class where it is a plug-in of a single file; nothing for others, whose version says it."""
        return class_code(cls)

    @classmethod
    def artifact_key(cls, settings: Any, seed: int) -> dict[str, Any]:
        """Return what an upstream is determined by beside its corpus.

        Args:
            settings: an instance of the class's `Settings`.
            seed: of the run.
        """
        return {
            "system": stable_name(cls),
            "system_version": cls.version,
            "settings": settings.model_dump(mode="json", exclude=NAMED_OTHERWISE),
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

    def shared_artifacts(self, cell: Cell, train: Callable[[], str]) -> tuple[Any, ...]:
        """Name the upstream too."""
        return (
            *super().shared_artifacts(cell, train),
            self.planned_artifact_key(self.settings, cell, train),
        )

    @classmethod
    def load_or_pretrain(
        cls, settings: Any, train: Clips | None, context: RunContext
    ) -> PretrainedUpstream:
        """Find the upstream of these settings in the cache, or train it.

        Args:
            settings: an instance of the class's `Settings`.
            train: the audio of the task under evaluation, where the corpus may name it.
            context: of the run.
        """
        corpus = context.load_corpus(settings.corpus, train)
        named = cls.artifact_key(settings, context.seeds.seed)
        seeds = Seeds(named["seed"], "upstream")
        with seeds.globally("overwritten"):  # random weights that those found or learned replace
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
                learner.fit_features(
                    waveforms for _, waveforms in whole_clip_batches(corpus, inside.device)
                )
                shape = learner.feature_shape(settings.pretrain.window_seconds)
                views = cls.new_views(settings, shape, len(corpus)).to(inside.device)
                curve = pretrain(objective, views, corpus, settings.pretrain, inside)
            held = sum(parameter.numel() for parameter in objective.parameters())
            content = {"encoder": learner.state_dict(), "curve": list(curve), "parameters": held}
            save_tensors(folder / FILE, content)

        found = context.artifact(
            "upstream",
            f"{cls.__name__}, d = {encoder.embedding_size}, on {', '.join(settings.corpus)}: {len(corpus):,} clips",
            named | {"corpus": corpus.key},
            compute,
        )
        content = load_tensors(found.folder / FILE, context.device)
        load_strictly(
            encoder.to(context.device), content["encoder"], f"the upstream in {found.folder}"
        )
        return PretrainedUpstream(encoder, found, tuple(content["curve"]), content["parameters"])

    def build_encoder(self) -> Encoder:
        """Return a new encoder of these settings."""
        return self.new_encoder(self.settings)

    def prepare_encoder(self, train: Clips, context: RunContext) -> PretrainedEncoder:
        """Pre-train the encoder, or find it."""
        upstream = self.load_or_pretrain(self.settings, train, context)
        summary = TrainingSummary(curves={STAGE: upstream.curve})
        return PretrainedEncoder(upstream.encoder, summary, upstream.n_parameters)


def load_upstream(name: str) -> type[UpstreamSystem]:
    """Import the class of an upstream system.

    Raises:
        UserError: no such system, or one that learns nothing without labels.
    """
    system: type[UpstreamSystem] = SYSTEMS.load(
        name,
        lambda loaded: isinstance(loaded, type) and issubclass(loaded, UpstreamSystem),
        "an upstream (a class derived from lape_bench.learning.systems.pretrained_system.UpstreamSystem)",
    )
    return system
