"""The supervised loop: an encoder and a linear head learn labelled clips.

A killed run goes on from its last checkpoint and ends with the same bytes: every epoch draws from
generators named by the epoch, so a checkpoint holds tensors and no generator's state.
"""

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lape_bench import metrics
from lape_bench.batches import random_windows, to_device
from lape_bench.config import Config
from lape_bench.learning.augment import random_gain
from lape_bench.learning.encoders import Encoder
from lape_bench.learning.inference import class_log_probabilities
from lape_bench.learning.weights import load_tensors, save_tensors
from lape_bench.store import Clips
from lape_bench.system import LabelledClips, RunContext, Target, TrainingData, TrainingSummary

CHECKPOINT = "classify.pt"


class FinetuneConfig(Config):
    """Fine-tuning of encoder and classifier with the labels.

    Adam at 1e-3 in batches of 32 is LAPE's published downstream setting. The number of steps and the random level
    are ours, chosen on validation: the one on asc-keywords with a tenth of the labels, the other on
    fsdd-digits, whose speakers were recorded at levels up to 22 dB apart.
    """

    learning_rate: float = Field(1e-3, gt=0, description="of Adam, at the start of the cosine")
    batch_size: int = Field(
        32, ge=3, description="clips a step, at most; from 3, no batch is left with a single clip"
    )
    epochs: int = Field(12, ge=1, description="passes through the labelled clips")
    least_steps: int = Field(
        288, ge=1, description="with few labels, more passes are made until so many steps are"
    )
    gain_db: float = Field(
        15.0, ge=0, description="each window's level is moved at random by up to so many decibels"
    )
    augment: bool = Field(True, description="train on views instead of the plain log-mels")
    selections: int = Field(
        12, ge=1, description="how often, at most, the model is scored on validation"
    )


class Classifier(nn.Module):
    """An encoder and a head, trained together."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, features: Tensor) -> Tensor:
        """Class scores of features, shape (batch, classes)."""
        scores: Tensor = self.head(self.encoder(features))
        return scores


def fit_classifier(
    model: Classifier,
    views: nn.Module | None,
    data: TrainingData,
    target: Target,
    config: FinetuneConfig,
    context: RunContext,
) -> TrainingSummary:
    """Train `model` in place and leave it as it was at its best epoch on validation.

    Adam with a cosine from the learning rate to zero, cross-entropy, one random window a clip and epoch.
    The best epoch has the highest of the target's metric, the lower loss between equals, the earlier between
    those; without validation it is the last one.

    Args:
        model: on the context's device.
        views: features and a generator in, features out; its buffers are part of a checkpoint.
        data: labelled clips to train on, and validation.
        target: classes, window and metric.
        config: how to train.
        context: device, precision, seeds, progress, and the folder of the checkpoint.

    Returns:
        Loss and validation score by epoch, and which epoch was chosen.
    """
    labelled = data.labelled
    clips = to_device(labelled.clips, context.device)
    labels = labelled.labels.to(context.device)
    window = round(target.window_seconds * labelled.clips.rate)
    batches = math.ceil(len(labels) / config.batch_size)
    epochs = max(config.epochs, math.ceil(config.least_steps / batches))
    scored = _selection_epochs(epochs, config.selections if data.validation else 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    state = _State(model, views, optimizer)
    state.resume(context)

    with context.progress.task("fine-tuning", epochs * len(labels), "clips") as task:
        task.resume_at(state.epoch * len(labels))
        for epoch in range(state.epoch + 1, epochs + 1):
            model.train()
            order = torch.randperm(len(labels), generator=context.seeds.torch("order", epoch))
            draw = context.seeds.torch("views", epoch)
            losses = []
            with context.seeds.globally("dropout", epoch):
                # Nearly equal batches: a last one of a single clip has no batch statistics.
                for step, batch in enumerate(order.tensor_split(batches)):
                    progress = ((epoch - 1) * batches + step) / (epochs * batches)
                    for group in optimizer.param_groups:
                        group["lr"] = config.learning_rate * (1 + math.cos(math.pi * progress)) / 2
                    waveforms = random_windows(clips, batch, window, draw)
                    waveforms = random_gain(waveforms, config.gain_db, draw)
                    features = model.encoder.features(waveforms)
                    if views is not None:
                        features = views(features, draw)
                    with context.autocast():
                        scores = model(features)
                    loss = F.cross_entropy(scores.float(), labels[batch])
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
                    optimizer.step()
                    losses.append(loss.detach())
                    task.advance(len(batch))
            row = {"epoch": float(epoch), "loss": float(torch.stack(losses).mean())}
            if epoch in scored and data.validation is not None:
                value, nll = _validate(model, data.validation, target, context)
                row |= {"validation": value, "validation_loss": nll}
                state.offer(epoch, value, nll)
            if context.on_epoch is not None:
                context.on_epoch(epoch, _scorer(model, target, context))
            state.curve.append(row)
            task.note(
                epoch=f"{epoch}/{epochs}",
                **{key: f"{value:.3f}" for key, value in row.items() if key != "epoch"},
            )
            context.progress.detail(task.line())
            state.epoch = epoch
            state.checkpoint(context, last=epoch == epochs)

    decided = {}
    if state.best is not None:
        model.load_state_dict(state.best["model"])
        decided[f"epoch {state.best['epoch']} of {epochs}"] = "validation"
    return TrainingSummary(curve=tuple(state.curve), decided=decided)


class _State:
    """What a checkpoint holds."""

    def __init__(
        self, model: nn.Module, views: nn.Module | None, optimizer: torch.optim.Optimizer
    ) -> None:
        self.parts: dict[str, Any] = {"model": model, "optimizer": optimizer}
        if views is not None:
            self.parts["views"] = views
        self.epoch = 0
        self.best: dict[str, Any] | None = None
        self.curve: list[dict[str, float]] = []
        self._saved = time.monotonic()

    def offer(self, epoch: int, value: float, nll: float) -> None:
        """Keep the model of this epoch if it is the best so far."""
        if self.best is None or (value, -nll) > (self.best["value"], -self.best["nll"]):
            tensors = copy.deepcopy(self.parts["model"].state_dict())
            self.best = {"epoch": epoch, "value": value, "nll": nll, "model": tensors}

    def checkpoint(self, context: RunContext, last: bool) -> None:
        """Save now and then: a resumed run does not depend on when."""
        if not last and time.monotonic() - self._saved < context.checkpoint_seconds:
            return
        content = {name: part.state_dict() for name, part in self.parts.items()}
        rest = {"epoch": self.epoch, "best": self.best, "curve": self.curve}
        save_tensors(context.work / CHECKPOINT, content | rest)
        self._saved = time.monotonic()

    def resume(self, context: RunContext) -> None:
        """Take up the checkpoint of a killed run, if there is one."""
        path = context.work / CHECKPOINT
        if path.is_file():
            content = load_tensors(path, context.device)
            for name, part in self.parts.items():
                part.load_state_dict(content[name])
            self.epoch, self.best, self.curve = content["epoch"], content["best"], content["curve"]
            context.progress.say(f"resuming after epoch {self.epoch}")


def _selection_epochs(epochs: int, selections: int) -> set[int]:
    """Evenly spaced epochs, the last among them."""
    return {round(epochs * (k + 1) / selections) for k in range(selections)} - {0}


def _scorer(model: Classifier, target: Target, context: RunContext) -> Callable[[Clips], Tensor]:
    return lambda clips: class_log_probabilities(
        model.encoder, model.head, clips, target.window_seconds, context
    )


def _validate(
    model: Classifier, validation: LabelledClips, target: Target, context: RunContext
) -> tuple[float, float]:
    """Return the target's metric and the mean negative log-likelihood."""
    log_probabilities = _scorer(model, target, context)(validation.clips)
    labels = validation.labels
    nll = float(F.nll_loss(log_probabilities, labels))
    scores = metrics.score(log_probabilities.numpy(), labels.numpy().astype(np.int64))
    return scores[target.metric], nll
