"""Features of windows that come again: a clip that is not longer than a window is cut in the same way in every epoch.

What repeats is the power in mel bands. It is kept in memory, since gains, augmentation and normalization, which follow, cost little.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.encoders.log_mel import LogMel, LogMelEncoder

KEPT_BYTES = 2**30  # of the power of all clips that repeat; more would fill the memory

FeaturesAtGains = Callable[..., Tensor]
"""The index of each waveform's clip (batch,), on the CPU, and the arguments of `Encoder.features_at`: its result."""


def repeated_features(encoder: Encoder, lengths: NDArray[np.int64], window: int) -> FeaturesAtGains:
    """Return a function that computes features as `Encoder.features_at` does, and the spectra of repeated windows once.

    On a GPU, for other features than log-mels and for more than `KEPT_BYTES` it keeps nothing.

    Args:
        encoder: whose features are computed.
        lengths: samples of each clip that windows are cut from, shape (clips,).
        window: samples of a window.
    """
    fixed = torch.from_numpy(lengths <= window)
    log_mel = _plain_log_mel(encoder)
    size = 0
    if log_mel is not None and log_mel.mean.device.type == "cpu":
        config = log_mel.config
        size = int(fixed.sum()) * config.n_mels * (1 + window // config.hop_length) * 4
    if log_mel is not None and 0 < size <= KEPT_BYTES:
        return _KeptPower(log_mel, fixed)
    return lambda rows, *arguments: encoder.features_at(*arguments)


class _KeptPower:
    """Features of clips. Some clips have the same window each time.

    Args:
        log_mel: the front end.
        fixed: whether a clip has the same window each time, shape (clips,).
    """

    def __init__(self, log_mel: LogMel, fixed: Tensor) -> None:
        self.log_mel, self.fixed = log_mel, fixed
        self._power: dict[int, Tensor] = {}

    def __call__(self, rows: Tensor, waveforms: Tensor, gains: Tensor) -> Tensor:
        fixed = self.fixed[rows]
        others = iter(self.log_mel.power(waveforms[~fixed]) if not fixed.all() else ())
        power = torch.stack(
            [
                self._kept(clip, waveform) if repeats else next(others)
                for clip, waveform, repeats in zip(
                    rows.tolist(), waveforms, fixed.tolist(), strict=True
                )
            ]
        )
        return self.log_mel.normalized(power, gains)

    def _kept(self, clip: int, waveform: Tensor) -> Tensor:
        """Return the power of a clip's window, which has one window alone; shape (n_mels, frames)."""
        if clip not in self._power:
            # One by one: rounding must not depend on the clips of the batch, which after a resume is another one.
            self._power[clip] = self.log_mel.power(waveform[None])[0]
        return self._power[clip]


def _plain_log_mel(encoder: Encoder) -> LogMel | None:
    """Return the front end if the encoder's features are its log-mels and nothing else."""
    kind = type(encoder)
    if (
        isinstance(encoder, LogMelEncoder)
        and kind.features is LogMelEncoder.features
        and kind.features_at is LogMelEncoder.features_at
        and not encoder.uses_lengths
        and type(encoder.log_mel) is LogMel
    ):
        return encoder.log_mel
    return None
