"""Views of BYOL-A (arXiv:2103.06695) for a whole batch at once: log-mixup-exp, then random resize crop.

Random numbers are drawn on the CPU and copied to the device without waiting for it.
"""

from torch import Tensor, nn

from lape_bench.learning.augmentations.log_mixup_exp import (
    BackgroundChoice,
    LogMixupExp,
    random_background,
)
from lape_bench.learning.augmentations.random_resize_crop import RandomResizeCrop
from lape_bench.runtime.batch_random import BatchRandom


class Views(nn.Module):
    """The published view: log-mixup-exp, then random resize crop.

    Args:
        shape: bands and frames of a log-mel.
        clips: how many different clips are trained on; a memory bank beyond that would hold copies.
        choose: which of the remembered log-mels is mixed in.
    """

    MEMORY = 2048

    def __init__(
        self, shape: tuple[int, int], clips: int, choose: BackgroundChoice = random_background
    ) -> None:
        super().__init__()
        self.mixup = LogMixupExp(shape, memory=min(self.MEMORY, clips), choose=choose)
        self.crop = RandomResizeCrop()

    def forward(self, log_mels: Tensor, random: BatchRandom) -> Tensor:
        """Turn normalized log-mels, shape (batch, n_mels, frames), into one view of each."""
        mixed = self.mixup(log_mels, random)
        self.mixup.remember(random.process_group.gather_rows(log_mels))
        cropped: Tensor = self.crop(mixed, random)
        return cropped
