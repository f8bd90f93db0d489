"""Log-mel spectrograms: waveforms (batch, samples) become features (batch, n_mels, frames).

The default settings are those of BYOL-A v1 (arXiv:2103.06695) and LAPE: 16 kHz, 64 ms windows every 10 ms, 64 bands from 60
to 7,800 Hz. The bands are torchaudio's, as in BYOL-A's code. LAPE, and BYOL-A's published weights, use librosa's bands. Both add 1.2e-7
to the power before the logarithm; the default here is 1e-6.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio.transforms import MelSpectrogram

from lape_bench.core.config import Config
from lape_bench.learning.encoders.base import Encoder

AT_ONCE = 8 * 16_000  # samples, on a CPU: their frames and spectra stay in a core's cache


class LogMelConfig(Config):
    """Settings of a log-mel spectrogram; the defaults are those of BYOL-A and LAPE, except for `log_offset`.

    Attributes:
        sample_rate: of the waveforms, in Hz.
        n_fft: samples of a Hann window, and of its Fourier transform.
        hop_length: samples from one frame to the next.
        n_mels: number of mel bands.
        fmin_hz: lower edge of the lowest band.
        fmax_hz: upper edge of the highest band.
        mel_scale: `htk`, triangles of height 1, torchaudio's default; or `slaney`, triangles of area 1 over Hz, librosa's.
        log_offset: added to the power before the logarithm.
    """

    sample_rate: int = 16_000
    n_fft: int = 1024
    hop_length: int = 160
    n_mels: int = 64
    fmin_hz: float = 60.0
    fmax_hz: float = 7_800.0
    mel_scale: Literal["htk", "slaney"] = "htk"
    log_offset: float = 1e-6


class LogMel(nn.Module):
    """A log-mel spectrogram, normalized by one mean and one standard deviation over all bands and frames.

    Until `fit` is called, the mean is 0 and the standard deviation 1: nothing is normalized. Both are buffers, so they are
    saved with the model.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: LogMelConfig | None = None) -> None:
        super().__init__()
        config = config or LogMelConfig()
        self.config = config
        self.mel = MelSpectrogram(
            sample_rate=config.sample_rate,
            n_fft=config.n_fft,
            win_length=config.n_fft,
            hop_length=config.hop_length,
            f_min=config.fmin_hz,
            f_max=config.fmax_hz,
            n_mels=config.n_mels,
            mel_scale=config.mel_scale,
            norm="slaney" if config.mel_scale == "slaney" else None,
        )
        self.mel.spectrogram.power = None  # complex; `_power` takes its power
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, waveforms: Tensor, gains: Tensor | None = None) -> Tensor:
        """Compute normalized log-mels, always in float32.

        Args:
            waveforms: shape (batch, samples), mono, at the rate of the config.
            gains: factors of the amplitude, shape (gains, batch); None leaves the waveforms as they are. The spectra are
                computed once for all gains.

        Returns:
            Shape (gains * batch, n_mels, frames), all clips at their first gain first: the natural logarithm of the power,
            minus the mean, divided by the standard deviation.
        """
        return self.normalized(self.power(waveforms), gains)

    def power(self, waveforms: Tensor) -> Tensor:
        """Return the power of waveforms (batch, samples) in each band, shape (batch, n_mels, frames), always in float32."""
        on_cpu = waveforms.device.type == "cpu"
        at_once = max(1, AT_ONCE // max(1, waveforms.shape[-1])) if on_cpu else len(waveforms)
        with torch.autocast(waveforms.device.type, enabled=False):
            # The concatenation is contiguous along frames, which makes all that follows faster.
            return torch.cat(
                [self._power(some) for some in torch.split(waveforms.float(), at_once)]
            )

    def normalized(self, power: Tensor, gains: Tensor | None = None) -> Tensor:
        """Return normalized log-mels of the power in each band, shape (batch, n_mels, frames); gains as in `forward`."""
        if gains is not None:
            power = (gains.square()[:, :, None, None] * power).flatten(0, 1)
        log_mels: Tensor = ((power + self.config.log_offset).log() - self.mean) / self.std
        return log_mels

    def _power(self, waveforms: Tensor) -> Tensor:
        """Return the same for waveforms that are computed at once."""
        # Frames are centered by reflection, which needs half a window of audio; less is padded to it.
        missing = max(0, self.config.n_fft // 2 + 1 - waveforms.shape[-1])
        if missing:
            waveforms = F.pad(waveforms, (missing // 2, (missing + 1) // 2))
        spectrum = self.mel.spectrogram(waveforms)
        # power=2 would take the square of a square root, which takes longer than all the rest.
        real, imaginary = spectrum.real, spectrum.imag
        power: Tensor = self.mel.mel_scale(torch.addcmul(real.square(), imaginary, imaginary))
        return power

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Fit mean and standard deviation over all frames and bands; only train clips may be passed.

        Args:
            batches: waveforms, each of shape (batch, samples), every train clip once.
        """
        self.mean.zero_()
        self.std.fill_(1)
        count, total, squares = 0, 0.0, 0.0
        for waveforms in batches:
            values = self(waveforms).double()
            count += values.numel()
            total += float(values.sum())
            squares += float(values.square().sum())
        mean = total / count
        self.mean.fill_(mean)
        self.std.fill_(max(squares / count - mean**2, 1e-12) ** 0.5)


class LogMelEncoder(Encoder):
    """An encoder whose features are log-mels, shape (batch, n_mels, frames)."""

    log_mel: LogMel

    def features(self, waveforms: Tensor) -> Tensor:
        """Return normalized log-mels of waveforms (batch, samples)."""
        log_mels: Tensor = self.log_mel(waveforms)
        return log_mels

    def features_at(self, waveforms: Tensor, gains: Tensor, *lengths: Tensor) -> Tensor:
        """Return normalized log-mels at several gains, from one spectrum of each waveform."""
        if lengths:  # only a subclass uses them
            return super().features_at(waveforms, gains, *lengths)
        log_mels: Tensor = self.log_mel(waveforms, gains)
        return log_mels

    def fit_features(self, batches: Iterable[Tensor]) -> None:
        """Fit the mean and standard deviation of the log-mels to train waveforms."""
        self.log_mel.fit(batches)
