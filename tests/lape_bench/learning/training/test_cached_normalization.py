"""Statistics of log-mels are fitted once for a front end and train clips, whatever encoder follows."""

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torch import Tensor

from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.log_mel import LogMelConfig, LogMelEncoder
from lape_bench.learning.training.cached_normalization import FILE, cached_normalization
from lape_bench.learning.training.inference import fit_normalization
from lape_bench.system import RunContext

RATE = 16_000


class Means(LogMelEncoder):
    """The mean of each band."""

    embedding_size = 64

    def __init__(self) -> None:
        super().__init__()
        self.log_mel = AudioNTT(8).log_mel

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=2)


class Shifted(Means):
    """Statistics of its own: the mean lies lower."""

    def fit_features(self, batches: Iterable[Tensor]) -> None:
        super().fit_features(batches)
        self.log_mel.mean -= 1


def clips(seed: int = 0) -> Clips:
    random = np.random.default_rng(seed)
    waveforms = [random.normal(0, 0.1, length).astype(np.float32) for length in (4_000, 2_500)]
    return Clips.pack(["a", "b"], waveforms, RATE)


def encoder(weights_seed: int = 0, **log_mel: float) -> AudioNTT:
    torch.manual_seed(weights_seed)
    return AudioNTT(8, LogMelConfig(**log_mel))


def statistics(fitted: LogMelEncoder) -> tuple[float, float]:
    return float(fitted.log_mel.mean), float(fitted.log_mel.std)


def test_they_are_those_of_a_fit_both_when_computed_and_when_found(context: RunContext) -> None:
    expected = encoder()
    fit_normalization(expected, clips(), 0.2, context)
    for _ in range(2):
        fitted = encoder()
        cached_normalization(fitted, clips(), 0.2, context)
        assert statistics(fitted) == statistics(expected) != (0.0, 1.0)
    assert [found.computed for found in context.artifacts] == [True, False]


def test_encoders_with_the_same_front_end_share_them(context: RunContext) -> None:
    for each in (encoder(), encoder(weights_seed=1), Means()):
        cached_normalization(each, clips(), 0.2, context)
    assert [found.computed for found in context.artifacts] == [True, False, False]


@pytest.mark.parametrize("change", ["clips", "window", "front end", "filters"])
def test_other_clips_windows_or_front_ends_are_fitted_anew(
    context: RunContext, change: str
) -> None:
    cached_normalization(encoder(), clips(), 0.2, context)
    other = encoder(**({"log_offset": 1e-3} if change == "front end" else {}))
    if change == "filters":
        other.log_mel.mel.mel_scale.fb *= 2
    cached_normalization(
        other, clips(seed=change == "clips"), 0.1 if change == "window" else 0.2, context
    )
    assert [found.computed for found in context.artifacts] == [True, True]


def test_an_encoder_with_statistics_of_its_own_is_fitted_each_time(context: RunContext) -> None:
    cached_normalization(Means(), clips(), 0.2, context)
    expected, fitted = Shifted(), Shifted()
    fit_normalization(expected, clips(), 0.2, context)
    cached_normalization(fitted, clips(), 0.2, context)
    assert statistics(fitted) == statistics(expected)
    assert len(context.artifacts) == 1


def test_damaged_statistics_are_fitted_again(context: RunContext) -> None:
    first, second = encoder(), encoder()
    cached_normalization(first, clips(), 0.2, context)
    path = context.artifacts[0].folder / FILE
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    cached_normalization(second, clips(), 0.2, context)
    assert statistics(second) == statistics(first)
    assert [found.computed for found in context.artifacts] == [True, True]
