"""Named random generators, derived from the seed of a run. The global generators are seeded only here.

A generator's stream depends on the run's seed and the generator's name, and not on earlier draws. So every system gets
the same labels, and a resumed epoch draws the same numbers.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """Hash a run's seed and a generator's name to an integer of 63 bits."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class Seeds:
    """The named random generators of one run.

    Args:
        seed: the run's seed, as given by the user.
        scope: names that distinguish these generators from others with the same seed.
    """

    def __init__(self, seed: int, *scope: str | int) -> None:
        self.seed, self.scope = seed, scope

    def within(self, *names: str | int) -> "Seeds":
        """Return the generators of one stage, which are independent of those of other stages."""
        return Seeds(self.seed, *self.scope, *names)

    def numpy(self, *names: str | int) -> np.random.Generator:
        """Return a new NumPy generator of the given name, at the start of its stream."""
        return np.random.default_rng(derive_seed(self.seed, *self.scope, *names))

    def torch(self, *names: str | int) -> "torch.Generator":
        """Return a new torch generator of the given name on the CPU, at the start of its stream."""
        import torch  # slow to import, and splits are drawn without it

        generator = torch.Generator()
        generator.manual_seed(derive_seed(self.seed, *self.scope, *names))
        return generator

    @contextmanager
    def globally(self, *names: str | int) -> Iterator[None]:
        """Seed the global generators of torch, NumPy and Python for the block, and restore them after it.

        Initial weights and dropout need torch's, since they cannot be given a generator. A plug-in may use the others.
        """
        import torch  # slow to import, and splits are drawn without it

        seed = derive_seed(self.seed, *self.scope, *names)
        devices = range(torch.cuda.device_count())
        states = np.random.get_state(), random.getstate()
        with torch.random.fork_rng(devices=list(devices)):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            random.seed(seed)
            try:
                yield
            finally:
                np.random.set_state(states[0])
                random.setstate(states[1])
