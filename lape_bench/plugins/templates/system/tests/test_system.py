"""Test the registered system against the contract."""

import torch
from lape_bench.conformance.check import check_system
from lape_bench.core.progress import Progress
from lape_bench.runtime.device import Compute

from my_encoder.system import SmallConvNet

SYSTEM = "my-encoder"  # the name in pyproject.toml


def test_the_system_keeps_the_contract() -> None:
    compute = Compute(device="cpu", precision="float32", threads=1)
    results = check_system(SYSTEM, {}, compute, Progress(quiet=True))
    assert not [result for result in results if not result.holds]


def test_an_embedding_has_its_size_whatever_the_length() -> None:
    encoder = SmallConvNet(width=8).eval()
    for samples in (1_600, 16_000, 40_000):
        features = encoder.features(torch.randn(2, samples))
        assert encoder(features).shape == (2, encoder.embedding_size)
