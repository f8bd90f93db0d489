"""Folding batch norm into a convolution changes what it costs and nothing else."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close

from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.folded_batch_norm import (
    FoldedBatchNorm,
    patch_mean_and_covariance,
)

SHAPE = (3, 1, 10, 13)


@pytest.fixture
def x(generator: torch.Generator) -> Tensor:
    return torch.randn(SHAPE, generator=generator) * 2 + 0.5


@pytest.fixture
def pair(generator: torch.Generator) -> tuple[FoldedBatchNorm, nn.Sequential]:
    """A folded block and the plain one, with the same weights, some of the norm's negative."""
    folded = FoldedBatchNorm(5, nn.MaxPool2d(2), nn.ReLU())
    for parameter in folded.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return folded, nn.Sequential(*copy.deepcopy(list(folded)))


def learn(block: nn.Module, x: Tensor, weights: Tensor) -> Tensor:
    """One forward and backward pass."""
    block.zero_grad()
    output: Tensor = block(x)
    (output * weights).sum().backward()
    return output


def test_a_training_step_gives_the_output_and_the_gradients_of_the_plain_sequence(
    pair: tuple[FoldedBatchNorm, nn.Sequential], x: Tensor, generator: torch.Generator
) -> None:
    weights = torch.randn(3, 5, 5, 6, generator=generator)
    outputs = [learn(block, x, weights) for block in pair]
    assert_close(*outputs, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(*(block.parameters() for block in pair), strict=True):
        assert ours.grad is not None
        assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_move_as_those_of_batch_norm_and_serve_in_evaluation(
    momentum: float | None, pair: tuple[FoldedBatchNorm, nn.Sequential], x: Tensor
) -> None:
    for block in pair:
        block[1].momentum = momentum  # type: ignore[assignment]  # of the batch norm
        for step in range(3):
            block(x * (step + 1))
        block.eval()
    for ours, theirs in zip(*(block.state_dict().items() for block in pair), strict=True):
        assert ours[0] == theirs[0]
        assert_close(ours[1], theirs[1])
    assert_close(*(block(x) for block in pair), rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_input_too(
    pair: tuple[FoldedBatchNorm, nn.Sequential], x: Tensor, generator: torch.Generator
) -> None:
    weights = torch.randn(3, 5, 5, 6, generator=generator)
    inputs = [x.clone().requires_grad_() for _ in pair]
    for block, given in zip(pair, inputs, strict=True):
        learn(block, given, weights)
    assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-3, atol=1e-4)


def test_patch_statistics_agree_with_patches_cut_one_by_one(x: Tensor) -> None:
    padded = nn.functional.pad(x[:, 0], (1, 1, 1, 1))
    patches = torch.stack(
        [
            padded[clip, row : row + 3, column : column + 3].flatten()
            for clip in range(SHAPE[0])
            for row in range(SHAPE[2])
            for column in range(SHAPE[3])
        ]
    )
    count, mean, covariance = patch_mean_and_covariance(x)
    assert count == len(patches)
    assert_close(mean, patches.mean(dim=0))
    assert_close(covariance, torch.cov(patches.T, correction=0), rtol=1e-4, atol=1e-5)


def test_a_constant_input_is_normalized_without_a_nan(
    pair: tuple[FoldedBatchNorm, nn.Sequential],
) -> None:
    constant = torch.full(SHAPE, 3.0)
    assert_close(*(block(constant) for block in pair), rtol=1e-3, atol=1e-3)


def test_the_output_stays_channels_last_for_what_follows() -> None:
    encoder = AudioNTT(16)
    x = torch.randn(2, 1, 64, 32).contiguous(memory_format=torch.channels_last)
    for block in encoder.blocks:
        x = block(x)
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_statistics_are_to_the_bit_those_of_torchs_own_patches(x: Tensor) -> None:
    patches = functional.unfold(x, 3, padding=1)
    mean = patches.mean(dim=(0, 2))
    centered = patches - mean[:, None]
    count = 3 * 10 * 13
    covariance = (centered @ centered.transpose(1, 2)).sum(dim=0) / count
    found = patch_mean_and_covariance(x)
    assert found[0] == count
    assert torch.equal(found[1], mean)
    assert torch.equal(found[2], covariance)


def test_bf16_leaves_the_statistics_of_filters_that_cancel_in_float32(
    generator: torch.Generator,
) -> None:
    smooth = torch.randn(4, 1, 40, 50, generator=generator).cumsum(dim=2).cumsum(dim=3)
    block = FoldedBatchNorm(2)
    laplacian = torch.tensor([[1.0, 1, 1], [1, -8, 1], [1, 1, 1]])
    edge = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    block[0].weight.data = torch.stack([laplacian, edge])[:, None]
    exact = copy.deepcopy(block)
    exact(smooth)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        block(smooth)
    assert_close(block[1].running_var, exact[1].running_var)
    assert_close(block[1].running_mean, exact[1].running_mean)
