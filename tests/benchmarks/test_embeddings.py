"""What is done with embeddings at the sizes of large tasks: probes, and finding them again."""

import time
from typing import Any

import numpy as np
import torch

from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.training.cached_embeddings import cached_embeddings
from lape_bench.learning.training.linear_probe import LinearConfig, fit_linear
from lape_bench.learning.training.probe_selection import EmbeddedWindows
from lape_bench.system import RunContext
from tests.benchmarks.test_views import seconds

FEATURES, CLASSES = 2048, 20


def test_a_probe_with_five_penalties_takes_little_longer_than_its_products(benchmark: Any) -> None:
    train, validation = windows(10_000, 1), windows(2_000, 2)

    def fit() -> None:
        quiet = Progress(quiet=True)
        fit_linear(train, validation, CLASSES, "accuracy", LinearConfig(), Seeds(0), quiet)

    took = benchmark.pedantic(lambda: seconds(fit, rounds=1), rounds=1)
    # An iteration is two products: scores, and the gradient.
    exact, weight = train.embeddings.double().numpy(), np.zeros((FEATURES, CLASSES))
    product = seconds(lambda: exact @ weight, rounds=5)
    benchmark.extra_info["10,000 embeddings, five penalties: seconds"] = round(took, 1)
    benchmark.extra_info["the same in products of embeddings and weights"] = round(took / product)
    assert took < 500 * product


def windows(count: int, seed: int) -> EmbeddedWindows:
    """Embeddings of a few classes that lie in each other's way."""
    means = 0.03 * torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=draw)
    embeddings = (means[labels] + torch.randn(count, FEATURES, generator=draw)).relu()
    return EmbeddedWindows(embeddings, torch.arange(count), labels, torch.arange(count))


def test_embeddings_are_found_several_times_faster_than_they_are_made(
    clips: Clips, here: RunContext, benchmark: Any
) -> None:
    encoder = AudioNTT()

    def find() -> float:
        began = time.perf_counter()
        cached_embeddings(encoder, clips, 1.0, {}, here)
        return time.perf_counter() - began

    made, found = find(), benchmark.pedantic(find, rounds=1)
    benchmark.extra_info["times faster"] = round(made / found, 1)
    assert made > 5 * found
