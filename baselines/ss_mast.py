"""SS-MAST (arXiv:2211.01515): symmetric momentum contrast on a multiscale spectrogram transformer, with dropped patches.

Each view's query finds the momentum teacher's key of the other view among a queue of earlier keys. In pre-training, the
transformers of student and teacher leave out some patches of every view
(`lape_bench/learning/encoders/multiscale_transformer.py`).

The published setting, from the authors' code, is a log-mel of 128 bands and 10.24 s, patches of 16 x 16 at strides of
10, and MViTv2-B or -S. A linear head gives keys of 256 features. Temperature is 0.07, the queue has 65,536 keys, and
the momentum is 0.999. The optimizer is SGD at 0.03 with momentum 0.9 and weight decay 1e-4, in batches of 16, with
log-mixup-exp and random resize crop. The paper's text could not be compared with this. Here encoder and views are the
same, but the encoder is smaller. Key head, temperature, queue and momentum are those of `moco`, for the same reasons.
Windows, batches, random gain and Adam are the same for all upstreams. Further departures:

- A dropped patch is treated as lying beyond the edge. The published code removes the patches from the sequence, the
  same ones for all clips of a batch, which does not work with its pooling over the grid. Their share is 0.1 in one
  version of that code and 0 in another.
- There, the first direction's keys have joined the queue when the second is computed, so that a query meets its own view's
  key as a negative. Here both directions see the queue of the batches before.
- Adam's rate is 1e-4 in pre-training, as in SSAST (arXiv:2110.09784), and 2.5e-4 with the labels, as in `mast`. Three
  rates of pre-training were compared on validation, under version 1 of the protocol. Nothing else here was tuned.
"""

from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from lape_bench.learning.encoders.multiscale_transformer import (
    MultiscaleTransformer,
    MultiscaleTransformerConfig,
)
from lape_bench.learning.systems.encoder_system import ProbeConfig
from lape_bench.learning.systems.momentum_contrast import (
    MomentumBranch,
    MomentumConfig,
    MomentumContrast,
)
from lape_bench.learning.systems.pretrained_system import UpstreamSystem
from lape_bench.learning.systems.spectrogram_system import SpectrogramFinetuneConfig
from lape_bench.learning.training.loop import OptimizerConfig
from lape_bench.learning.training.pretrain import PretrainConfig


class SSMastConfig(MomentumConfig, MultiscaleTransformerConfig):
    """Symmetric momentum contrast on a multiscale transformer, with patch-drop."""

    patch_drop: float = Field(
        0.1, ge=0, lt=1, description="share of a view's patches that pre-training leaves out"
    )
    pretrain: PretrainConfig = Field(
        default_factory=lambda: PretrainConfig(
            optimizer=OptimizerConfig(learning_rate=1e-4, warm_up=0.1)
        )
    )
    finetune: SpectrogramFinetuneConfig = Field(
        default_factory=lambda: SpectrogramFinetuneConfig(learning_rates=(2.5e-4,))
    )


def random_keep_mask(
    clips: int, grid: tuple[int, int], share: float, device: torch.device
) -> Tensor:
    """Draw which patches of each clip are kept, the same number of each, from torch's global generator, as dropout does.

    Args:
        clips: number of clips.
        grid: rows and columns of patches.
        share: share of the patches that are dropped, rounded to whole patches; at least one is kept.
        device: device of the result and of the draws.

    Returns:
        True for patches that are kept, shape (clips, rows, columns).
    """
    patches = grid[0] * grid[1]
    kept = max(1, round((1 - share) * patches))
    ranks = torch.rand(clips, patches, device=device).argsort(dim=1).argsort(dim=1)
    return (ranks < kept).view(clips, *grid)


class PatchDropBranch(MomentumBranch):
    """An encoder that leaves out some patches, with its key head: the student, or its momentum teacher."""

    encoder: MultiscaleTransformer

    def __init__(self, encoder: MultiscaleTransformer, settings: SSMastConfig) -> None:
        super().__init__(encoder, settings)
        self.share = settings.patch_drop

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return keys, shape (batch, key_features), of log-mels (batch, n_mels, frames) without the dropped patches."""
        keep_mask = None
        if self.share:
            batch, n_mels, frames = features.shape
            grid = self.encoder.grid(n_mels, frames)
            keep_mask = random_keep_mask(batch, grid, self.share, features.device)
        return (self.key(self.encoder(features, keep_mask)),)


class SSMastObjective(MomentumContrast):
    """Momentum contrast in both directions."""

    def forward_views(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        """Return the student's queries and the teacher's keys of both views, each (batch, key_features)."""
        with torch.no_grad():
            (key_a,), (key_b,) = self.teacher(view_a), self.teacher(view_b)
        (query_a,), (query_b,) = self.student(view_a), self.student(view_b)
        return query_a, query_b, key_a, key_b

    def loss(self, *compared: Tensor) -> Tensor:
        """Return InfoNCE in both directions; the keys then join the queue."""
        query_a, query_b, key_a, key_b, clips = compared
        return self.symmetric_loss(query_a, query_b, key_a, key_b, clips)


class SSMast(UpstreamSystem):
    """A multiscale transformer pre-trained by symmetric momentum contrast with patch-drop."""

    artifact_name = "ss-mast"

    # To version 2, finetune.layer_decay and finetune.frozen_layers took the encoder for one layer. Version 1 had a query's own
    # older keys among its negatives.
    version = 3
    Settings: ClassVar[type[ProbeConfig]] = SSMastConfig
    smoke_settings: ClassVar[dict[str, Any]] = UpstreamSystem.smoke_settings | {
        "depths": [1, 1],
        "queue": 64,
    }

    @classmethod
    def new_encoder(cls, settings: SSMastConfig) -> MultiscaleTransformer:
        """Return a new transformer."""
        return MultiscaleTransformer(settings)

    @classmethod
    def build_objective(
        cls, encoder: MultiscaleTransformer, settings: SSMastConfig, clips: int
    ) -> SSMastObjective:
        """Return student, teacher and queue."""
        return SSMastObjective(PatchDropBranch(encoder, settings), settings, clips)
