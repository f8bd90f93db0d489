"""Log-mels against the definition, one frame and one band at a time, in NumPy."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.testing import assert_close

from lape_bench.learning.encoders import log_mel
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.encoders.log_mel import LogMel, LogMelConfig, LogMelEncoder
from lape_bench.learning.encoders.multiscale_transformer import MultiscaleTransformer

SMALL = LogMelConfig(
    sample_rate=8_000,
    n_fft=256,
    hop_length=100,
    n_mels=20,
    fmin_hz=0.0,
    fmax_hz=3_500.0,
    log_offset=1e-3,
)


def noise(*shape: int, seed: int = 0, scale: float = 0.1) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mel_of(hz: float, scale: str) -> float:
    if scale == "htk":
        return 2595 * np.log10(1 + hz / 700)
    # Slaney: 15 mels at 1 kHz, linear below it, and above it 27 to a factor of 6.4.
    return 3 * hz / 200 if hz < 1_000 else 15 + 27 * np.log(hz / 1_000) / np.log(6.4)


def hz_of(mel: float, scale: str) -> float:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return 200 * mel / 3 if mel < 15 else 1_000 * 6.4 ** ((mel - 15) / 27)


def triangle(config: LogMelConfig, band: int, hz: float) -> float:
    """Weight of a frequency in a band: triangles of height 1 (HTK), or of area 1 over Hz (Slaney)."""
    scale = config.mel_scale
    low, high = mel_of(config.fmin_hz, scale), mel_of(config.fmax_hz, scale)
    step = (high - low) / (config.n_mels + 1)
    left, center, right = (hz_of(low + (band + k) * step, scale) for k in range(3))
    height = 1 if scale == "htk" else 2 / (right - left)
    return height * max(0.0, min((hz - left) / (center - left), (right - hz) / (right - center)))


def slow_log_mel(waveform: NDArray[np.float64], config: LogMelConfig) -> NDArray[np.float64]:
    n = config.n_fft
    hann = np.array([0.5 - 0.5 * np.cos(2 * np.pi * k / n) for k in range(n)])
    bins = [k * config.sample_rate / n for k in range(n // 2 + 1)]
    bank = np.array([[triangle(config, band, hz) for hz in bins] for band in range(config.n_mels)])
    padded = np.pad(waveform, n // 2, mode="reflect")
    columns = []
    for frame in range(1 + len(waveform) // config.hop_length):
        begin = frame * config.hop_length
        power = np.abs(np.fft.rfft(padded[begin : begin + n] * hann)) ** 2
        columns.append(np.log(bank @ power + config.log_offset))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize(
    ("config", "samples"),
    [
        (LogMelConfig(), 4_000),
        (LogMelConfig(), 1_600),
        (LogMelConfig(mel_scale="slaney", log_offset=1e-7), 1_600),
        (SMALL, 999),
        (SMALL, 129),
    ],
)
def test_log_mel_agrees_with_numpy_one_frame_and_band_at_a_time(
    config: LogMelConfig, samples: int
) -> None:
    waveforms = noise(2, samples)
    expected = np.stack([slow_log_mel(row.double().numpy(), config) for row in waveforms])
    assert_close(
        LogMel(config)(waveforms).double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("samples", [1, 60, 128])
def test_a_clip_too_short_to_be_reflected_is_filled_up_with_silence(samples: int) -> None:
    waveforms = noise(2, samples)
    missing = 129 - samples  # half a window and a sample are needed
    sides = (missing // 2, missing - missing // 2)
    expected = [slow_log_mel(np.pad(row.double().numpy(), sides), SMALL) for row in waveforms]
    assert_close(
        LogMel(SMALL)(waveforms).double(),
        torch.from_numpy(np.stack(expected)),
        rtol=1e-4,
        atol=1e-3,
    )


def test_log_mels_at_several_levels_are_those_of_scaled_waveforms() -> None:
    waveforms, front_end = noise(3, 4_000), LogMel()
    front_end.fit([waveforms])
    gains = torch.tensor([[1.0, 0.1, 3.0], [0.5, 1.0, 20.0]])
    at_once = front_end(waveforms, gains)
    assert at_once.shape == (6, 64, 26)
    for level, by_level in zip(gains, at_once.chunk(2), strict=True):
        assert_close(by_level, front_end(level[:, None] * waveforms), rtol=1e-4, atol=1e-4)


def test_a_batch_is_computed_in_parts_and_comes_out_as_it_would_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waveforms, front_end = noise(7, 4_000), LogMel()
    monkeypatch.setattr(log_mel, "AT_ONCE", 2 * 4_000)
    in_parts = front_end(waveforms)
    monkeypatch.setattr(log_mel, "AT_ONCE", 1 << 30)
    assert_close(in_parts, front_end(waveforms), rtol=1e-5, atol=1e-5)


def test_the_default_front_end_is_the_published_one() -> None:
    assert LogMelConfig().model_dump() == {
        "sample_rate": 16_000,
        "n_fft": 1024,
        "hop_length": 160,
        "n_mels": 64,
        "fmin_hz": 60.0,
        "fmax_hz": 7_800.0,
        "mel_scale": "htk",
        "log_offset": 1e-6,
    }


@pytest.mark.parametrize(("samples", "frames"), [(16_000, 101), (16_159, 101), (16_160, 102)])
def test_a_frame_starts_every_ten_milliseconds_and_one_more_ends_the_clip(
    samples: int, frames: int
) -> None:
    assert LogMel()(noise(3, samples)).shape == (3, 64, frames)


def test_silence_is_the_logarithm_of_the_floor_in_every_band() -> None:
    assert_close(LogMel()(torch.zeros(1, 1_600)), torch.full((1, 64, 11), float(np.log(1e-6))))


def test_a_clip_does_not_depend_on_the_clips_beside_it() -> None:
    waveforms = noise(3, 2_000)
    waveforms[1] *= 100
    assert_close(LogMel()(waveforms)[2:], LogMel()(waveforms[2:]))


def test_after_fit_the_train_clips_have_mean_zero_and_deviation_one() -> None:
    batches = [noise(4, 3_000), noise(1, 1_700, seed=1, scale=0.5)]
    log_mel = LogMel()
    log_mel.fit(batches)
    values = np.concatenate([log_mel(batch).double().numpy().ravel() for batch in batches])
    assert values.mean() == pytest.approx(0, abs=1e-5)
    assert values.std() == pytest.approx(1, abs=1e-5)


def test_statistics_are_those_of_all_values_of_all_frames_and_bands() -> None:
    batches = [noise(2, 3_000), noise(1, 1_700, seed=1, scale=0.5)]
    values = np.concatenate(
        [slow_log_mel(row.double().numpy(), SMALL).ravel() for batch in batches for row in batch]
    )
    log_mel = LogMel(SMALL)
    log_mel.fit(batches)
    assert float(log_mel.mean) == pytest.approx(values.mean(), rel=1e-4)
    assert float(log_mel.std) == pytest.approx(values.std(), rel=1e-4)


def test_statistics_do_not_depend_on_how_clips_are_batched_nor_on_an_earlier_fit() -> None:
    waveforms = noise(6, 2_000)
    together, apart = LogMel(), LogMel()
    together.fit([waveforms])
    apart.fit([100 * waveforms])
    apart.fit(iter(waveforms.split([1, 3, 2])))
    assert_close(together.mean, apart.mean)
    assert_close(together.std, apart.std)


def test_silent_train_clips_leave_finite_log_mels() -> None:
    log_mel = LogMel()
    log_mel.fit([torch.zeros(2, 2_000)])
    assert torch.isfinite(log_mel(torch.zeros(1, 2_000))).all()


def test_statistics_travel_with_the_state_dict() -> None:
    fitted, fresh = LogMel(), LogMel()
    fitted.fit([noise(4, 3_000)])
    waveforms = noise(2, 2_000, seed=1)
    assert not torch.allclose(fresh(waveforms), fitted(waveforms))
    fresh.load_state_dict(fitted.state_dict())
    assert torch.equal(fresh(waveforms), fitted(waveforms))


def test_log_mels_and_statistics_stay_in_float32_under_bf16_autocast() -> None:
    waveforms = noise(4, 3_000)
    plain, cast = LogMel(), LogMel()
    plain.fit([waveforms])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast.fit([waveforms])
        log_mels = cast(waveforms)
        assert (waveforms[:, :8] @ waveforms[:, :8].T).dtype == torch.bfloat16
    assert log_mels.dtype == torch.float32
    assert torch.equal(cast.mean, plain.mean)
    assert torch.equal(cast.std, plain.std)
    assert torch.equal(log_mels, plain(waveforms))


@pytest.mark.parametrize("encoder", [AudioNTT(8), MultiscaleTransformer()])
def test_features_at_several_levels_are_those_of_scaled_waveforms(encoder: LogMelEncoder) -> None:
    waveforms = torch.randn(3, 8_000, generator=torch.Generator().manual_seed(0))
    gains = torch.tensor([[1.0, 0.2, 3.0], [0.5, 1.0, 2.0]])
    found = encoder.features_at(waveforms, gains)
    assert_close(found, Encoder.features_at(encoder, waveforms, gains), rtol=1e-4, atol=1e-4)
    for level, rows in zip(gains, found.chunk(2), strict=True):
        assert_close(rows, encoder.features(level[:, None] * waveforms), rtol=1e-4, atol=1e-4)
