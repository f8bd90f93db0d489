"""EncoderSystem: a system that is an encoder, under the protocols `finetune`, `linear` and `knn`.

What an encoder learns before it sees a label is the system's own; what follows is the same for all.
"""

import hashlib
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lape_bench.artifacts import artifact
from lape_bench.batches import whole_clips
from lape_bench.config import Config
from lape_bench.learning.classify import Classifier, FinetuneConfig, fit_classifier
from lape_bench.learning.encoders import Encoder
from lape_bench.learning.heads import NearestNeighbours
from lape_bench.learning.inference import class_log_probabilities, embed
from lape_bench.learning.probe import LinearConfig, Windows, fit_linear
from lape_bench.learning.weights import load_strictly, load_tensors, save_tensors
from lape_bench.store import Clips
from lape_bench.system import (
    LabelledClips,
    ParameterCounts,
    Protocol,
    RunContext,
    System,
    TrainingData,
    TrainingSummary,
)

WEIGHTS = "weights.pt"


class FrozenConfig(Config):
    """Settings of an encoder that is never trained with the labels."""

    linear: LinearConfig = Field(default_factory=LinearConfig)


class EncoderConfig(FrozenConfig):
    """Settings of an encoder that may be frozen or fine-tuned."""

    finetune: FinetuneConfig = Field(default_factory=FinetuneConfig)


class EncoderSystem(System):
    """A system that learns, or loads, an encoder."""

    Settings: ClassVar[type[FrozenConfig]] = EncoderConfig
    protocols: ClassVar[tuple[Protocol, ...]] = ("finetune", "linear", "knn")
    brief: ClassVar[dict[str, Any]] = {
        "finetune": {"epochs": 6, "least_steps": 1, "batch_size": 16}
    }
    encoder: Encoder
    head: nn.Module

    @abstractmethod
    def build_encoder(self) -> Encoder:
        """Return the encoder with the weights it starts from; random ones are seeded by the caller."""

    def build_views(self, shape: tuple[int, ...], clips: int) -> nn.Module | None:
        """Return the augmentation of fine-tuning, for so many clips of this feature shape; by default none."""
        return None

    @property
    def selects(self) -> bool:
        """Fine-tuning chooses an epoch, linear evaluation a penalty if there are several."""
        if self.protocol == "linear":
            return len(self.settings.linear.inverse_penalty) > 1
        return self.protocol == "finetune"

    def train(self, data: TrainingData, context: RunContext) -> TrainingSummary:
        """Build the encoder and bring it to the task by the protocol."""
        with context.stage("features"):
            with context.seeds.globally("initial weights"):
                self.encoder = self.build_encoder().to(context.device)
                if self.protocol == "finetune":
                    self.head = nn.Linear(self.encoder.embedding_size, len(self.target.classes))
            self.encoder.fit_features(
                waveforms for _, waveforms in whole_clips(data.train, context.device)
            )
        if self.protocol == "finetune":
            self.head.to(context.device)
            return self._finetune(data, context)
        with context.stage("embeddings"):
            train = self._windows(data.labelled, context)
            held_out = self._windows(data.validation, context) if data.validation else None
        with context.stage("probe"):
            classes = len(self.target.classes)
            if self.protocol == "knn":
                labels = train.labels[train.owner]
                self.head = NearestNeighbours(train.embeddings, labels, classes)
                decided = {}
            else:
                self.head, chosen = fit_linear(
                    train,
                    held_out,
                    classes,
                    self.target.metric,
                    self.settings.linear,
                    context.progress,
                )
                decided = {chosen: "validation"} if self.selects else {}
            self.head = self.head.to(context.device)
        return TrainingSummary(decided=decided)

    def score(self, clips: Clips, context: RunContext) -> Tensor:
        """Average class log-probabilities over consecutive windows of each clip."""
        return class_log_probabilities(
            self.encoder, self.head, clips, self.target.window_seconds, context
        )

    def count_parameters(self) -> ParameterCounts:
        """Count parameters; the train embeddings that k-NN keeps are not parameters."""
        encoder = sum(p.numel() for p in self.encoder.parameters())
        inference = encoder + sum(p.numel() for p in self.head.parameters())
        return ParameterCounts(encoder=encoder, inference=inference, training=inference)

    @torch.no_grad()
    def count_macs(self) -> int:
        """Count products of convolutions and matrices in one window, brought to a second."""
        self.encoder.eval()
        device = next(self.head.buffers(), next(self.head.parameters(), torch.empty(0))).device
        samples = round(self.target.window_seconds * self.encoder.sample_rate)
        with FlopCounterMode(display=False) as counter:
            self.head(self.encoder(self.encoder.features(torch.zeros(1, samples, device=device))))
        operations: int = counter.get_total_flops()  # two a multiply-accumulate
        return round(operations / 2 / self.target.window_seconds)

    def save(self, folder: Path) -> None:
        """Write encoder, its normalisation statistics, and head to one file of tensors."""
        content = {"encoder": self.encoder.state_dict(), "head": self.head.state_dict()}
        save_tensors(folder / WEIGHTS, content)

    def load(self, folder: Path, context: RunContext) -> Self:
        """Fill a new encoder and head, strictly."""
        path = folder / WEIGHTS
        content = load_tensors(path, context.device)
        with context.seeds.globally("overwritten"):  # random weights that the next lines replace
            encoder = self.build_encoder().to(context.device)
            head = self._empty_head(encoder, content.get("head")).to(context.device)
        load_strictly(encoder, content.get("encoder"), f"the encoder in {path}")
        load_strictly(head, content.get("head"), f"the classifier in {path}")
        self.encoder, self.head = encoder, head
        return self

    def _finetune(self, data: TrainingData, context: RunContext) -> TrainingSummary:
        model = Classifier(self.encoder, self.head)
        views = None
        if self.settings.finetune.augment:
            samples = round(self.target.window_seconds * self.encoder.sample_rate)
            silence = torch.zeros(1, samples, device=context.device)
            shape = tuple(self.encoder.features(silence).shape[1:])
            views = self.build_views(shape, len(data.labelled.clips))
        if views is not None:
            views = views.to(context.device)
        with context.stage("finetune"):
            return fit_classifier(model, views, data, self.target, self.settings.finetune, context)

    def _windows(self, labelled: LabelledClips, context: RunContext) -> Windows:
        """Embed clips, or find their embeddings in the cache."""
        window_seconds = self.target.window_seconds

        def compute(folder: Path) -> None:
            embeddings, owner = embed(self.encoder, labelled.clips, window_seconds, context)
            save_tensors(folder / "embeddings.pt", {"embeddings": embeddings, "owner": owner})

        found = artifact(
            "embeddings",
            {
                "encoder": f"{type(self.encoder).__module__}:{type(self.encoder).__qualname__}",
                "encoder_tensors": _digest(self.encoder),
                # A setting may act without a tensor, such as a pooling.
                "settings": self.settings.model_dump(mode="json", exclude={"finetune", "linear"}),
                "system_version": self.version,
                "clips": labelled.clips.key,
                "window_seconds": None if self.encoder.whole_clip else window_seconds,
                "precision": context.precision,
                "device": context.device.type,
                "torch": torch.__version__,
            },
            compute,
        )
        context.artifacts.append(found)
        context.progress.detail(
            f"embeddings {found.hash[:12]} {'computed' if found.computed else 'found in the cache'}"
        )
        held = load_tensors(found.folder / "embeddings.pt", torch.device("cpu"))
        return Windows(held["embeddings"], held["owner"], labelled.labels)

    def _empty_head(self, encoder: Encoder, saved: Any) -> nn.Module:
        classes = len(self.target.classes)
        if self.protocol != "knn":
            return nn.Linear(encoder.embedding_size, classes)
        held = len(saved["embeddings"]) if isinstance(saved, dict) and "embeddings" in saved else 0
        nothing = torch.zeros(held, encoder.embedding_size)
        return NearestNeighbours(nothing, torch.zeros(held, dtype=torch.long), classes)


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
