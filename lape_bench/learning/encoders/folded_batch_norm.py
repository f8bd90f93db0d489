"""Batch norm folded into a convolution of one input channel, without a pass over the convolution's output.

A convolution is linear in its weights. So the mean and variance of its output follow from the mean m and covariance C of the
input's patches: mu = w . m + b and sigma^2 = w' C w. Batch norm is then a convolution with other weights and another bias:
the same function with the same gradients. The output of AudioNTT's first block is by far its largest tensor, so this saves
most of the cost of its batch norm, forward and backward.
"""

import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lape_bench.runtime.distributed import ALONE, ProcessGroup

KERNEL, PADDING = 3, 1


class FoldedBatchNorm(nn.Sequential):
    """A 3 x 3 convolution of one input channel with its batch norm folded in, and further modules.

    Parameters and buffers have the names that they have in `nn.Sequential(nn.Conv2d, nn.BatchNorm2d, *after)`.

    Args:
        channels: output channels of the convolution.
        after: the modules behind the batch norm.

    Attributes:
        process_group: the processes that share a batch in equal parts.
    """

    process_group: ProcessGroup = ALONE

    def __init__(self, channels: int, *after: nn.Module) -> None:
        convolution = nn.Conv2d(1, channels, KERNEL, padding=PADDING)
        super().__init__(convolution, nn.BatchNorm2d(channels), *after)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (batch, 1, height, width) into (batch, channels, height, width), then into the output of the further modules."""
        layers: list[Any] = list(self)
        convolution, norm, *after = layers
        rows = convolution.weight.permute(0, 2, 3, 1)  # (channels, height, width, 1)
        weight = rows.flatten(1)  # (channels, patch)
        if norm.training:
            count, mean, covariance = patch_mean_and_covariance(x, self.process_group)
            # In float32 even under autocast: the terms of a filter that sums to zero cancel, and bf16 would leave their rounding.
            with torch.autocast(x.device.type, enabled=False):
                mu = weight @ mean + convolution.bias
                variance = ((weight @ covariance) * weight).sum(dim=1).clamp(min=0)
            update_running_statistics(norm, mu, variance, count)
        else:
            mu, variance = norm.running_mean, norm.running_var
        scale = norm.weight * torch.rsqrt(variance + norm.eps)
        folded = (weight * scale[:, None]).view_as(rows).permute(0, 3, 1, 2)  # stays channels-last
        bias = norm.bias + (convolution.bias - mu) * scale
        x = F.conv2d(x, folded, bias, padding=PADDING)
        for module in after:
            x = module(x)
        return x


def patch_mean_and_covariance(
    x: Tensor, process_group: ProcessGroup = ALONE
) -> tuple[int, Tensor, Tensor]:
    """Compute the mean and covariance of the patches that the convolution sees, in float32.

    Args:
        x: shape (batch, 1, height, width).
        process_group: the processes that share the batch in equal parts.

    Returns:
        Number of patches; their mean, shape (patch,); their population covariance (divided by n), shape (patch, patch).
    """
    with torch.autocast(x.device.type, enabled=False):
        patches = _patches(x.float())  # (batch, patch, places)
        count = patches.shape[0] * patches.shape[2]
        mean = patches.mean(dim=(0, 2))
        centered = patches - mean[:, None]
        covariance = (centered @ centered.transpose(1, 2)).sum(dim=0) / count
        if (
            process_group.size > 1
        ):  # the mean of the parts' means, and of their covariances about it
            means, parts = process_group.all_gather(mean), process_group.all_gather(covariance)
            mean = means.mean(dim=0)
            covariance = (parts + (means - mean)[:, :, None] * (means - mean)[:, None]).mean(dim=0)
    return process_group.size * count, mean, covariance


def _patches(x: Tensor) -> Tensor:
    """Lay out the patches of (batch, 1, height, width) like `torch.nn.functional.unfold`: (batch, patch, places).

    `unfold` takes two to three times as long on a CPU, and on a GPU starts a kernel for every clip.
    """
    height, width = x.shape[2:]
    padded = F.pad(x.squeeze(1), [PADDING] * 4)
    places = itertools.product(range(KERNEL), repeat=2)
    return torch.stack(
        [padded[:, i : i + height, j : j + width] for i, j in places], dim=1
    ).flatten(2)


@torch.no_grad()
def update_running_statistics(norm: Any, mean: Tensor, variance: Tensor, count: int) -> None:
    """Update the running statistics of a batch norm as torch does, with the unbiased variance.

    Args:
        norm: a batch norm with running statistics; without a momentum they are averages over all batches.
        mean: of the batch, shape (channels,).
        variance: biased variance of the batch, same shape.
        count: values in each channel of the batch.
    """
    norm.num_batches_tracked += 1
    share = 1 / norm.num_batches_tracked if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * (count / max(count - 1, 1)), share)
