"""Upstream learning: one loop for every self-supervised objective.

An objective brings the encoder, its heads, its loss and, where it has one, its momentum teacher; the views
are given beside it.
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
from lape_bench.data.audio_store import Clips
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
from lape_bench.learning.training.sync_batch_norm import share_statistics
from lape_bench.runtime.batch_random import BatchRandom
from lape_bench.system import Curve, RunContext

logger = logging.getLogger(__name__)

STAGE = "pre-training"
N_MONITORED_CLIPS = 128  # clips whose embeddings are looked at after each epoch
COLLAPSE_SPREAD = 0.05  # a feature spread below which clips can hardly be told apart
WINDOWS_PER_BATCH = 64  # windows


class PretrainConfig(UnlabeledConfig):
    """How an upstream is trained.

    Published: SGD at 0.03 with momentum 0.9 and weight decay 1e-4, no schedule, 50 epochs. On a corpus of 1,800 clips
    that collapses the features; Adam, its rate, the number of steps and the random level are ours, chosen on validation.
    Without the level, views of a clip are told from those of others by how loud its recording is.
    """

    optimizer: OptimizerConfig = Field(
        default_factory=lambda: OptimizerConfig(learning_rate=3e-4, warm_up=0.1)
    )
    min_steps: int = Field(
        2400, ge=1, description="with a small corpus, more passes are made until so many steps are"
    )
    seed: int | None = Field(
        0, ge=0, description="of the upstream, whatever the run's; null: the run's own"
    )


@dataclass(frozen=True)
class UnlabeledClips:
    """The unlabeled clips, as an objective sees them between epochs.

    Attributes:
        encoder: as it is then.
        plan: the clips, their windows, and the steps of an epoch.
        context: of the upstream.
    """

    encoder: Encoder
    plan: EpochPlan
    context: RunContext

    @torch.no_grad()
    def embeddings(self, draw: torch.Generator) -> Tensor:
        """Embed one random window of every clip, without views.

        In float32, whatever the run's precision: the rounding of bf16 would be told apart as if it were audio.

        Args:
            draw: of the windows, on the CPU.

        Returns:
            Shape (clips, features), on the CPU.
        """
        # Not whole clips: with long ones that would take as long as the epoch itself.
        clips, encoder = to_device(self.plan.clips, self.context.device), self.encoder.eval()
        rows = []
        with self.context.progress.task("embedding", len(clips), "clips") as task:
            for batch in torch.split(torch.arange(len(clips)), WINDOWS_PER_BATCH):
                waveforms = random_windows(clips, batch, self.plan.window, BatchRandom(draw))
                rows.append(encoder(encoder.features(waveforms)).cpu())
                task.advance(len(batch))
        return torch.cat(rows)


class Objective(nn.Module, ABC):
    """An encoder with what it learns by, from two views of each clip.

    Attributes:
        encoder: what stays when the heads are dropped.
        windows_per_clip: of a clip that its two views are made from: 1 is one for both, 2 is one for each.
        cuda_graphable: true where `forward_views`, `loss` and `after_step` may be recorded as a CUDA graph (see `cuda_graph`). A subclass
            in which Python decides anew each time says false.
    """

    encoder: Encoder
    windows_per_clip: ClassVar[int] = 1
    cuda_graphable: ClassVar[bool] = False

    @abstractmethod
    def forward_views(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        """Turn two views' features, each (batch, ...), into what the loss compares, likewise; in the run's precision."""

    @abstractmethod
    def loss(self, *compared: Tensor) -> Tensor:
        """Compare what `forward_views` returned, of the whole batch and in float32, and then what `targets` did; a scalar to lower."""

    def targets(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Return what the loss needs to know of these clips, indices of shape (batch,); by default nothing."""
        return ()

    def before_epoch(self, epoch: int, corpus: UnlabeledClips, seeds: Seeds) -> Tensor | None:
        """Get ready for an epoch, such as by clustering the corpus anew; by default nothing.

        A resumed run goes on with the parameters and buffers of the last epoch it finished, and with nothing else:
        what a later epoch needs of this one belongs in a buffer.

        Args:
            epoch: its number, from 1.
            corpus: what is learned from.
            seeds: those of the epoch.

        Returns:
            The clips that the epoch goes through, in their order, as many as there are, on the CPU; None is each once,
            at random.
        """
        return None

    def reinitialized_parameters(self) -> Iterable[nn.Parameter]:
        """Return the parameters that `before_epoch` drew anew, of which the optimizer forgets what it knew."""
        return ()

    def after_step(self) -> None:
        """Move what is not trained by gradient, such as a momentum teacher; by default nothing."""

    def epoch_metrics(self) -> dict[str, float]:
        """Return what the learning curve is to hold of this epoch beside loss, spread and rank; by default nothing."""
        return {}


class Siamese(Objective):
    """An encoder and a projector, shared by both views."""

    cuda_graphable = True

    def __init__(self, encoder: Encoder, projector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector

    def forward_views(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        """Return the projections of both views, each (batch, features)."""
        # One view at a time: batch norm takes each view's own statistics, as with Siamese branches.
        return self.projector(self.encoder(view_a)), self.projector(self.encoder(view_b))


def pretrain(
    objective: Objective, views: Views, clips: Clips, config: PretrainConfig, context: RunContext
) -> Curve:
    """Train an objective in place, without labels; the context's ranks share every batch.

    One random window a clip and epoch, or two if the objective asks, and two views, each at a level of its own.

    Args:
        objective: on the context's device, its features fitted.
        views: on the same device.
        clips: the corpus.
        config: how to train.
        context: seeds are those of the upstream.

    Returns:
        For each epoch its loss, of embedded corpus clips the feature spread and rank (see below), and what the
        objective notes.

    Raises:
        UserError: fewer than two clips, a batch that the ranks cannot share evenly, or a loss that is no longer finite.
    """
    if len(clips) < 2:
        raise UserError(
            f"the corpus holds {len(clips)} clip, and an upstream learns by comparing clips",
            next_step="name more tasks or folders in the corpus",
        )
    size = context.process_group.size
    if size > 1 and (config.batch_size % size or config.batch_size < 2 * size):
        raise UserError(
            f"pretrain.batch_size is {config.batch_size}, which {size} processes cannot share evenly",
            allowed=f"a multiple of {size}, at least {2 * size}",
        )
    if len(clips) < size:
        raise UserError(
            f"the corpus holds {len(clips)} clips, and {size} processes share them",
            next_step="start fewer, or name more tasks or folders in the corpus",
        )
    plan = replace(config.epoch_plan(clips), windows_per_clip=objective.windows_per_clip)
    if size > 1:
        share_statistics(objective, context.process_group)
    watched = _middle_windows(clips, plan.window, context.device)
    collapsed = False

    def inputs(waveforms: Tensor, batch: Tensor, random: BatchRandom) -> tuple[Tensor, ...]:
        gains = random_gains(2 // objective.windows_per_clip, waveforms, config.gain_db, random)
        both = views(objective.encoder.features_at(waveforms, gains), random)  # (2 * batch, ...)
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
            for remembered in optimizer.state.get(parameter, {}).values():
                remembered.zero_()  # in place, as a recorded step wants it
        return order

    def after_epoch(epoch: int) -> dict[str, float]:
        nonlocal collapsed
        encoder = objective.encoder.eval()
        with torch.no_grad(), context.autocast():
            embeddings = encoder(encoder.features(watched)).float().cpu()
        spread = feature_spread(embeddings)
        if spread < COLLAPSE_SPREAD and not collapsed:
            collapsed = True  # said once
            logger.warning(
                f"{STAGE}: the features have collapsed (spread {spread:.3f} after epoch {epoch}); lower the "
                "learning rate, or raise the weight that keeps features apart"
            )
        return {"spread": spread, "rank": effective_rank(embeddings), **objective.epoch_metrics()}

    optimizer = config.optimizer.build(objective)
    return TrainingLoop(
        STAGE,
        plan,
        objective,
        optimizer,
        config.optimizer.learning_rate_factor,
        inputs,
        loss,
        cuda_graphable=objective.cuda_graphable and objective.encoder.cuda_graphable and size == 1,
        before_epoch=before_epoch,
        after_step=objective.after_step,
        after_epoch=after_epoch,
        extra_state={"views": views},
    ).run(context)


def _middle_windows(clips: Clips, window: int, device: torch.device) -> Tensor:
    """Cut the middle window of some clips, evenly chosen; shape (clips, window)."""
    rows = np.linspace(0, len(clips) - 1, min(N_MONITORED_CLIPS, len(clips))).astype(np.int64)
    some = clips.select(rows)
    offsets = torch.from_numpy((some.lengths - window) // 2)
    return cut_windows(to_device(some, device), torch.arange(len(some)), offsets, window)


def feature_spread(embeddings: Tensor) -> float:
    """Say how far embeddings, shape (clips, features), point apart: 0 one direction, 1 all directions.

    The square root of their unit vectors' summed variance, 1 - |mean|^2.
    """
    mean = F.normalize(embeddings.double(), dim=1).mean(dim=0)
    return float((1 - mean.square().sum()).clamp(min=0).sqrt())


def effective_rank(embeddings: Tensor) -> float:
    """Say in how many directions embeddings vary: the exponential of their singular values' entropy.

    RankMe (arXiv:2210.02885), on centered embeddings of shape (clips, features); 1 is a line.
    """
    centered = embeddings.double() - embeddings.double().mean(dim=0)
    values = torch.linalg.svdvals(centered)
    share = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))
