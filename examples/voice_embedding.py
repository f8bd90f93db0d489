"""Resemblyzer's voice encoder (github.com/resemble-ai/Resemblyzer): 256 numbers that tell who speaks, by GE2E (arXiv:1710.10467).

The package carries the weights, under the Apache license 2.0. Only they are used here, so that it need not bring what it imports:

    pip install --no-deps Resemblyzer
    bench run --system examples/voice_embedding.py:VoiceEmbedding --task asc-speaker --protocol linear
    bench run --system unfused --set teacher=examples/voice_embedding.py:VoiceEmbedding --task asc-speaker --shots 5

Three LSTM layers hear 40 mel bands. As in the package, quiet windows are raised to -30 dB. The package also cuts long pauses out, and
averages stretches of 1.6 s; here a window is embedded as it is. It is an `nn.Module`, so that it can be fine-tuned too.
"""

from importlib.metadata import distribution

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram

SIZE, LAYERS, N_MELS = 256, 3, 40
LOUDNESS = 10 ** (-30 / 20)  # RMS


class VoiceEmbedding(nn.Module):
    """The voice encoder of Resemblyzer."""

    sample_rate = 16_000
    embedding_size = SIZE
    files = (distribution("Resemblyzer").locate_file("resemblyzer/pretrained.pt"),)

    def __init__(self) -> None:
        super().__init__()
        # librosa's mel spectrogram, of power and without a logarithm: windows of 25 ms every 10 ms
        self.mel = MelSpectrogram(
            self.sample_rate, n_fft=400, hop_length=160, n_mels=N_MELS, norm="slaney",
            mel_scale="slaney", pad_mode="constant",
        )  # fmt: skip
        self.lstm = nn.LSTM(N_MELS, SIZE, LAYERS, batch_first=True)
        self.linear = nn.Linear(SIZE, SIZE)
        saved = torch.load(self.files[0], map_location="cpu", weights_only=True)["model_state"]
        own = self.state_dict()
        self.load_state_dict(
            own | {name: saved[name] for name in own if not name.startswith("mel.")}
        )

    def forward(self, waveforms: Tensor) -> Tensor:
        """Embed windows of shape (batch, samples): shape (batch, 256), of length 1."""
        rms = waveforms.square().mean(dim=1, keepdim=True).sqrt()
        gain = (LOUDNESS / rms.clamp(min=1e-6)).clamp(min=1)
        _, (hidden, _) = self.lstm(self.mel(gain * waveforms).transpose(1, 2))
        return nn.functional.normalize(self.linear(hidden[-1]).relu(), dim=1)
