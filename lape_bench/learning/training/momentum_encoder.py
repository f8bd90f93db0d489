"""A momentum teacher and its queue of keys (MoCo, arXiv:1911.05722)."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

ModuleT = TypeVar("ModuleT", bound=nn.Module)
EMPTY = -1  # instead of a clip's index: there is no key yet


def momentum_copy(student: ModuleT) -> ModuleT:
    """Return a copy whose parameters take no gradient."""
    return copy.deepcopy(student).requires_grad_(False)


@torch.no_grad()
def momentum_update(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Update the teacher's parameters in place: theta_k <- m theta_k + (1 - m) theta_q, Eq. (2) of arXiv:1911.05722.

    Buffers stay as they are: the teacher's batch norm has statistics of its own.

    Args:
        teacher: of the student's architecture.
        student: the trained module.
        decay: m in [0, 1]; 1 leaves the teacher as it is, 0 copies the student.
    """
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # untyped in torch
    pairs = [*zip(teacher.parameters(), student.parameters(), strict=True)]
    average([theirs for theirs, _ in pairs], [ours for _, ours in pairs], 0)


class Queue(nn.Module):
    """A queue of the last batches' keys, newest first, and of the clips that they are of; a checkpoint holds it.

    Args:
        size: capacity in keys.
        features: size of a key.
    """

    keys: Tensor
    clips: Tensor

    def __init__(self, size: int, features: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, features))
        self.register_buffer("clips", torch.full((size,), EMPTY))  # of each key

    def negatives_mask(self, clips: Tensor) -> Tensor:
        """Return which keys are negatives of which queries: those of other clips.

        Args:
            clips: index of each query's clip in the corpus, shape (queries,).

        Returns:
            True for each row of `keys` that holds a key of another clip, shape (queries, size).
        """
        return (self.clips != EMPTY) & (self.clips != clips[:, None])

    @torch.no_grad()
    def enqueue(self, keys: Tensor, clips: Tensor) -> None:
        """Store keys instead of the oldest ones.

        Args:
            keys: shape (batch, features).
            clips: index of each key's clip in the corpus, shape (batch,).
        """
        # Moving all keys costs less than reading a position back from the device.
        newest = keys.flip(0).to(self.keys.dtype)
        self.keys.copy_(torch.cat([newest, self.keys])[: len(self.keys)])
        self.clips.copy_(torch.cat([clips.flip(0), self.clips])[: len(self.clips)])
