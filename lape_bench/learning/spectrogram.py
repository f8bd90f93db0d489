"""Systems whose encoder reads log-mel spectrograms: BYOL-A's views are their augmentation."""

from torch import nn

from lape_bench.learning.augment import Views
from lape_bench.learning.downstream import EncoderSystem


class SpectrogramSystem(EncoderSystem):
    """An encoder whose features have the shape (batch, bands, frames)."""

    def build_views(self, shape: tuple[int, ...], clips: int) -> nn.Module:
        """Return log-mixup-exp and random resize crop."""
        bands, frames = shape
        return Views((bands, frames), clips)
