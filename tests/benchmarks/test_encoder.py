"""AudioNTT with its first batch norm folded into the convolution, against the plain sequence."""

import copy
from typing import Any

import torch
from torch import nn

from lape_bench.learning.encoders.audio_ntt import AudioNTT
from tests.benchmarks.test_views import seconds

BATCH, N_MELS, FRAMES = 64, 64, 101


def test_a_step_is_faster_than_with_a_pass_of_batch_norm_over_the_first_block(
    benchmark: Any,
) -> None:
    folded = AudioNTT(512)
    plain = copy.deepcopy(folded)
    plain.blocks[0] = nn.Sequential(*plain.blocks[0])
    log_mels = torch.randn(BATCH, N_MELS, FRAMES)

    def step(encoder: AudioNTT) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = encoder(log_mels)
        embeddings.float().square().mean().backward()

    benchmark(lambda: step(folded))
    ratio = seconds(lambda: step(plain)) / seconds(lambda: step(folded))
    benchmark.extra_info["times faster than the plain sequence"] = round(ratio, 2)
    assert ratio > 1.05
