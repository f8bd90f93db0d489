"""Several processes that train one model, each on its own GPU. torchrun starts them, and Fabric connects them.

Each process holds the whole model. The rows of a batch are distributed in turn: rank r has rows r, r + size, and so on.
Rows that a loss compares, and batch statistics, are gathered from all processes, so a step equals the step of one
process on the whole batch.
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

# How long processes wait for each other: rank 0 may wait for another run that makes the same upstream.
PATIENCE = timedelta(days=1)


class ProcessGroup:
    """The group of processes that train together, as seen from this one; by default it is alone.

    Args:
        fabric: connects the processes.

    Attributes:
        rank: the number of this process, from 0; only rank 0 writes files and messages.
        size: number of processes.
    """

    def __init__(self, fabric: "Fabric | None" = None) -> None:
        self._fabric: Any = fabric
        self.rank = fabric.global_rank if fabric else 0
        self.size = fabric.world_size if fabric else 1

    @property
    def name(self) -> tuple[int, ...]:
        """Suffix for the name of a generator that must differ between ranks. Rank 0 has the name of a single
        process.
        """
        return (self.rank,) if self.rank else ()

    @property
    def device(self) -> torch.device | None:
        """The device of this rank; None if the process is alone."""
        return self._fabric.device if self._fabric else None

    def batches(self, order: Tensor, count: int) -> list[Tensor]:
        """Split rows, shape (rows,), into `count` nearly equal batches that can be distributed evenly.

        Up to `size - 1` rows at the end are left out. No batch is empty. If `count` follows from a batch size that
        `size` divides and that is at least twice `size`, no batch is larger than that batch size.
        """
        columns_by_rank = order[: len(order) - len(order) % self.size].view(-1, self.size)
        return [batch.flatten() for batch in columns_by_rank.tensor_split(count)]

    def local_rows(self, rows: Tensor) -> Tensor:
        """Return the rows of a batch that belong to this rank."""
        return rows[self.rank :: self.size]

    def all_gather(self, value: Tensor) -> Tensor:
        """Return the values of all ranks, shape (size, ...). Gradients flow back to all."""
        if self._fabric is None:
            return value[None]
        gathered: Tensor = self._fabric.all_gather(value, sync_grads=True)
        return gathered

    def gather_rows(self, rows: Tensor) -> Tensor:
        """Return the rows of the whole batch in their order, given the rows of this rank. Gradients flow back to
        all.
        """
        return self.all_gather(rows).transpose(0, 1).flatten(0, 1) if self.size > 1 else rows

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradient of each parameter by its mean over the ranks.

        This is the gradient of a loss that every rank computes from gathered rows: the gradients that flow back through
        `gather_rows` are the sum over the losses of all ranks.
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
        """Return the value of rank 0 on every rank."""
        return self._fabric.broadcast(value) if self._fabric else value

    @torch.no_grad()
    def broadcast_module(self, module: nn.Module) -> None:
        """Copy the parameters and buffers of rank 0 to every rank, since rounding may have made them differ."""
        if self.size > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                torch.distributed.broadcast(tensor, 0)


ALONE = ProcessGroup()


def is_distributed() -> bool:
    """Return True if torchrun started more than one process."""
    # Clusters set a world size too.
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


def is_main_process() -> bool:
    """Return True if this process is alone or is rank 0."""
    return not is_distributed() or int(os.environ["RANK"]) == 0


@contextmanager
def join_process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """Connect the processes that torchrun started, if it did, for the duration of the block.

    Args:
        device: the device to compute on; with several GPUs each process gets its own.

    Raises:
        UserError: there are fewer GPUs than processes, one GPU was asked for, or the processes are on several machines.
    """
    if not is_distributed():
        yield ALONE
        return
    local_size = int(os.environ["LOCAL_WORLD_SIZE"])
    if local_size < int(os.environ["WORLD_SIZE"]):
        raise UserError(
            "torchrun started processes on several machines, but the processes of one upstream must share a folder of checkpoints",
            next_step="start them on one machine, with --nproc-per-node only",
        )
    if str(device) != device.type:
        raise UserError(
            f"{local_size} processes cannot share the device '{device}'",
            next_step="give --device cuda: each process then has a GPU of its own",
        )
    if device.type == "cuda" and torch.cuda.device_count() < local_size:
        raise UserError(
            f"torchrun started {local_size} processes here, but torch can use {torch.cuda.device_count()} GPUs",
            next_step="set --nproc-per-node to the number of GPUs",
        )
    # Slow to import, and rarely needed.
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    strategy = DDPStrategy(timeout=PATIENCE)
    fabric: Any = Fabric(accelerator=device.type, devices=local_size, strategy=strategy)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # logs a line for every process
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*all_gather is deprecated")  # Fabric calls it
        fabric.launch()
        try:
            yield ProcessGroup(fabric)
        finally:
            torch.distributed.destroy_process_group()
