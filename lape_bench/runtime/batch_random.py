"""Random numbers for the rows of a batch."""

import torch
from torch import Tensor

from lape_bench.runtime.distributed import ALONE, ProcessGroup


class BatchRandom:
    """Draws for the rows of a batch, on the CPU, so that none depends on the device.

    Where ranks share a batch, each draws for all its rows and keeps those of its own: a row gets the same numbers whoever
    has it.

    Args:
        generator: on the CPU, and in the same state for all ranks.
        ranks: who shares the batch.
    """

    def __init__(self, generator: torch.Generator, process_group: ProcessGroup = ALONE) -> None:
        self.generator, self.process_group = generator, process_group

    def uniform(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Draw from [0, 1), of a shape whose last size is the rows."""
        *sizes, rows = shape
        drawn = torch.rand(*sizes, self.global_rows(rows), generator=self.generator, dtype=dtype)
        return drawn[..., self.process_group.rank :: self.process_group.size]

    def integers(self, below: int, rows: int) -> Tensor:
        """Draw from 0, ..., below - 1, shape (rows,)."""
        return self.process_group.local_rows(
            torch.randint(below, (self.global_rows(rows),), generator=self.generator)
        )

    def distinct(self, below: int, count: int) -> Tensor:
        """Draw different numbers of 0, ..., below - 1, the same for all ranks, shape (count,)."""
        return torch.randperm(below, generator=self.generator)[:count]

    def global_rows(self, rows: int) -> int:
        """Return how many rows there are, of which this process has so many."""
        return rows * self.process_group.size
