"""Features of repeated windows against `features_at`, which keeps nothing."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.log_mel import LogMel
from lape_bench.learning.training import repeated_windows
from lape_bench.learning.training.batches import random_windows, to_device
from lape_bench.learning.training.repeated_windows import repeated_features
from lape_bench.runtime.batch_random import BatchRandom

WINDOW = 4_000
SHORT, LONG = (1_000, WINDOW, 3_999), (WINDOW + 1, 9_000)


def clips_of(lengths: tuple[int, ...]) -> Clips:
    random = np.random.default_rng(0)
    waveforms = [0.1 * random.standard_normal(n).astype(np.float32) for n in lengths]
    return Clips.pack([str(n) for n in range(len(lengths))], waveforms, 16_000)


def counted(patch: pytest.MonkeyPatch) -> list[int]:
    """Note the number of waveforms of each call of `LogMel.power`."""
    calls: list[int] = []
    power = LogMel.power

    def noting(front_end: LogMel, waveforms: Tensor) -> Tensor:
        calls.append(len(waveforms))
        return power(front_end, waveforms)

    patch.setattr(LogMel, "power", noting)
    return calls


def batches(clips: Clips) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Rows, windows and gains of three epochs, in an order of their own."""
    device = to_device(clips, torch.device("cpu"))
    drawn = []
    for epoch in range(3):
        draw = torch.Generator().manual_seed(epoch)
        for rows in torch.randperm(len(clips), generator=draw).repeat(2).split(4):
            windows = random_windows(device, rows, WINDOW, BatchRandom(draw))
            drawn.append((rows, windows, 10 * torch.rand(2, len(rows), generator=draw)))
    return drawn


@pytest.mark.parametrize("lengths", [SHORT, LONG, SHORT + LONG, (7_000, *SHORT, 8_000)])
def test_features_are_those_of_the_windows_themselves(lengths: tuple[int, ...]) -> None:
    clips, encoder = clips_of(lengths), AudioNTT(8)
    encoder.log_mel.mean.fill_(-3)
    features_at = repeated_features(encoder, clips.lengths, WINDOW)
    for rows, windows, gains in batches(clips):
        assert_close(features_at(rows, windows, gains), encoder.features_at(windows, gains))


def test_a_window_that_comes_again_is_computed_once_and_others_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clips, calls = clips_of(SHORT + LONG), counted(monkeypatch)
    features_at, drawn = repeated_features(AudioNTT(8), clips.lengths, WINDOW), batches(clips)
    for batch in drawn:
        features_at(*batch)
    assert sum(calls) == len(SHORT) + 3 * 2 * len(LONG)


def test_features_are_the_same_bytes_whichever_batch_was_the_first() -> None:
    """A resumed training begins with another batch than the one that was killed."""
    clips, encoder = clips_of(SHORT + LONG), AudioNTT(8)
    whole, resumed = (repeated_features(encoder, clips.lengths, WINDOW) for _ in range(2))
    drawn = batches(clips)
    expected = [whole(*batch) for batch in drawn]
    for batch, features in zip(drawn[4:], expected[4:], strict=True):
        assert torch.equal(resumed(*batch), features)


def test_with_too_many_clips_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_windows, "KEPT_BYTES", 64 * 26 * 4 * len(SHORT) - 1)
    clips, calls = clips_of(SHORT), counted(monkeypatch)
    features_at, drawn = repeated_features(AudioNTT(8), clips.lengths, WINDOW), batches(clips)
    for batch in drawn:
        features_at(*batch)
    assert sum(calls) == sum(len(rows) for rows, *_ in drawn)


def test_an_encoder_with_features_of_its_own_is_asked_for_them() -> None:
    class Halved(AudioNTT):
        def features(self, waveforms: Tensor) -> Tensor:
            return super().features(waveforms) / 2

        def features_at(self, waveforms: Tensor, gains: Tensor, *lengths: Tensor) -> Tensor:
            return super().features_at(waveforms, gains, *lengths) / 2

    clips, encoder = clips_of(SHORT), Halved(8)
    features_at = repeated_features(encoder, clips.lengths, WINDOW)
    for rows, windows, gains in batches(clips):
        assert torch.equal(features_at(rows, windows, gains), encoder.features_at(windows, gains))
