"""Pre-training without labels: one loop for every self-supervised objective.

An objective holds the encoder, its heads, its loss and, if it has one, its momentum teacher. The views are passed beside it.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lape_bench.core.errors import UserError
from lape_bench.core.seeding import Seeds
from lape_bench.data.streams.streamed_clips import CorpusClips
from lape_bench.learning.augmentations.random_gain import random_gains
from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.training.batches import cut_windows, random_windows, to_device
from lape_bench.learning.training.loop import (
    EpochPlan,
    OptimizerConfig,
    TrainingLoop,
    UnlabeledConfig,
)
from lape_bench.learning.training.repeated_windows import repeated_features
from lape_bench.learning.training.sync_batch_norm import share_statistics
from lape_bench.runtime.batch_random import BatchRandom
from lape_bench.system import Curve, RunContext

logger = logging.getLogger(__name__)

STAGE = "pre-training"
N_MONITORED_CLIPS = 128  # embedded after each epoch, to see whether the features collapse
COLLAPSE_SPREAD = 0.05  # clips can hardly be told apart if the feature spread is lower
WINDOWS_PER_BATCH = 64  # windows


class PretrainConfig(UnlabeledConfig):
    """How an upstream is trained.

    LAPE publishes SGD at 0.03 with momentum 0.9 and weight decay 1e-4, no schedule, 50 epochs. On a corpus of 1,800 clips
    these settings collapse the features. Adam, its learning rate, the number of steps and the random gain are ours, chosen
    on validation. Without random gain, two views of a clip can be matched by the loudness of their recording.
    """

    optimizer: OptimizerConfig = Field(
        default_factory=lambda: OptimizerConfig(learning_rate=3e-4, warm_up=0.1)
    )
    min_steps: int = Field(
        2400,
        ge=1,
        description="smallest number of steps; with a small corpus, more passes are made",
    )
    seed: int | None = Field(
        0,
        ge=0,
        description="seed of the upstream, for runs of every seed; null: the seed of the run",
    )


@dataclass(frozen=True)
class UnlabeledClips:
    """The corpus as an objective sees it before an epoch.

    Attributes:
        encoder: the encoder that is trained, in its present state.
        plan: the clips, their windows, and the steps of an epoch.
        context: device, seeds and progress of the upstream.
    """

    encoder: Encoder
    plan: EpochPlan
    context: RunContext

    @torch.no_grad()
    def embeddings(self, draw: torch.Generator) -> Tensor:
        """Embed one random window of every clip, without augmentation.

        Always computed in float32: what clusters the embeddings would find the rounding of bf16.

        Args:
            draw: draws the windows, on the CPU.

        Returns:
            Shape (clips, features), float32, on the CPU, in the order of the clips.
        """
        # Not whole clips: with long ones that would take as long as the epoch itself.
        clips, encoder = to_device(self.plan.clips, self.context.device), self.encoder.eval()
        rows = []
        with self.context.progress.task("embedding", len(clips), "clips") as task:
            for some, batch in clips.batches(
                torch.split(torch.arange(len(clips)), WINDOWS_PER_BATCH)
            ):
                waveforms = random_windows(some, batch, self.plan.window, BatchRandom(draw))
                rows.append(encoder(encoder.features(waveforms)).cpu())
                task.advance(len(batch))
        return torch.cat(rows)


class Objective(nn.Module, ABC):
    """An encoder with its heads and its loss, trained on two views of each clip.

    In each step the loop calls `targets` and `forward_views`, then `loss` with what both returned, updates the parameters,
    and calls `after_step`. A resumed run has the parameters and buffers of some earlier step and nothing else, so whatever later steps need,
    such as a count of steps, belongs in a buffer.

    Attributes:
        encoder: what remains when the heads are dropped after pre-training.
        windows_per_clip: 1 makes both views of a clip from one random window, 2 from a window each.
        cuda_graphable: true if `forward_views`, `loss` and `after_step` may be recorded as a CUDA graph (see `cuda_graph`).
            It must be false if Python code in them takes a decision that may differ from step to step.
    """

    encoder: Encoder
    windows_per_clip: ClassVar[int] = 1
    cuda_graphable: ClassVar[bool] = False

    @abstractmethod
    def forward_views(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        """Compute what the loss compares, such as a projection of each view.

        Called in the run's precision, under autocast.

        Args:
            view_a: features of the first view, shape (batch, n_mels, frames).
            view_b: features of the second view of the same clips, same shape.

        Returns:
            Tensors of shape (batch, ...), one row per clip.
        """

    @abstractmethod
    def loss(self, *compared: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            compared: the tensors of `forward_views`, in float32 and gathered over all processes, then those of `targets`.
        """

    def targets(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Return what the loss needs to know about these clips, such as their pseudo-labels; by default nothing.

        Args:
            batch: indices of all clips of the batch in the corpus, shape (batch,), on the CPU.

        Returns:
            Tensors of shape (batch, ...) on the device; `loss` gets them last.
        """
        return ()

    def before_epoch(self, epoch: int, corpus: UnlabeledClips, seeds: Seeds) -> Tensor | None:
        """Prepare an epoch, such as by clustering the corpus again; by default nothing.

        An objective that overrides this is resumed after its last finished epoch, others also within a long one.

        Args:
            epoch: number of the epoch, from 1.
            corpus: the clips, with the encoder as it is now.
            seeds: of this epoch.

        Returns:
            Indices of the clips that the epoch goes through, in their order, shape (clips,), on the CPU. Clips may repeat.
            None means every clip once, in random order.
        """
        return None

    def reinitialized_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters that `before_epoch` has just drawn again; the optimizer resets its state for them."""
        return ()

    def after_step(self) -> None:
        """Update what no gradient trains, such as a momentum teacher, after each step; by default nothing."""

    def epoch_metrics(self) -> dict[str, float]:
        """Return further numbers for this epoch's row of the learning curve, by name; by default none."""
        return {}


class Siamese(Objective):
    """An encoder and a projector that both views share; a subclass adds the loss."""

    cuda_graphable = True

    def __init__(self, encoder: Encoder, projector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector

    def forward_views(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        """Return the projections of both views, each of shape (batch, features)."""
        # One view at a time, so that batch norm uses each view's own statistics, as in two Siamese branches.
        return self.projector(self.encoder(view_a)), self.projector(self.encoder(view_b))


def pretrain(
    objective: Objective,
    views: Views,
    clips: CorpusClips,
    config: PretrainConfig,
    context: RunContext,
) -> Curve:
    """Train an objective in place, without labels.

    Each epoch cuts one random window per clip, or two if the objective asks for them, and makes two views with a random
    gain each. The processes of the context share every batch.

    Args:
        objective: on the context's device; the normalization of its features is fitted.
        views: the augmentation, on the same device.
        clips: the corpus.
        config: how to train.
        context: device, precision, progress, and the upstream's seeds.

    Returns:
        For each epoch its number and loss, feature spread and effective rank of some clips' embeddings, and the objective's
        `epoch_metrics`.

    Raises:
        UserError: there are fewer than two clips, the processes cannot share a batch evenly, or the loss is not finite.
    """
    size = context.process_group.size
    _check_corpus(len(clips), config.batch_size, size)
    plan = replace(config.epoch_plan(clips), windows_per_clip=objective.windows_per_clip)
    if size > 1:
        share_statistics(objective, context.process_group)
    monitor = _EmbeddingMonitor(
        objective.encoder, _middle_windows(clips, plan.window, context.device), context
    )

    features_at = repeated_features(objective.encoder, clips.lengths, plan.window)

    def inputs(waveforms: Tensor, batch: Tensor, random: BatchRandom) -> tuple[Tensor, ...]:
        gains = random_gains(2 // objective.windows_per_clip, waveforms, config.gain_db, random)
        rows = context.process_group.local_rows(batch).repeat(objective.windows_per_clip)
        both = views(features_at(rows, waveforms, gains), random)  # (2 * batch, ...)
        return *both.chunk(2), *objective.targets(batch)

    def loss(view_a: Tensor, view_b: Tensor, *targets: Tensor) -> Tensor:
        with context.autocast():
            projected = objective.forward_views(view_a, view_b)
        whole = (context.process_group.gather_rows(tensor.float()) for tensor in projected)
        return objective.loss(*whole, *targets)

    def before_epoch(epoch: int) -> Tensor | None:
        corpus = UnlabeledClips(objective.encoder, plan, context)
        order = objective.before_epoch(epoch, corpus, context.seeds.within("epoch", epoch))
        for parameter in objective.reinitialized_parameters():
            for state in optimizer.state.get(parameter, {}).values():
                state.zero_()  # in place, because a recorded step reads it there
        return order

    optimizer = config.optimizer.build(objective)
    has_own_epochs = type(objective).before_epoch is not Objective.before_epoch
    return TrainingLoop(
        STAGE,
        plan,
        objective,
        optimizer,
        config.optimizer.learning_rate_factor,
        inputs,
        loss,
        cuda_graphable=objective.cuda_graphable and objective.encoder.cuda_graphable and size == 1,
        before_epoch=before_epoch if has_own_epochs else None,
        after_step=objective.after_step,
        after_epoch=lambda epoch: {**monitor(epoch), **objective.epoch_metrics()},
        extra_state={"views": views},
    ).run(context)


def _check_corpus(n_clips: int, batch_size: int, size: int) -> None:
    """Refuse a corpus that is too small, or batches that `size` processes cannot share."""
    if n_clips < 2:
        raise UserError(
            f"the corpus holds {n_clips} clip, and an upstream learns by comparing clips",
            next_step="name more tasks or folders in the corpus",
        )
    if size > 1 and (batch_size % size or batch_size < 2 * size):
        raise UserError(
            f"pretrain.batch_size is {batch_size}, which {size} processes cannot share evenly",
            allowed=f"a multiple of {size}, at least {2 * size}",
        )
    if n_clips < size:
        raise UserError(
            f"the corpus holds {n_clips} clips, and {size} processes share them",
            next_step="start fewer, or name more tasks or folders in the corpus",
        )


class _EmbeddingMonitor:
    """Measure after each epoch how far the embeddings of some clips point apart, and warn once of a collapse.

    Args:
        encoder: what is trained.
        windows: waveforms of the clips, shape (clips, samples).
        context: device, precision and progress.
    """

    def __init__(self, encoder: Encoder, windows: Tensor, context: RunContext) -> None:
        self.encoder, self.windows, self.context = encoder, windows, context
        self.warned = False

    @torch.no_grad()
    def __call__(self, epoch: int) -> dict[str, float]:
        """Return feature spread and effective rank; the encoder is left in evaluation mode."""
        encoder = self.encoder.eval()
        with self.context.autocast():
            embeddings = encoder(encoder.features(self.windows)).float().cpu()
        spread = feature_spread(embeddings)
        if spread < COLLAPSE_SPREAD and not self.warned:
            self.warned = True
            logger.warning(
                f"{STAGE}: the features have collapsed (spread {spread:.3f} after epoch {epoch}); lower the "
                "learning rate, or raise the weight that keeps features apart"
            )
        return {"spread": spread, "rank": effective_rank(embeddings)}


def _middle_windows(clips: CorpusClips, window: int, device: torch.device) -> Tensor:
    """Cut the middle window of up to N_MONITORED_CLIPS evenly spaced clips, shape (clips, window)."""
    rows = np.linspace(0, len(clips) - 1, min(N_MONITORED_CLIPS, len(clips))).astype(np.int64)
    some = clips.select(rows)
    offsets = torch.from_numpy((some.lengths - window) // 2)
    return cut_windows(to_device(some, device), torch.arange(len(some)), offsets, window)


def feature_spread(embeddings: Tensor) -> float:
    """Measure how far embeddings point apart.

    Args:
        embeddings: shape (clips, features).

    Returns:
        sqrt(1 - |m|^2) with the mean m of the unit vectors, in [0, 1]: 0 if all embeddings have one direction, 1 if their
        directions cancel out.
    """
    mean = F.normalize(embeddings.double(), dim=1).mean(dim=0)
    return float((1 - mean.square().sum()).clamp(min=0).sqrt())


def effective_rank(embeddings: Tensor) -> float:
    """Count the directions in which embeddings vary: RankMe (arXiv:2210.02885), on centered embeddings.

    Args:
        embeddings: shape (clips, features).

    Returns:
        The exponential of the entropy of the normalized singular values, at least 1; 1 if the embeddings lie on a line.
    """
    centered = embeddings.double() - embeddings.double().mean(dim=0)
    values = torch.linalg.svdvals(centered)
    share = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))
