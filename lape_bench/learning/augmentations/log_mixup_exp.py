"""log-mixup-exp: another clip is added to a log-mel spectrogram as background (BYOL-A, arXiv:2103.06695, Sec. III-B)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lape_bench.runtime.batch_random import BatchRandom

BackgroundChoice = Callable[[Tensor, Tensor, BatchRandom], Tensor]
"""Log-mels (batch, n_mels, frames), remembered ones (memory, n_mels, frames), and draws: each one's background, as a row of
the memory, shape (batch,)."""


def random_background(log_mels: Tensor, memory: Tensor, random: BatchRandom) -> Tensor:
    """Choose any remembered log-mel as background, the published `BackgroundChoice`."""
    return random.integers(len(memory), len(log_mels))


class LogMixupExp(nn.Module):
    """Mix each log-mel with one seen earlier, as background sound (Sec. III-B of arXiv:2103.06695).

    x' = log((1 - a) exp(x) + a exp(z)), with a uniform in [0, ratio] and z drawn from a memory bank of
    the last log-mels. A checkpoint holds the bank and how many it has seen, which is kept on the host: a GPU that
    was asked would have to finish first.

    Args:
        shape: bands and frames of a log-mel.
        memory: log-mels in the bank, 2,048 as published.
        ratio: largest share of the background.
        choose: which of the remembered log-mels is the background.
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
        self.seen = 0  # clips ever put in

    def get_extra_state(self) -> int:
        """Return what a checkpoint holds beside the bank."""
        return self.seen

    def set_extra_state(self, state: int) -> None:
        """Take it up again."""
        self.seen = state

    @torch.no_grad()
    def forward(self, log_mels: Tensor, random: BatchRandom) -> Tensor:
        """Mix log-mels of shape (batch, n_mels, frames).

        While nothing is remembered there is no background to draw from, and they are returned as they are.
        """
        batch, held = len(log_mels), min(self.seen, len(self.bank))
        if not held:
            return log_mels
        where = log_mels.device
        drawn = self.choose(log_mels, self.bank[:held], random).to(where, non_blocking=True)
        a = self.ratio * random.uniform(batch).to(where, non_blocking=True)
        a = a[:, None, None]
        # a = 0 gives log 0 = -inf, which logaddexp takes as no background at all.
        return torch.logaddexp(log_mels + torch.log1p(-a), self.bank[drawn] + a.log())

    @torch.no_grad()
    def remember(self, log_mels: Tensor) -> None:
        """Put log-mels into the bank, unmixed, in place of the oldest."""
        memory, kept = len(self.bank), log_mels[-len(self.bank) :]
        self.seen += len(log_mels)
        start = (self.seen - len(kept)) % memory
        before_end = kept[: memory - start]
        self.bank[start : start + len(before_end)] = before_end
        self.bank[: len(kept) - len(before_end)] = kept[len(before_end) :]
