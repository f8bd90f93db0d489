"""Random gain: each waveform is made louder or softer by a random number of decibels."""

import torch
from torch import Tensor

from lape_bench.runtime.batch_random import BatchRandom


def random_gains(n_gains: int, waveforms: Tensor, max_db: float, random: BatchRandom) -> Tensor:
    """Draw gains that are uniform in [-max_db, max_db] decibels.

    Args:
        n_gains: gains of each waveform, one for each view.
        waveforms: shape (batch, samples).
        max_db: largest gain in decibels; with 0 every gain is 1, and nothing is drawn.
        random: draws for the rows of the batch.

    Returns:
        Factors of the amplitude, shape (n_gains, batch), on the device of the waveforms.
    """
    batch = len(waveforms)
    if not max_db:
        return waveforms.new_ones(n_gains, batch)
    decibels = max_db * (2 * random.uniform(n_gains, batch) - 1)
    return torch.pow(10, decibels / 20).to(waveforms.device, non_blocking=True)
