"""Random gain: each waveform is made louder or softer by a random number of decibels."""

import torch
from torch import Tensor

from lape_bench.runtime.batch_random import BatchRandom


def random_gains(levels: int, waveforms: Tensor, max_db: float, random: BatchRandom) -> Tensor:
    """Draw factors of waveforms that are uniform in [-max_db, max_db] decibels.

    Args:
        levels: how many of each waveform.
        waveforms: shape (batch, samples).
        max_db: 0 leaves them as they are, and draws nothing.
        draws: of the batch.

    Returns:
        Shape (levels, batch), on the waveforms' device.
    """
    batch = len(waveforms)
    if not max_db:
        return waveforms.new_ones(levels, batch)
    decibels = max_db * (2 * random.uniform(levels, batch) - 1)
    return torch.pow(10, decibels / 20).to(waveforms.device, non_blocking=True)
