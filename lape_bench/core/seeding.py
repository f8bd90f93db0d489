"""One run seed becomes named generators, and weight initialization is forked and seeded here alone.

A generator's stream is a function of the run's seed and its own name, not of who drew before it:
the same labels are drawn whatever the system, and a resumed epoch draws what it would have drawn.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Hash a run's seed and a generator's name to 63 bits."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Seeds:
    """The named random generators of one run.

    Args:
        seed: the run's seed, as given by the user.
        scope: names that set this run's generators apart from others of the same seed.
    """

    def __init__(self, seed: int, *scope: str | int) -> None:
        self.seed, self.scope = seed, scope

    def within(self, *names: str | int) -> "Seeds":
        """Return the generators of one stage, apart from those of the others."""
        return Seeds(self.seed, *self.scope, *names)

    def numpy(self, *names: str | int) -> np.random.Generator:
        """Return a new NumPy generator of this name, at the start of its stream."""
        return np.random.default_rng(derive_seed(self.seed, *self.scope, *names))

    def torch(self, *names: str | int) -> "torch.Generator":
        """Return a new torch generator of this name on the CPU, at the start of its stream."""
        import torch  # slow to import, and splits are drawn without it

        generator = torch.Generator()
        generator.manual_seed(derive_seed(self.seed, *self.scope, *names))
        return generator

    @contextmanager
    def globally(self, *names: str | int) -> Iterator[None]:
        """Seed torch's global generators for the block and restore them after it.

        For what cannot be given a generator: initial weights and dropout.
        """
        import torch  # slow to import, and splits are drawn without it

        devices = range(torch.cuda.device_count())
        with torch.random.fork_rng(devices=list(devices)):
            torch.manual_seed(derive_seed(self.seed, *self.scope, *names))
            yield
