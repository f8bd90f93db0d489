"""Random gains are uniform in decibels."""

import pytest
import torch

from lape_bench.learning.augmentations.random_gain import random_gains
from lape_bench.runtime.batch_random import BatchRandom


def draw(seed: int) -> BatchRandom:
    return BatchRandom(torch.Generator().manual_seed(seed))


def test_random_gains_are_within_their_decibels_and_of_each_waveform_and_level() -> None:
    decibels = 20 * torch.log10(random_gains(2, torch.zeros(1000, 5), 15.0, draw(0)))
    assert decibels.shape == (2, 1000)
    assert len(decibels.unique()) > 1900
    # Uniform in [-15, 15]: mean 0, deviation 30 / sqrt(12).
    assert decibels.abs().max() <= 15.001
    assert abs(float(decibels.mean())) < 0.6
    assert float(decibels.std()) == pytest.approx(30 / 12**0.5, rel=0.05)


def test_no_gain_leaves_waveforms_and_generator_alone() -> None:
    random = draw(0)
    assert torch.equal(random_gains(2, torch.zeros(3, 5), 0.0, random), torch.ones(2, 3))
    assert torch.equal(random.generator.get_state(), draw(0).generator.get_state())
