"""log-mixup-exp: another clip is added to a log-mel spectrogram as background (BYOL-A, arXiv:2103.06695, Sec. III-B)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lape_bench.runtime.batch_random import BatchRandom

BackgroundChoice = Callable[[Tensor, Tensor, BatchRandom], Tensor]
"""Chooses a background for each clip: from log-mels (batch, n_mels, frames), a memory of log-mels (memory, n_mels, frames) and
draws for the batch to rows of the memory, shape (batch,).
"""


def random_background(log_mels: Tensor, memory: Tensor, random: BatchRandom) -> Tensor:
    """Choose any log-mel of the memory as background: the published `BackgroundChoice`."""
    return random.integers(len(memory), len(log_mels))


class LogMixupExp(nn.Module):
    """Mix each log-mel spectrogram with an earlier one as background sound (Sec. III-B of arXiv:2103.06695).

    x' = log((1 - a) exp(x) + a exp(z)), with a uniform in [0, ratio] and z from a memory bank of the last log-mels.
    A checkpoint holds the bank and the number of log-mels ever stored. That number is kept on the host, so that reading
    it does not wait for the GPU.

    Args:
        shape: bands and frames of a log-mel spectrogram.
        memory: capacity of the bank; published 2,048.
        ratio: largest share of the background.
        choose: chooses the background of each clip.
    """

    bank: Tensor

    def __init__(
        self,
        shape: tuple[int, int],
        memory: int,
        ratio: float = 0.4,
        choose: BackgroundChoice = random_background,
    ) -> None:
        super().__init__()
        self.ratio, self.choose = ratio, choose
        self.register_buffer("bank", torch.zeros(memory, *shape))
        self.seen = 0  # log-mels ever stored

    def get_extra_state(self) -> int:
        """Return the state that is not a buffer, for a checkpoint."""
        return self.seen

    def set_extra_state(self, state: int) -> None:
        """Continue from a checkpoint."""
        self.seen = state

    @torch.no_grad()
    def forward(self, log_mels: Tensor, random: BatchRandom) -> Tensor:
        """Mix log-mels with backgrounds.

        Args:
            log_mels: shape (batch, n_mels, frames).
            random: draws for the rows of the batch.

        Returns:
            Same shape. If the bank is empty, the log-mels are returned unchanged.
        """
        batch, stored = len(log_mels), min(self.seen, len(self.bank))
        if not stored:
            return log_mels
        device = log_mels.device
        background = self.choose(log_mels, self.bank[:stored], random).to(device, non_blocking=True)
        a = self.ratio * random.uniform(batch).to(device, non_blocking=True)
        a = a[:, None, None]
        # a = 0 gives log 0 = -inf, which logaddexp takes as no background at all.
        return torch.logaddexp(log_mels + torch.log1p(-a), self.bank[background] + a.log())

    @torch.no_grad()
    def remember(self, log_mels: Tensor) -> None:
        """Store log-mels of shape (batch, n_mels, frames), unmixed, instead of the oldest."""
        memory, newest = len(self.bank), log_mels[-len(self.bank) :]
        self.seen += len(log_mels)
        start = (self.seen - len(newest)) % memory
        before_end = newest[: memory - start]
        self.bank[start : start + len(before_end)] = before_end
        self.bank[: len(newest) - len(before_end)] = newest[len(before_end) :]
