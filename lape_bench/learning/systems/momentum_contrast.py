"""Momentum contrast (MoCo, arXiv:1911.05722): a student's queries find a momentum teacher's keys in a queue of earlier keys.

A key of the query's own clip is never among its negatives. The paper does not exclude it, since it hardly occurs with a million
clips. With 1,800 clips and a queue of 1,024 keys, 17 % of the queries would meet one.

Batch norm differs from the paper, which trains on several GPUs and shuffles the clips between them before the teacher sees them (Sec. 3.3).
There the statistics behind a query and its key come from other clips, so they do not give the pair away. On one GPU both
branches normalize over the same clips, in whatever order. LAPE's code on one GPU does the same.
"""

import logging

import torch
from pydantic import Field
from torch import Tensor, nn

from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.encoders.heads import mlp
from lape_bench.learning.losses.contrast import info_nce
from lape_bench.learning.systems.audio_ntt_system import AudioNTTUpstreamConfig
from lape_bench.learning.systems.pretrained_system import UpstreamConfig
from lape_bench.learning.training.momentum_encoder import Queue, momentum_copy, momentum_update
from lape_bench.learning.training.pretrain import Objective

logger = logging.getLogger(__name__)


class MomentumConfig(UpstreamConfig):
    """Settings of InfoNCE against a momentum encoder and a queue, for any encoder."""

    key_features: int = Field(128, ge=2, description="features of a query and a key")
    key_hidden: int = Field(
        1024, ge=0, description="hidden features of the key head; 0 is a linear head, as published"
    )
    temperature: float = Field(0.1, gt=0, description="tau of InfoNCE; published 0.07")
    queue: int = Field(
        1024,
        ge=1,
        description="keys of earlier batches, the negatives, at most; published 65536",
    )
    momentum: float = Field(
        0.99, ge=0, le=1, description="decay of the momentum encoder; published 0.999"
    )


class MomentumContrastConfig(MomentumConfig, AudioNTTUpstreamConfig):
    """Momentum contrast on AudioNTT."""


class MomentumBranch(nn.Module):
    """An encoder with its key head: the student, or its momentum teacher."""

    def __init__(self, encoder: Encoder, settings: MomentumConfig) -> None:
        super().__init__()
        self.encoder = encoder
        hidden = [settings.key_hidden] if settings.key_hidden else []
        self.key = mlp([encoder.embedding_size, *hidden, settings.key_features])

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        """Return a tuple whose first tensor is the key, shape (batch, key_features); a subclass may add projections."""
        return (self.key(self.encoder(features)),)


class MomentumContrast(Objective):
    """A student that learns from the first view, and a momentum teacher that sees the second.

    Args:
        student: the trained branch; its first output is the query.
        settings: of key head, queue and teacher.
        clips: number of clips in the corpus. The queue is shorter than an epoch by a batch, so that few clips are in it twice.
            A corpus hardly larger than a batch leaves few negatives, which is logged as a warning.
    """

    cuda_graphable = True

    def __init__(self, student: MomentumBranch, settings: MomentumConfig, clips: int) -> None:
        super().__init__()
        self.settings, self.student = settings, student
        self.teacher = momentum_copy(student)
        batch_size = settings.pretrain.batch_size
        size = min(settings.queue, max(1, clips - batch_size))
        if size < min(settings.queue, batch_size):
            logger.warning(
                f"a corpus of {clips} clips in batches of {batch_size} leaves {size} negatives for a query: lower "
                "pretrain.batch_size, or name more audio in the corpus"
            )
        self.queue = Queue(size, settings.key_features)

    @property
    def encoder(self) -> Encoder:  # type: ignore[override]  # an attribute elsewhere
        """The student's encoder."""
        return self.student.encoder

    def forward_views(self, view_a: Tensor, view_b: Tensor) -> tuple[Tensor, ...]:
        """Return the student's outputs for the first view, then the teacher's for the second."""
        with torch.no_grad():
            teacher_outputs = self.teacher(view_b)
        return *self.student(view_a), *teacher_outputs

    def targets(self, batch: Tensor) -> tuple[Tensor, ...]:
        """Return the clips' indices, shape (batch,), by which the queue knows a query's own keys."""
        return (batch.to(self.queue.clips.device, non_blocking=True),)

    def loss(self, *compared: Tensor) -> Tensor:
        """Return InfoNCE of queries and keys, each (batch, key_features), of clips (batch,); the keys then join the queue."""
        query, key, clips = compared
        loss = self._contrast_with_queue(query, key, clips)
        self.queue.enqueue(key, clips)
        return loss

    def symmetric_loss(
        self, query_a: Tensor, query_b: Tensor, key_a: Tensor, key_b: Tensor, clips: Tensor
    ) -> Tensor:
        """Return InfoNCE of each view's queries and the other's keys, summed; all keys then join the queue.

        Queries and keys have the shape (batch, key_features), `clips` has the shape (batch,).
        """
        loss = self._contrast_with_queue(query_a, key_b, clips)
        loss = loss + self._contrast_with_queue(query_b, key_a, clips)
        self.queue.enqueue(torch.cat([key_a, key_b]), torch.cat([clips, clips]))
        return loss

    def after_step(self) -> None:
        """Update the momentum teacher."""
        momentum_update(self.teacher, self.student, self.settings.momentum)

    def _contrast_with_queue(self, queries: Tensor, keys: Tensor, clips: Tensor) -> Tensor:
        allowed = self.queue.negatives_mask(clips)
        return info_nce(queries, keys, self.queue.keys, self.settings.temperature, allowed)
