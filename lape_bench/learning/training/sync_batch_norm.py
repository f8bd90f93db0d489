"""Batch norm whose statistics are those of a batch that several processes share.

torch.nn.SyncBatchNorm is not used, for two reasons. It refuses tensors of a CPU, where the tests train two processes with
gloo against one process alone. And `FoldedBatchNorm` takes its statistics from the patches before the convolution, so that
it gathers them itself in any case.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lape_bench.learning.encoders.folded_batch_norm import (
    FoldedBatchNorm,
    update_running_statistics,
)
from lape_bench.runtime.distributed import ProcessGroup


def share_statistics(module: nn.Module, process_group: ProcessGroup) -> None:
    """Make every batch norm within a module use the statistics of the whole batch.

    Parameters, buffers and their names stay the same.

    Args:
        module: changed in place.
        process_group: the processes that share each batch in equal parts.
    """
    for name, child in module.named_children():
        if isinstance(child, FoldedBatchNorm):
            child.process_group = process_group
        elif isinstance(child, _BatchNorm):
            setattr(module, name, SyncedBatchNorm(child, process_group))
        else:
            share_statistics(child, process_group)


class SyncedBatchNorm(_BatchNorm):
    """Batch norm (arXiv:1502.03167) with the statistics of all processes.

    Args:
        plain: the batch norm whose parameters and buffers it takes over.
        process_group: the processes that share each batch in equal parts.
    """

    def __init__(self, plain: _BatchNorm, process_group: ProcessGroup) -> None:
        super().__init__(
            plain.num_features,
            plain.eps,
            plain.momentum,
            affine=plain.affine,
            track_running_stats=plain.track_running_stats,
        )
        self.process_group = process_group
        for name, parameter in plain.named_parameters():
            setattr(self, name, parameter)
        for name, buffer in plain.named_buffers():
            setattr(self, name, buffer)
        self.train(plain.training)

    def _check_input_dim(self, x: Tensor) -> None:
        """Accept any number of dimensions, because one class replaces the batch norms of all of them."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each channel of shape (batch, channels, ...)."""
        if not self.training:
            normalized: Tensor = super().forward(x)
            return normalized
        with torch.autocast(x.device.type, enabled=False):
            exact = x.float()
            rest = [0, *range(2, x.dim())]
            variance, mean = torch.var_mean(exact, dim=rest, correction=0)
            # The parts are equal, so the means of their means and of their variances about the common mean are exact.
            means, variances = self.process_group.all_gather(torch.stack([mean, variance])).unbind(
                dim=1
            )
            mean = means.mean(dim=0)
            variance = (variances + (means - mean).square()).mean(dim=0)
            if self.track_running_stats:
                update_running_statistics(
                    self, mean, variance, self.process_group.size * x.numel() // x.shape[1]
                )
            scale = torch.rsqrt(variance + self.eps)
            shift = -mean * scale
            if self.affine:
                scale, shift = scale * self.weight, shift * self.weight + self.bias
            shape = [1, -1, *[1] * (x.dim() - 2)]
            return torch.addcmul(shift.view(shape), exact, scale.view(shape)).to(x.dtype)
