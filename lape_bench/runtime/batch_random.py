"""Random numbers for the rows of a batch."""

import torch
from torch import Tensor

from lape_bench.runtime.distributed import ALONE, ProcessGroup


class BatchRandom:
    """Draws random numbers for the rows of a batch on the CPU, so that they do not depend on the device.

    If processes share a batch, each draws for all rows and keeps the numbers of its own rows. So a row gets the same
    numbers in any process.

    Args:
        generator: on the CPU, in the same state in all processes.
        process_group: the processes that share the batch.
    """

    def __init__(self, generator: torch.Generator, process_group: ProcessGroup = ALONE) -> None:
        self.generator, self.process_group = generator, process_group

    def uniform(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Draw uniformly from [0, 1).

        Args:
            shape: the last size is the number of rows in this process.
            dtype: of the numbers; None is torch's default.

        Returns:
            Numbers on the CPU, shape `shape`.
        """
        *sizes, rows = shape
        drawn = torch.rand(*sizes, self.global_rows(rows), generator=self.generator, dtype=dtype)
        return drawn[..., self.process_group.rank :: self.process_group.size]

    def integers(self, below: int, rows: int) -> Tensor:
        """Draw integers from 0, ..., below - 1 for the rows of this process, shape (rows,)."""
        return self.process_group.local_rows(
            torch.randint(below, (self.global_rows(rows),), generator=self.generator)
        )

    def distinct(self, below: int, count: int) -> Tensor:
        """Draw distinct integers from 0, ..., below - 1, the same ones in all processes, shape (count,)."""
        return torch.randperm(below, generator=self.generator)[:count]

    def global_rows(self, rows: int) -> int:
        """Return the number of rows in the whole batch, given the number of rows in this process."""
        return rows * self.process_group.size
