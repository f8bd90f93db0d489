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
    """The published view of BYOL-A: log-mixup-exp, then random resize crop.

    Args:
        shape: bands and frames of a log-mel spectrogram.
        clips: number of clips in the corpus; a larger memory bank would hold copies.
        choose: chooses the background of each clip.
    """

    MEMORY = 2048

    def __init__(
        self, shape: tuple[int, int], clips: int, choose: BackgroundChoice = random_background
    ) -> None:
        super().__init__()
        self.mixup = LogMixupExp(shape, memory=min(self.MEMORY, clips), choose=choose)
        self.crop = RandomResizeCrop()

    def forward(self, log_mels: Tensor, random: BatchRandom) -> Tensor:
        """Make one view of each log-mel spectrogram.

        Args:
            log_mels: normalized, shape (batch, n_mels, frames).
            random: draws for the rows of the batch.

        Returns:
            Same shape. The log-mels are then stored in the memory bank.
        """
        mixed = self.mixup(log_mels, random)
        self.mixup.remember(random.process_group.gather_rows(log_mels))
        cropped: Tensor = self.crop(mixed, random)
        return cropped
