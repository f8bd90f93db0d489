"""Several processes that train one model together, each on a GPU of its own: started by torchrun, joined by Fabric.

Each of them, called by its rank, holds the whole model, and the rows of every batch are dealt out in turn: rank r has rows
r, r + size, and so on. What is compared over a batch, or is a statistic of it, is gathered from all, so that a step is the
step that one process would make of the whole batch.
"""

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lape_bench.core.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# Of a rank for the others: the first of them may wait for another run that makes the same upstream.
PATIENCE = timedelta(days=1)


class ProcessGroup:
    """This process among those that train together; by default it is alone.

    Args:
        fabric: joins them.

    Attributes:
        rank: which one this is, from 0; that one alone writes and speaks.
        size: how many there are.
    """

    def __init__(self, fabric: "Fabric | None" = None) -> None:
        self._fabric: Any = fabric
        self.rank = fabric.global_rank if fabric else 0
        self.size = fabric.world_size if fabric else 1

    @property
    def name(self) -> tuple[int, ...]:
        """What a generator's name ends with that is to be another for every rank; the first has that of a lone process."""
        return (self.rank,) if self.rank else ()

    @property
    def device(self) -> torch.device | None:
        """The device that is this rank's; none where it is alone."""
        return self._fabric.device if self._fabric else None

    def batches(self, order: Tensor, count: int) -> list[Tensor]:
        """Split rows, shape (rows,), into so many batches, nearly equal, that can be dealt out evenly.

        Up to `size - 1` rows at the end are in none. None is empty, nor larger than a batch size that `size` divides and
        is at most half of, where `count` is what that makes of the rows.
        """
        dealt = order[: len(order) - len(order) % self.size].view(-1, self.size)
        return [batch.flatten() for batch in dealt.tensor_split(count)]

    def local_rows(self, rows: Tensor) -> Tensor:
        """Return this rank's of the rows of a batch."""
        return rows[self.rank :: self.size]

    def all_gather(self, value: Tensor) -> Tensor:
        """Return the value of every rank, shape (size, ...); gradients flow back to all."""
        if self._fabric is None:
            return value[None]
        everyone: Tensor = self._fabric.all_gather(value, sync_grads=True)
        return everyone

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Return the rows of the whole batch, in its order, of which each rank gives its own; gradients flow back to all."""
        return self.all_gather(rows).transpose(0, 1).flatten(0, 1) if self.size > 1 else rows

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the mean of the ranks' gradients.

        That is the gradient of a loss that every rank computed from gathered rows: what flowed back through `gather_rows` is the
        sum over the losses of all.
        """
        if self._fabric is None:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        flat = self._fabric.all_reduce(flat, reduce_op="mean")
        for gradient, mean in zip(
            gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True
        ):
            gradient.copy_(mean.view_as(gradient))

    def broadcast(self, value: Any) -> Any:
        """Return what the first rank gives, whatever the others do."""
        return self._fabric.broadcast(value) if self._fabric else value

    @torch.no_grad()
    def broadcast_module(self, module: nn.Module) -> None:
        """Give every rank the parameters and buffers of the first, wherever rounding has moved them apart."""
        if self.size > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                torch.distributed.broadcast(tensor, 0)


ALONE = ProcessGroup()


def is_distributed() -> bool:
    """Tell whether torchrun started more than one process."""
    # Clusters set a world size too.
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def is_main_process() -> bool:
    """Tell whether this process is alone or the first of several."""
    return not is_distributed() or int(os.environ["RANK"]) == 0


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Join the processes that torchrun started, if it did, for the block.

    Args:
        device: what they compute on; of several GPUs each process has its own.

    Raises:
        UserError: there are fewer GPUs than processes, one GPU was asked for, or the processes are on several machines.
    """
    if not is_distributed():
        yield ALONE
        return
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    if here < int(os.environ["WORLD_SIZE"]):
        raise UserError(
            "torchrun started processes on several machines, and those of one upstream share a folder of checkpoints",
            next_step="start them on one, with --nproc-per-node alone",
        )
    if str(device) != device.type:
        raise UserError(
            f"{here} processes cannot share the device '{device}'",
            next_step="give --device cuda: each process then has a GPU of its own",
        )
    if device.type == "cuda" and torch.cuda.device_count() < here:
        raise UserError(
            f"torchrun started {here} processes here, and torch can use {torch.cuda.device_count()} GPUs",
            next_step="start as many with --nproc-per-node",
        )
    # Slow to import, and hardly ever needed.
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    strategy = DDPStrategy(timeout=PATIENCE)
    fabric: Any = Fabric(accelerator=device.type, devices=here, strategy=strategy)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of every process
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*all_gather is deprecated")  # which Fabric calls
        fabric.launch()
        try:
            yield ProcessGroup(fabric)
        finally:
            torch.distributed.destroy_process_group()
