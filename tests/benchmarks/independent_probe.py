"""Linear evaluation of a frozen random AudioNTT on fsdd-digits, computed apart from the product.

    python -m tests.benchmarks.independent_probe 512 2048

From the archive to the accuracy, everything but the initial weights is computed here, with NumPy, soxr and scikit-learn: reading,
resampling, windows, log-mels, normalization, the encoder's forward pass, leave-one-speaker-out selection of C, and the
classifier. It prints the accuracy by fold for two normalizations: over the padded windows that the encoder is given (protocol 2)
and over whole clips (protocol 1). `bench run --system supervised --set width=512 --protocol linear --task fsdd-digits` must
agree with the first.
"""

import argparse
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from lape_bench.core.seeding import Seeds
from lape_bench.learning.encoders.audio_ntt import AudioNTT

Array = NDArray[np.float64]

ARCHIVES = Path(
    os.environ.get("LAPE_BENCH_TEST_DATA", Path(__file__).parents[3] / "shared" / "data")
)
TEST_SPEAKERS = (("george", "jackson"), ("lucas", "nicolas"), ("theo", "yweweler"))
RATE, N_FFT, HOP, N_MELS = 16_000, 1024, 160, 64
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
BATCH = 64


def read(archive: Path) -> tuple[list[Array], NDArray[np.int64], NDArray[np.str_]]:
    """Return waveforms at 16 kHz, digits and speakers, in the order of the names."""
    with zipfile.ZipFile(archive) as recordings:
        names = sorted(name for name in recordings.namelist() if name.endswith(".wav"))
        audio = [
            soxr.resample(*soundfile.read(io.BytesIO(recordings.read(name))), RATE)
            for name in names
        ]
    words = [Path(name).stem.split("_") for name in names]
    return audio, np.array([int(word[0]) for word in words]), np.array([word[1] for word in words])


def windows(waveform: Array) -> list[Array]:
    """Cut windows of a second; the last one of a longer clip ends with it, a shorter clip is centered in zeros."""
    missing = RATE - len(waveform)
    if missing >= 0:
        return [np.pad(waveform, (missing // 2, missing - missing // 2))]
    starts = [*range(0, -missing, RATE), -missing]
    return [waveform[start : start + RATE] for start in starts]


def mel_bands() -> Array:
    """Return triangles of height 1 from 60 to 7,800 Hz on the HTK scale, shape (bands, bins)."""
    low, high = 2595 * np.log10(1 + np.array([60.0, 7800.0]) / 700)
    edges = 700 * (10 ** (np.linspace(low, high, N_MELS + 2) / 2595) - 1)
    left, center, right = (edges[k : k + N_MELS, None] for k in range(3))
    bins = np.linspace(0, RATE / 2, N_FFT // 2 + 1)
    return np.clip(
        np.minimum((bins - left) / (center - left), (right - bins) / (right - center)), 0, None
    )


BANDS = mel_bands()
HANN = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)


def log_mels(waveform: Array) -> Array:
    """Return log-mels, shape (bands, frames), of frames centered by reflection."""
    padded = np.pad(waveform, max(0, N_FFT // 2 + 1 - len(waveform)))
    padded = np.pad(padded, N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP] * HANN
    return np.log(BANDS @ (np.abs(np.fft.rfft(frames)) ** 2).T + 1e-6)


@torch.no_grad()
def embed(weights: dict[str, Tensor], features: Array) -> Array:
    """Embed normalized log-mels, shape (windows, bands, frames), by AudioNTT with batch norms in their initial state."""
    x = torch.from_numpy(features).float()[:, None]
    for block in range(3):
        kernel, bias = (weights[f"blocks.{block}.0.{name}"] for name in ("weight", "bias"))
        x = F.conv2d(x, kernel, bias, padding=1) / np.sqrt(1 + 1e-5)
        x = F.max_pool2d(F.relu(x), 2)
    x = x.permute(0, 3, 2, 1).flatten(2)
    for layer in (0, 3):
        x = F.relu(F.linear(x, weights[f"steps.{layer}.weight"], weights[f"steps.{layer}.bias"]))
    return (x.amax(dim=1) + x.mean(dim=1)).numpy().astype(np.float64)


class Probe:
    """Logistic regressions on the windows of clips.

    Args:
        embeddings: shape (windows, features).
        clip_of_window: shape (windows,).
        classes: of the clips, shape (clips,).
    """

    def __init__(
        self, embeddings: Array, clip_of_window: NDArray[np.int64], classes: NDArray[np.int64]
    ) -> None:
        self.embeddings, self.clip_of_window, self.classes = embeddings, clip_of_window, classes

    def accuracy(self, train: NDArray[np.bool_], test: NDArray[np.bool_], penalty: float) -> float:
        """Fit to the clips of one side, and return the accuracy on those of the other."""
        fitted, scored = train[self.clip_of_window], test[self.clip_of_window]
        owners = self.clip_of_window[fitted]
        scaler = StandardScaler().fit(self.embeddings[fitted])
        model = LogisticRegression(C=penalty, max_iter=5000).fit(
            scaler.transform(self.embeddings[fitted]),
            self.classes[owners],
            sample_weight=1 / np.bincount(owners)[owners],
        )
        scores = model.decision_function(scaler.transform(self.embeddings[scored]))
        scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
        total = np.zeros((len(self.classes), scores.shape[1]))
        np.add.at(total, self.clip_of_window[scored], scores)
        predicted = model.classes_[total[test].argmax(axis=1)]
        return float((predicted == self.classes[test]).mean())

    def select(self, train: NDArray[np.bool_], speakers: NDArray[np.str_]) -> float:
        """Return the C of the highest accuracy when each speaker is left out in turn; the lowest of equal ones."""
        means = [
            np.mean(
                [
                    self.accuracy(train & (speakers != left), train & (speakers == left), penalty)
                    for left in np.unique(speakers[train])
                ]
            )
            for penalty in PENALTIES
        ]
        return PENALTIES[int(np.argmax(means))]


def main() -> None:
    """Print accuracies in percent by width, normalization and fold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("widths", nargs="+", type=int, help="d of AudioNTT")
    widths = parser.parse_args().widths
    audio, digits, speakers = read(ARCHIVES / "fsdd.zip")
    cut = [windows(waveform) for waveform in audio]
    clip_of_window = np.repeat(np.arange(len(cut)), [len(some) for some in cut])
    heard = np.stack([log_mels(window) for some in cut for window in some])
    whole = [log_mels(waveform) for waveform in audio]
    for width in widths:
        with Seeds(0, "run").globally("initial weights"):
            weights = {name: w.contiguous() for name, w in AudioNTT(width).state_dict().items()}
        for test_speakers in TEST_SPEAKERS:
            test = np.isin(speakers, test_speakers)
            fitted_on = {
                "padded windows": heard[~test[clip_of_window]],
                "whole clips": np.concatenate([whole[k].ravel() for k in np.flatnonzero(~test)]),
            }
            for name, values in fitted_on.items():
                features = (heard - values.mean()) / values.std()
                parts = [features[k : k + BATCH] for k in range(0, len(features), BATCH)]
                embeddings = np.concatenate([embed(weights, part) for part in parts])
                probe = Probe(embeddings, clip_of_window, digits)
                penalty = probe.select(~test, speakers)
                accuracy = 100 * probe.accuracy(~test, test, penalty)
                print(
                    f"d={width}, {name}, test {'+'.join(test_speakers)}: {accuracy:.1f} (C={penalty:g})",
                    flush=True,
                )


if __name__ == "__main__":
    main()
