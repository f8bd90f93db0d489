"""EncoderSystem: a system with an encoder, under the protocols `finetune`, `linear`, `mlp` and `knn`.

How the encoder is built and pre-trained differs between systems. What follows with the labels is the same for all.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from lape_bench.core.config import Config
from lape_bench.core.errors import UserError
from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.encoders.heads import (
    HiddenLayerClassifier,
    NearestNeighbors,
    WeightedLayers,
)
from lape_bench.learning.encoders.log_mel import LogMelEncoder
from lape_bench.learning.training.cached_embeddings import cached_embeddings
from lape_bench.learning.training.cached_normalization import cached_normalization
from lape_bench.learning.training.checkpoints import load_strictly, load_tensors, save_tensors
from lape_bench.learning.training.finetune import STAGE as FINETUNING
from lape_bench.learning.training.finetune import FinetuneConfig, FineTuning
from lape_bench.learning.training.inference import (
    class_log_probabilities,
    embedding_bytes,
    log_probabilities_of_embeddings,
)
from lape_bench.learning.training.linear_probe import LinearConfig, fit_linear
from lape_bench.learning.training.mlp_probe import MlpConfig, fit_mlp
from lape_bench.learning.training.probe_selection import EmbeddedWindows, FittedProbe
from lape_bench.plugins.single_file import class_code
from lape_bench.runtime.operation_count import count_operations
from lape_bench.system import (
    Cell,
    LabeledClips,
    ParameterCounts,
    ProtocolName,
    RunContext,
    System,
    TrainingData,
    TrainingSummary,
)

WEIGHTS = "weights.pt"
# Two values are enough to select from; a probe with a hidden layer takes too long to fit several times.
PROBE_SMOKE_SETTINGS: dict[str, Any] = {
    "linear": {"C": [1e-2, 1.0]},
    "mlp": {"hidden": 128, "min_steps": 100, "learning_rates": [3.2e-3]},
}
CACHED_BYTES = 2**30  # of scored clips' embeddings: more would fill memory and disk
DOWNSTREAM = {"finetune", "linear", "mlp"}  # settings that act once there are labels


class ProbeConfig(Config):
    """Settings of an encoder that is only used frozen."""

    linear: LinearConfig = Field(default_factory=LinearConfig)
    mlp: MlpConfig = Field(default_factory=MlpConfig)


class EncoderConfig(ProbeConfig):
    """Settings of an encoder that is used frozen or fine-tuned."""

    finetune: FinetuneConfig = Field(default_factory=FinetuneConfig)


@dataclass(frozen=True)
class PretrainedEncoder:
    """An encoder as it is before any label is used.

    Attributes:
        encoder: on the run's device; the normalization of its features is fitted.
        summary: learning curves, clusters and diagnosis of the stages so far.
        n_parameters: the largest number of parameters in any stage so far, heads and teachers included; 0 if no stage
            trained anything, None if unknown.
    """

    encoder: Encoder
    summary: TrainingSummary = field(default_factory=TrainingSummary)
    n_parameters: int | None = 0


def largest_count(*counts: int | None) -> int | None:
    """Return the largest of some numbers of parameters, or None if one of them is unknown."""
    known = [count for count in counts if count is not None]
    return max(known) if len(known) == len(counts) else None


class EncoderSystem(System):
    """A system whose encoder is pre-trained, loaded, or drawn at random.

    A subclass defines `build_encoder`; `prepare_encoder` and `build_views` may be overridden.

    Attributes:
        encoder: the trained encoder, after `train` or `load`.
        head: the classifier on its embeddings, after `train` or `load`.
        n_training_parameters: the largest number of parameters in any stage without labels; 0 if there was none, None if
            unknown.
    """

    Settings: ClassVar[type[ProbeConfig]] = EncoderConfig
    protocols: ClassVar[tuple[ProtocolName, ...]] = ("finetune", "linear", "mlp", "knn")
    smoke_settings: ClassVar[dict[str, Any]] = {
        "finetune": {"epochs": 6, "min_steps": 1, "batch_size": 16},
        **PROBE_SMOKE_SETTINGS,
    }
    encoder: Encoder
    head: nn.Module
    n_training_parameters: int | None

    @abstractmethod
    def build_encoder(self) -> Encoder:
        """Return a new encoder with its initial weights; the caller seeds random weights."""

    def build_views(self, shape: tuple[int, ...], clips: int) -> nn.Module | None:
        """Return the augmentation for fine-tuning; by default none.

        Args:
            shape: of one window's features, without the batch dimension.
            clips: number of labeled train clips.

        Returns:
            A module from features and a `BatchRandom` to features of the same shape, or None.
        """
        return None

    def check_sample_rate(self, encoder: Encoder) -> None:
        """Check that an encoder works at the sample rate of the audio that its system gets.

        Raises:
            UserError: the rates differ.
        """
        if encoder.sample_rate != self.sample_rate:
            raise UserError(
                f"the encoder works at {encoder.sample_rate:,} Hz and is given audio at {self.sample_rate:,} Hz",
                next_step="set sample_rate on the class, since it is read before the encoder is built",
            )

    def shared_artifacts(self, cell: Cell, train: Callable[[], str]) -> tuple[Any, ...]:
        """Return the key of the labeled clips' embeddings, which `linear`, `mlp` and `knn` share."""
        if self.protocol == "finetune":
            return ()
        settings = self.settings.model_dump(mode="json", exclude=DOWNSTREAM)
        clips = cell.model_dump(mode="json", exclude={"protocol", "settings"})
        return ({"embeddings": settings, "of": clips},)

    def prepare_encoder(self, train: Clips, context: RunContext) -> PretrainedEncoder:
        """Return the encoder before any label is used: by default with its initial weights.

        Args:
            train: the audio of the whole train split.
            context: device, seeds, progress and cache of the run.
        """
        with context.stage("features"):
            with context.seeds.globally("initial weights"):
                encoder = self.build_encoder().to(context.device)
            cached_normalization(encoder, train, self.target.window_seconds, context)
        return PretrainedEncoder(encoder)

    def train(self, data: TrainingData, context: RunContext) -> TrainingSummary:
        """Prepare the encoder without labels, then fit it or a probe to the labels by the protocol."""
        learned = self.prepare_encoder(data.train, context)
        self.check_sample_rate(learned.encoder)
        self.encoder, self.n_training_parameters = learned.encoder, learned.n_parameters
        summary = self._fit_by_protocol(data, context)
        before = learned.summary
        return summary.model_copy(
            update={
                "curves": before.curves | summary.curves,
                "clusters": before.clusters,
                "diagnosis": before.diagnosis | summary.diagnosis,
            }
        )

    def _fit_by_protocol(self, data: TrainingData, context: RunContext) -> TrainingSummary:
        if self.protocol == "finetune":
            return self._finetune(data, context)
        with context.stage("embeddings"):
            train = self._windows(data.labeled, context)
            held_out = self._windows(data.validation, context) if data.validation else None
        with context.stage("probe"):
            classes = len(self.target.classes)
            if self.protocol == "knn":
                labels = train.labels[train.owner]
                self.head = NearestNeighbors(train.embeddings, labels, classes)
                summary = TrainingSummary()
            else:
                fitted = self._fit_probe(train, held_out, context)
                self.head = fitted.head
                summary = TrainingSummary(
                    selection=fitted.selection,
                    selection_clips=fitted.n_selection_clips,
                    validation=fitted.score,
                )
            self.head = self.head.to(context.device)
        return summary

    def _fit_probe(
        self, train: EmbeddedWindows, held_out: EmbeddedWindows | None, context: RunContext
    ) -> FittedProbe:
        """Fit the classifier of `linear` or `mlp`; `held_out` selects its setting, or, if None, the labeled clips do."""
        data = train, held_out, len(self.target.classes), self.target.metric
        seeds, progress = context.seeds, context.progress
        if self.protocol == "linear":
            layers = self.encoder.n_layers
            return fit_linear(*data, self.settings.linear, seeds, progress, layers)
        return fit_mlp(*data, self.settings.mlp, seeds, progress, context.device)

    def score(self, clips: Clips, context: RunContext) -> Tensor:
        """Return class log-probabilities averaged over consecutive windows of each clip, shape (clips, classes).

        If the context allows it, a frozen encoder's embeddings of the clips are taken from the cache or added to it. The scores
        are the same.
        """
        encoder, seconds = self.encoder, self.target.window_seconds
        is_cached = (
            context.caches_scored_clips
            and self.protocol != "finetune"
            and embedding_bytes(encoder, clips, seconds) <= CACHED_BYTES
        )
        if not is_cached:
            return class_log_probabilities(encoder, self.head, clips, seconds, context)
        embeddings, _ = self.embed_windows(encoder, clips, context)
        return log_probabilities_of_embeddings(
            encoder, self.head, embeddings, clips, seconds, context
        )

    def computes_in_torch(self, encoder: Encoder) -> bool:
        """Return True if all that an encoder of this system computes can be counted; False if it computes outside of torch."""
        return True

    def count_encoder_parameters(self, encoder: Encoder) -> int | None:
        """Count the parameters of an encoder of this system; None if it has others than those of torch."""
        if not self.computes_in_torch(encoder):
            return None
        return sum(parameter.numel() for parameter in encoder.parameters())

    def count_parameters(self) -> ParameterCounts:
        """Count parameters; the train embeddings of k-NN are not parameters."""
        encoder = self.count_encoder_parameters(self.encoder)
        head = sum(parameter.numel() for parameter in self.head.parameters())
        inference = None if encoder is None else encoder + head
        training = largest_count(inference, self.n_training_parameters)
        return ParameterCounts(encoder=encoder, inference=inference, training=training)

    @torch.no_grad()
    def count_macs(self) -> int | None:
        """Count the multiply-accumulates of convolutions and matrix products in one window, for a second of audio.

        None if the encoder computes outside of torch.
        """
        if not self.computes_in_torch(self.encoder):
            return None
        self.encoder.eval()
        self.head.eval()
        device = next(self.head.buffers(), next(self.head.parameters(), torch.empty(0))).device
        samples = round(self.target.window_seconds * self.encoder.sample_rate)
        window = torch.zeros(1, samples, device=device)
        operations = count_operations(
            lambda: self.head(self.encoder(self.encoder.features(window)))
        )
        return round(operations / 2 / self.target.window_seconds)

    def save(self, folder: Path) -> None:
        """Write the encoder, its normalization statistics and the head to one file of tensors."""
        content: dict[str, Any] = {
            "encoder": self.encoder.state_dict(),
            "head": self.head.state_dict(),
            "n_training_parameters": self.n_training_parameters,
        }
        if isinstance(self.encoder, LogMelEncoder):  # no tensor tells the front end
            content["log_mel"] = self.encoder.log_mel.config.model_dump()
        save_tensors(folder / WEIGHTS, content)

    def load(self, folder: Path, context: RunContext) -> Self:
        """Fill a new encoder and head with the tensors of a file.

        Raises:
            UserError: the file does not hold exactly the tensors of this system.
        """
        path = folder / WEIGHTS
        content = load_tensors(path, context.device)
        # With the seed of the training: a plug-in may draw more than weights, and only weights are loaded below.
        with context.seeds.globally("initial weights"):
            encoder = self.build_encoder().to(context.device)
            self.check_sample_rate(encoder)
            head = self._empty_head(encoder, content.get("head")).to(context.device)
        load_strictly(encoder, content.get("encoder"), f"the encoder in {path}")
        load_strictly(head, content.get("head"), f"the classifier in {path}")
        self.encoder, self.head = encoder, head
        self.n_training_parameters = content.get("n_training_parameters", 0)
        return self

    def _finetune(self, data: TrainingData, context: RunContext) -> TrainingSummary:
        shape = self.encoder.feature_shape(self.target.window_seconds)
        settings = self.settings
        with context.stage(FINETUNING):
            self.head, summary = FineTuning(
                self.encoder,
                lambda clips: self.build_views(shape, clips),
                lambda: self._windows(data.labeled, context),
                self.target,
                settings.finetune,
                settings.linear,
                context,
            ).run(data)
        return summary

    @property
    def encoder_identity(self) -> dict[str, Any]:
        """Return what an encoder of this system depends on beside its tensors, as plain data for the keys of a cache."""
        return {
            # A setting, such as a kind of pooling, may change embeddings without changing a tensor.
            "settings": self.settings.model_dump(mode="json", exclude=DOWNSTREAM),
            "system_version": self.version,
            **({"provenance": self.provenance} if self.provenance else {}),
            **({"code": code} if (code := class_code(type(self))) else {}),
        }

    def embed_windows(
        self, encoder: Encoder, clips: Clips, context: RunContext
    ) -> tuple[Tensor, Tensor]:
        """Embed the windows of clips by an encoder of this system, or find their embeddings in the cache.

        Args:
            encoder: on the context's device.
            clips: at the encoder's sample rate.
            context: device, precision, progress and cache of the run.

        Returns:
            Embeddings, shape (windows, features), and the clip index of each window, shape (windows,), on the CPU.

        Raises:
            UserError: an embedding is not finite.
        """
        embeddings, owner = cached_embeddings(
            encoder, clips, self.target.window_seconds, self.encoder_identity, context
        )
        wrong = ~embeddings.isfinite().all(dim=1)
        if wrong.any():
            first = int(owner[wrong.nonzero()[0, 0]]) + 1
            raise UserError(
                f"embeddings of {int(wrong.sum()):,} of {len(wrong):,} windows are not finite, the first of clip {first:,} of {len(clips):,}",
                next_step="'bench systems check' looks for the cause, such as silence or a window that is too short",
            )
        return embeddings, owner

    def _windows(self, labeled: LabeledClips, context: RunContext) -> EmbeddedWindows:
        """Embed the windows of labeled clips, or find their embeddings in the cache."""
        embeddings, owner = self.embed_windows(self.encoder, labeled.clips, context)
        return EmbeddedWindows(embeddings, owner, labeled.labels, labeled.groups)

    def _empty_head(self, encoder: Encoder, saved: Any) -> nn.Module:
        classes = len(self.target.classes)
        if self.protocol == "mlp":
            return HiddenLayerClassifier(encoder.embedding_size, self.settings.mlp.hidden, classes)
        if self.protocol == "linear" and encoder.n_layers > 1:
            size = encoder.embedding_size // encoder.n_layers
            return WeightedLayers(encoder.n_layers, size, nn.Linear(size, classes))
        if self.protocol != "knn":
            return nn.Linear(encoder.embedding_size, classes)
        n_windows = (
            len(saved["embeddings"]) if isinstance(saved, dict) and "embeddings" in saved else 0
        )
        empty = torch.zeros(n_windows, encoder.embedding_size)
        return NearestNeighbors(empty, torch.zeros(n_windows, dtype=torch.long), classes)
