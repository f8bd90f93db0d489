"""Fine-tuning: an encoder and a linear head learn from labeled clips, for a number of steps that does not depend on them.

No epoch is selected: the last one is kept. Of several learning rates a hold-out of the labeled clips selects one, and then all
of them are trained on.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional as F

from lape_bench.core.config import Config
from lape_bench.core.errors import UserError
from lape_bench.data.audio_store import Clips
from lape_bench.learning.augmentations.random_gain import random_gains
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.training.inference import class_log_probabilities
from lape_bench.learning.training.label_folds import label_folds
from lape_bench.learning.training.linear_probe import LinearConfig, fit_linear
from lape_bench.learning.training.loop import EpochPlan, OptimizerConfig, TrainingLoop
from lape_bench.learning.training.probe_selection import EmbeddedWindows, rank
from lape_bench.learning.training.repeated_windows import repeated_features
from lape_bench.runtime.batch_random import BatchRandom
from lape_bench.system import (
    Curve,
    LabeledClips,
    RunContext,
    TargetTask,
    TrainingData,
    TrainingSummary,
)

STAGE = "fine-tuning"
VALIDATION = "validation"
SMALLEST_STD = 1e-6  # of a feature that varies


class FinetuneConfig(Config):
    """Fine-tuning of encoder and classifier with the labels.

    Adam at 1e-3 in batches of 32 is LAPE's published downstream setting. The number of steps and the random gain are ours: after
    fewer steps scores on held-out clips still rise (results/boards/steps.md), and the gain was chosen on fsdd-digits, whose
    speakers were recorded at levels up to 22 dB apart.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    learning_rates: tuple[PositiveFloat, ...] = Field(
        (1e-3,),
        min_length=1,
        description="of Adam, after warm-up; of several, a hold-out of the labeled clips selects one, or the middle one is taken "
        "if there are too few of them",
    )
    head_start: Literal["random", "probe"] = Field(
        "random",
        description="the head's weights before the first step: random, or those of a linear probe (LP-FT, arXiv:2202.10054), "
        "which needs lower learning rates",
    )
    head_rate: float = Field(1.0, gt=0, description="factor of the head's learning rate")
    layer_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="factor of the learning rate from each layer to the one before it; BEiT (arXiv:2106.08254) has 0.65",
    )
    frozen_layers: int = Field(
        0, ge=0, description="number of layers, from the input on, that keep their weights"
    )
    weight_decay: float = Field(0.0, ge=0, description="of AdamW (arXiv:1711.05101), on matrices")
    warm_up: float = Field(
        0.0, ge=0, lt=1, description="share of the steps in which the rates rise from zero"
    )
    batch_size: int = Field(
        32,
        ge=3,
        description="largest number of clips per step; from 3 on, no batch has a single clip",
    )
    epochs: int = Field(12, ge=1, description="smallest number of passes through the labeled clips")
    min_steps: int = Field(
        2500, ge=1, description="smallest number of steps; with few labels, more passes are made"
    )
    gain_db: float = Field(
        15.0, ge=0, description="largest random gain of each window, in decibels"
    )
    evaluations: int = Field(
        12,
        ge=1,
        description="largest number of times that the model is scored on held-out clips during training",
    )


class Classifier(nn.Module):
    """An encoder and a head, trained together."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, features: Tensor, *lengths: Tensor) -> Tensor:
        """Return class scores (logits) of features, shape (batch, classes); lengths as `Encoder.length_arguments`.

        Raises:
            UserError: no gradient can reach the encoder that is to be trained.
        """
        embeddings = self.encoder(features, *lengths)
        if (
            self.training
            and not embeddings.requires_grad
            and any(True for _ in self.encoder.parameters())
        ):
            raise UserError(
                f"no gradient reaches {type(self.encoder).__name__}, so fine-tuning would train only the classifier",
                next_step="set requires_grad of its parameters, and look for torch.no_grad(), .detach() or .numpy() in its "
                "code; or use --protocol linear",
            )
        scores: Tensor = self.head(embeddings)
        return scores


class FineTuned(NamedTuple):
    """A fine-tuned classifier; its encoder is trained in place.

    Attributes:
        head: from embeddings to class scores.
        summary: learning curves, what was selected, and warnings.
    """

    head: nn.Linear
    summary: TrainingSummary


@dataclass
class FineTuning:
    """Fine-tuning of one encoder.

    Attributes:
        encoder: on the context's device; trained in place.
        build_views: from the number of train clips to a new augmentation, which maps features and a `BatchRandom` to features
            of the same shape; or to None. A checkpoint holds its buffers.
        embed: embeds the labeled clips by the encoder as it is now, for probes.
        target: classes, window and metric.
        config: how to train.
        probe: how to fit the probe.
        context: device, precision, seeds, progress, and the folder of the checkpoints.
    """

    encoder: Encoder
    build_views: Callable[[int], nn.Module | None]
    embed: Callable[[], EmbeddedWindows]
    target: TargetTask
    config: FinetuneConfig
    probe: LinearConfig
    context: RunContext

    def __post_init__(self) -> None:
        """Keep the encoder's state, from which each training starts."""
        self._initial = copy.deepcopy(self.encoder.state_dict())

    def run(self, data: TrainingData) -> FineTuned:
        """Select a learning rate, and train on all labeled clips.

        Args:
            data: labeled clips, and perhaps validation clips, which then select instead of a hold-out.

        Raises:
            UserError: the loss is not finite, or a probe is fitted and all labels are of one class.
        """
        rates = sorted(set(self.config.learning_rates))
        if self.config.head_start == "probe" or len(rates) > 1 or data.validation is not None:
            self._windows = self.embed()
        labeled, everything = data.labeled, np.arange(len(data.labeled.labels))
        rate, curves, summary = rates[(len(rates) - 1) // 2], {}, TrainingSummary()
        held_out = self._hold_out(data, len(rates))
        if held_out is not None and len(rates) > 1:
            for candidate in rates:
                name = f"{STAGE} at {candidate}"
                rows, held = held_out.train, held_out.held
                _, curves[name] = self._train(name, labeled, rows, candidate, held)
            rate = max(rates, key=lambda each: _quality(curves[f"{STAGE} at {each}"]))
            summary = TrainingSummary(
                selection={f"learning rate = {rate}": held_out.description},
                selection_clips=len(held_out.held.labels),
            )
        elif len(rates) > 1:
            divided = label_folds(labeled.labels, labeled.groups, self.context.seeds)
            summary = TrainingSummary(selection={f"learning rate = {rate}": divided.description})
        head, curves[STAGE] = self._train(
            STAGE, labeled, everything, rate, data.validation, self.context.on_epoch
        )
        updates: dict[str, Any] = {"curves": curves}
        if held_out is not None:
            judged = curves[f"{STAGE} at {rate}" if len(rates) > 1 else STAGE]
            updates |= {
                "validation": judged[-1][VALIDATION],
                "warnings": held_out.warnings(judged),
            }
        return FineTuned(head, summary.model_copy(update=updates))

    def _hold_out(self, data: TrainingData, n_rates: int) -> "HeldOut | None":
        """Return clips that a training is judged by, and which to train on for it.

        Returns:
            None if there are too few labeled clips, or if nothing is selected and there are no validation clips.
        """
        labeled, seeds = data.labeled, self.context.seeds
        if data.validation is not None:
            rows, held, text = np.arange(len(labeled.labels)), data.validation, VALIDATION
        elif n_rates > 1 and (
            folds := (
                divided := label_folds(labeled.labels, labeled.groups, seeds).hold_out()
            ).folds
        ):
            rows, held, text = folds[0].train, _some(labeled, folds[0].held), divided.description
        else:
            return None
        probe = self._fit_probe(rows).to(self.context.device)
        seconds = self.target.window_seconds
        scores = class_log_probabilities(self.encoder, probe, held.clips, seconds, self.context)
        return HeldOut(rows, held, text, rank(scores, held.labels, self.target.metric)[0])

    def _train(
        self,
        name: str,
        labeled: LabeledClips,
        rows: NDArray[np.int64],
        rate: float,
        held: LabeledClips | None,
        on_epoch: Callable[[int, Callable[[Clips], Tensor]], None] | None = None,
    ) -> tuple[nn.Linear, Curve]:
        """Train the encoder from its initial state, with a new head, on some of the labeled clips.

        Adam with a cosine schedule to zero, cross-entropy, one random window a clip and epoch.

        Args:
            name: of the stage.
            labeled: the labeled clips.
            rows: positions of those to train on, ascending.
            rate: the learning rate.
            held: clips to score now and then, or None.
            on_epoch: called as `RunContext.on_epoch` then, too.
        """
        config, encoder = self.config, self.encoder
        encoder.load_state_dict(self._initial)
        own = _some(labeled, rows)
        model = Classifier(encoder, self._initial_head(rows))
        views = self.build_views(len(rows))
        if views is not None:
            views = views.to(self.context.device)
        window = round(self.target.window_seconds * own.clips.rate)
        plan = EpochPlan(
            own.clips,
            window,
            config.batch_size,
            config.epochs,
            config.min_steps,
            centered=not encoder.uses_lengths,
        )
        optimizer = OptimizerConfig(
            name="adamw",
            learning_rate=rate,
            weight_decay=config.weight_decay,
            warm_up=config.warm_up,
        )
        curve = TrainingLoop(
            name,
            plan,
            model,
            optimizer.build_groups(self._parameter_groups(model)),
            optimizer.learning_rate_factor,
            self._batch_inputs(own, window, views),
            self._loss(model),
            cuda_graphable=encoder.cuda_graphable,
            after_epoch=self._evaluation(model, plan.total_epochs, held, on_epoch),
            extra_state={"views": views} if views is not None else {},
        ).run(self.context)
        head = model.head.folded() if isinstance(model.head, StandardizedHead) else model.head
        assert isinstance(head, nn.Linear)
        return head, curve

    def _batch_inputs(
        self, labeled: LabeledClips, window: int, views: nn.Module | None
    ) -> Callable[[Tensor, Tensor, BatchRandom], tuple[Tensor, ...]]:
        """Return a function from waveforms and rows of a batch to features at a random gain, classes, and lengths if used."""
        device, encoder, gain_db = self.context.device, self.encoder, self.config.gain_db
        labels = labeled.labels.to(device)
        lengths = torch.from_numpy(labeled.clips.lengths).clamp(max=window).to(device)
        features_at = repeated_features(encoder, labeled.clips.lengths, window)

        def inputs(waveforms: Tensor, batch: Tensor, random: BatchRandom) -> tuple[Tensor, ...]:
            places = batch.to(device, non_blocking=True)
            gains = random_gains(1, waveforms, gain_db, random)
            known = encoder.length_arguments(lengths[places])
            features = features_at(batch, waveforms, gains, *known)
            if views is not None:
                features = views(features, random)
            return features, labels[places], *known

        return inputs

    def _loss(self, model: Classifier) -> Callable[..., Tensor]:
        """Return the cross-entropy of a batch."""

        def loss(features: Tensor, classes: Tensor, *known: Tensor) -> Tensor:
            with self.context.autocast():
                scores = model(features, *known)
            return F.cross_entropy(scores.float(), classes)

        return loss

    def _evaluation(
        self,
        model: Classifier,
        epochs: int,
        held: LabeledClips | None,
        on_epoch: Callable[[int, Callable[[Clips], Tensor]], None] | None,
    ) -> Callable[[int], dict[str, float]]:
        """Return a function from an epoch to the scores of held-out clips, empty for most epochs."""
        evaluated = _evaluated_epochs(epochs, self.config.evaluations)

        def scorer(clips: Clips) -> Tensor:
            seconds = self.target.window_seconds
            return class_log_probabilities(self.encoder, model.head, clips, seconds, self.context)

        def after_epoch(epoch: int) -> dict[str, float]:
            if epoch not in evaluated:
                return {}
            if on_epoch is not None:
                on_epoch(epoch, scorer)
            if held is None:
                return {}
            score, log_likelihood = rank(scorer(held.clips), held.labels, self.target.metric)
            return {VALIDATION: score, "validation_loss": -log_likelihood}

        return after_epoch

    def _initial_head(self, rows: NDArray[np.int64]) -> "nn.Linear | StandardizedHead":
        """Return the head before the first step of a training on some of the labeled clips."""
        if self.config.head_start == "probe":
            embeddings = self._windows.select(rows).embeddings
            return StandardizedHead(embeddings, self._fit_probe(rows)).to(self.context.device)
        with self.context.seeds.globally("initial head"):
            layer = nn.Linear(self.encoder.embedding_size, len(self.target.classes))
        return layer.to(self.context.device)

    def _fit_probe(self, rows: NDArray[np.int64]) -> nn.Linear:
        """Return the linear probe of some of the labeled clips."""
        target, context = self.target, self.context
        classes, metric = len(target.classes), target.metric
        windows = self._windows.select(rows)
        fitted = fit_linear(
            windows, None, classes, metric, self.probe, context.seeds, context.progress
        )
        assert isinstance(fitted.head, nn.Linear)
        return fitted.head

    def _parameter_groups(self, model: Classifier) -> list[tuple[list[nn.Parameter], float]]:
        """Return parameters and the factor of their learning rate.

        Raises:
            UserError: all layers are to be frozen, or a parameter of the encoder belongs to no layer.
        """
        layers, decay = self.encoder.layers_of_parameters(), self.config.layer_decay
        in_layers = {id(parameter) for layer in layers for parameter in layer}
        left_out = [
            name
            for name, parameter in self.encoder.named_parameters()
            if parameter.requires_grad and id(parameter) not in in_layers
        ]
        if left_out:
            raise UserError(
                f"layers_of_parameters of {type(self.encoder).__name__} leaves out {len(left_out)} parameters, such as "
                f"{left_out[0]}, which would not be trained",
                next_step="add them to a layer",
            )
        if self.config.frozen_layers >= len(layers):
            raise UserError(
                f"finetune.frozen_layers is {self.config.frozen_layers}, which freezes the whole encoder",
                allowed=f"0 to {len(layers) - 1}, fewer than its layers",
                next_step="freeze fewer, or use --protocol linear",
            )
        groups = [(layer, decay ** (len(layers) - place)) for place, layer in enumerate(layers)]
        for layer, _ in groups[: self.config.frozen_layers]:
            for parameter in layer:
                parameter.requires_grad_(False)
        return [*groups, ([*model.head.parameters()], self.config.head_rate)]


class HeldOut(NamedTuple):
    """Clips that a training is judged by.

    Attributes:
        train: positions of the labeled clips to train on, ascending.
        held: the clips to score.
        description: what they are, for records.
        probe: score of a linear probe of the frozen encoder on them.
    """

    train: NDArray[np.int64]
    held: LabeledClips
    description: str
    probe: float

    def warnings(self, curve: Curve) -> tuple[str, ...]:
        """Return warnings if the scores of a training are worse than expected by more than a standard error."""
        scores = [row[VALIDATION] for row in curve if VALIDATION in row]
        last, earlier = scores[-1], scores[max(0, round(0.75 * len(scores)) - 1)]
        error = math.sqrt(
            max(last * (1 - last), 0.25 / len(self.held.labels)) / len(self.held.labels)
        )
        texts = []
        if last < self.probe - error:
            texts.append(
                f"fine-tuning scores {100 * last:.1f} % on held-out clips, a linear probe of the same encoder "
                f"{100 * self.probe:.1f} %: try other finetune.learning_rates"
            )
        if last > earlier + error:
            texts.append(
                f"the score on held-out clips still rose in the last quarter, from {100 * earlier:.1f} to "
                f"{100 * last:.1f} %: try more finetune.min_steps"
            )
        return tuple(texts)


class StandardizedHead(nn.Module):
    """A linear layer on standardized embeddings, which starts from a probe.

    On plain embeddings the weights of a feature that hardly varies are so large that a step changes them by nothing.

    Args:
        embeddings: of the train windows, shape (windows, features).
        probe: a layer on plain embeddings.
    """

    mean: Tensor
    std: Tensor

    @torch.no_grad()
    def __init__(self, embeddings: Tensor, probe: nn.Linear) -> None:
        super().__init__()
        std = embeddings.std(dim=0, correction=0)
        self.register_buffer("mean", embeddings.mean(dim=0))
        self.register_buffer("std", torch.where(std > SMALLEST_STD, std, 1.0))
        self.layer = copy.deepcopy(probe)
        self.layer.weight.mul_(self.std)
        self.layer.bias.add_(probe.weight @ self.mean)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return class scores, shape (batch, classes)."""
        scores: Tensor = self.layer((embeddings - self.mean) / self.std)
        return scores

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """Return a layer on plain embeddings that computes the same."""
        layer = copy.deepcopy(self.layer)
        layer.weight.div_(self.std)
        layer.bias.sub_(layer.weight @ self.mean)
        return layer


def _some(labeled: LabeledClips, rows: NDArray[np.int64]) -> LabeledClips:
    return LabeledClips(labeled.clips.view(rows), labeled.labels[rows], labeled.groups[rows])


def _quality(curve: Curve) -> tuple[float, float]:
    """Return score and log-likelihood at the last step."""
    return curve[-1][VALIDATION], -curve[-1]["validation_loss"]


def _evaluated_epochs(epochs: int, evaluations: int) -> set[int]:
    """Return evenly spaced epochs, the last epoch among them."""
    return {round(epochs * (k + 1) / evaluations) for k in range(evaluations)} - {0}
