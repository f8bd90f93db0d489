"""Fine-tuning: an encoder and a linear head learn from labeled clips, and validation selects the epoch."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lape_bench import metrics
from lape_bench.core.config import Config
from lape_bench.data.audio_store import Clips
from lape_bench.learning.augmentations.random_gain import random_gains
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.training.inference import class_log_probabilities
from lape_bench.learning.training.loop import EpochPlan, OptimizerConfig, TrainingLoop, cosine
from lape_bench.runtime.batch_random import BatchRandom
from lape_bench.system import LabeledClips, RunContext, TargetTask, TrainingData, TrainingSummary

STAGE = "fine-tuning"


class FinetuneConfig(Config):
    """Fine-tuning of encoder and classifier with the labels.

    Adam at 1e-3 in batches of 32 is LAPE's published downstream setting. The number of steps and the random gain are ours,
    chosen on validation: the steps on asc-keywords with a tenth of the labels, the gain on fsdd-digits, whose speakers were
    recorded at levels up to 22 dB apart.
    """

    learning_rate: float = Field(1e-3, gt=0, description="of Adam, at the start of the cosine")
    batch_size: int = Field(
        32, ge=3, description="clips a step, at most; from 3, no batch is left with a single clip"
    )
    epochs: int = Field(12, ge=1, description="passes through the labeled clips")
    min_steps: int = Field(
        288, ge=1, description="with few labels, more passes are made until so many steps are"
    )
    gain_db: float = Field(
        15.0, ge=0, description="each window's level is moved at random by up to so many decibels"
    )
    selections: int = Field(
        12, ge=1, description="how often, at most, the model is scored on validation"
    )


class Classifier(nn.Module):
    """An encoder and a head, trained together."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, features: Tensor, *lengths: Tensor) -> Tensor:
        """Return class scores (logits) of features, shape (batch, classes); lengths as `Encoder.length_arguments`."""
        scores: Tensor = self.head(self.encoder(features, *lengths))
        return scores


def fit_classifier(
    model: Classifier,
    views: nn.Module | None,
    data: TrainingData,
    target: TargetTask,
    config: FinetuneConfig,
    context: RunContext,
) -> TrainingSummary:
    """Train a model in place, and leave it as it was after its best epoch on validation.

    Adam with a cosine schedule from the learning rate to zero, cross-entropy, one random window a clip and epoch. The best
    epoch has the highest value of the target's metric; ties go to the lower validation loss, then to the earlier epoch.
    Without validation clips the last epoch is kept.

    Args:
        model: on the context's device.
        views: the augmentation, from features and a `BatchRandom` to features of the same shape; None for no augmentation.
            A checkpoint holds its buffers.
        data: labeled clips to train on, and validation clips.
        target: classes, window and metric.
        config: how to train.
        context: device, precision, seeds, progress, and the folder of the checkpoint.

    Returns:
        Loss and validation score by epoch, and which epoch was selected.

    Raises:
        UserError: the loss is not finite.
    """
    clips, labels = data.labeled.clips, data.labeled.labels.to(context.device)
    window = round(target.window_seconds * clips.rate)
    lengths = torch.from_numpy(clips.lengths).clamp(max=window).to(context.device)
    centered = not model.encoder.uses_lengths
    plan = EpochPlan(
        clips, window, config.batch_size, config.epochs, config.min_steps, centered=centered
    )
    scored = _selection_epochs(plan.total_epochs, config.selections if data.validation else 0)
    best = _BestEpoch(model)

    def inputs(waveforms: Tensor, batch: Tensor, random: BatchRandom) -> tuple[Tensor, ...]:
        places = batch.to(context.device, non_blocking=True)
        gains = random_gains(1, waveforms, config.gain_db, random)
        known = model.encoder.length_arguments(lengths[places])
        features = model.encoder.features_at(waveforms, gains, *known)
        if views is not None:
            features = views(features, random)
        return features, labels[places], *known

    def loss(features: Tensor, classes: Tensor, *known: Tensor) -> Tensor:
        with context.autocast():
            scores = model(features, *known)
        return F.cross_entropy(scores.float(), classes)

    def after_epoch(epoch: int) -> dict[str, float]:
        row = {}
        if epoch in scored and data.validation is not None:
            value, nll = _validate(model, data.validation, target, context)
            row = {"validation": value, "validation_loss": nll}
            best.update(epoch, value, nll)
        if context.on_epoch is not None:
            context.on_epoch(epoch, _scorer(model, target, context))
        return row

    curve = TrainingLoop(
        STAGE,
        plan,
        model,
        OptimizerConfig(learning_rate=config.learning_rate).build(model),
        cosine,
        inputs,
        loss,
        cuda_graphable=model.encoder.cuda_graphable,
        after_epoch=after_epoch,
        extra_state={"best": best} | ({"views": views} if views is not None else {}),
    ).run(context)
    if not best.epoch:
        return TrainingSummary(curves={STAGE: curve})
    best.restore()
    selection = {f"epoch {best.epoch} of {plan.total_epochs}": "validation"}
    return TrainingSummary(curves={STAGE: curve}, selection=selection, validation=best.value)


class _BestEpoch:
    """The state of the model after its best epoch so far; epoch 0 means that no epoch was scored."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.epoch, self.value, self.nll = 0, 0.0, 0.0
        self.tensors: dict[str, Tensor] = {}

    def update(self, epoch: int, value: float, nll: float) -> None:
        """Keep the state of the model if this epoch is the best so far."""
        if not self.epoch or (value, -nll) > (self.value, -self.nll):
            self.epoch, self.value, self.nll = epoch, value, nll
            self.tensors = copy.deepcopy(self.model.state_dict())

    def restore(self) -> None:
        """Load the state of the best epoch into the model."""
        self.model.load_state_dict(self.tensors)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values and tensors for a checkpoint."""
        names = ("epoch", "value", "nll", "tensors")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Continue from a checkpoint."""
        for name, value in state.items():
            setattr(self, name, value)


def _selection_epochs(epochs: int, selections: int) -> set[int]:
    """Return evenly spaced epochs, the last epoch among them."""
    return {round(epochs * (k + 1) / selections) for k in range(selections)} - {0}


def _scorer(
    model: Classifier, target: TargetTask, context: RunContext
) -> Callable[[Clips], Tensor]:
    return lambda clips: class_log_probabilities(
        model.encoder, model.head, clips, target.window_seconds, context
    )


def _validate(
    model: Classifier, validation: LabeledClips, target: TargetTask, context: RunContext
) -> tuple[float, float]:
    """Return the target's metric and the mean negative log-likelihood."""
    log_probabilities = _scorer(model, target, context)(validation.clips)
    labels = validation.labels
    nll = float(F.nll_loss(log_probabilities, labels))
    scores = metrics.score(log_probabilities.numpy(), labels.numpy().astype(np.int64))
    return scores[target.metric], nll
