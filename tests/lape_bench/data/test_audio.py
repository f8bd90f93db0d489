from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from lape_bench.data.audio import AudioProblem, content_hash, read, resample, resample_blocks

HZ = 440.0
AMPLITUDE = 0.5


def sine(seconds: float, rate: int, hz: float = HZ) -> NDArray[np.float64]:
    return AMPLITUDE * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def amplitude_at(hz: float, samples: NDArray[np.float32], rate: int) -> float:
    """How much of one frequency is heard in the middle half, by its Fourier integral."""
    quarter = len(samples) // 4
    middle = samples[quarter : 3 * quarter].astype(np.float64)
    wave = np.hanning(len(middle)) * np.exp(-2j * np.pi * hz * np.arange(len(middle)) / rate)
    return float(2 * abs(middle @ wave) / np.hanning(len(middle)).sum())


def noise(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.1, count).astype(np.float32)


def refusal(path: Path) -> str:
    with pytest.raises(AudioProblem) as caught:
        read(path)
    reason = str(caught.value)
    assert "\n" not in reason
    assert path.name not in reason, "whoever lists the clip names the file"
    return reason


@pytest.mark.parametrize(
    ("name", "rate", "subtype", "step"),
    [
        ("clip.wav", 8_000, "PCM_16", 2.0**-15),
        ("clip.flac", 16_000, "PCM_16", 2.0**-15),
        ("clip.WAV", 16_000, "PCM_24", 2.0**-23),
        ("clip.wav", 22_050, "FLOAT", 2.0**-24),
    ],
)
def test_a_lossless_file_gives_its_samples_at_its_own_rate(
    name: str, rate: int, subtype: str, step: float, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / name, sine(0.5, rate), rate, subtype=subtype)
    samples, own_rate = read(tmp_path / name)
    assert own_rate == rate
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, sine(0.5, rate), rtol=0, atol=step)


@pytest.mark.parametrize(
    ("name", "rate"), [("clip.ogg", 44_100), ("clip.mp3", 44_100), ("clip.opus", 48_000)]
)
def test_a_lossy_file_keeps_length_pitch_and_level(name: str, rate: int, tmp_path: Path) -> None:
    how = {"format": "OGG", "subtype": "OPUS"} if name.endswith(".opus") else {}
    soundfile.write(tmp_path / name, sine(1.0, rate), rate, **how)
    samples, own_rate = read(tmp_path / name)
    assert (own_rate, samples.shape) == (rate, (rate,))
    assert amplitude_at(HZ, samples, rate) == pytest.approx(AMPLITUDE, rel=0.03)
    assert amplitude_at(3 * HZ, samples, rate) < 0.01


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = noise(1600, seed=1), noise(1600, seed=2)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 8000, subtype="FLOAT")
    samples, _ = read(tmp_path / "a.wav")
    np.testing.assert_allclose(samples, [(a + b) / 2 for a, b in zip(left, right, strict=True)])


def test_channels_that_cancel_each_other_are_silent(tmp_path: Path) -> None:
    both = np.stack([noise(1600), -noise(1600)], axis=1)
    soundfile.write(tmp_path / "a.wav", both, 8000, subtype="FLOAT")
    assert "silent" in refusal(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("rate", "target"), [(8_000, 16_000), (44_100, 16_000), (16_000, 8_000), (22_050, 44_100)]
)
def test_a_resampled_sine_is_the_sine_sampled_at_the_other_rate(rate: int, target: int) -> None:
    resampled = resample(sine(1.0, rate).astype(np.float32), rate, target)
    assert resampled.shape == (target,)
    assert resampled.dtype == np.float32
    inner = slice(target // 10, -target // 10)  # at both ends the filter sees the silence around
    np.testing.assert_allclose(resampled[inner], sine(1.0, target)[inner], atol=1e-3)


def test_resampling_removes_what_the_lower_rate_cannot_hold() -> None:
    mixed = sine(1.0, 44_100) + sine(1.0, 44_100, hz=6_000)
    resampled = resample(mixed.astype(np.float32), 44_100, 8_000)
    assert amplitude_at(HZ, resampled, 8_000) == pytest.approx(AMPLITUDE, rel=1e-3)
    assert amplitude_at(8_000 - 6_000, resampled, 8_000) < 1e-3, "6 kHz folds to 2 kHz"


@pytest.mark.parametrize(("rate", "target"), [(44_100, 16_000), (8_000, 11_025), (16_000, 16_000)])
@pytest.mark.parametrize("block", [997, 65_536])
def test_blocks_are_resampled_to_the_same_samples_as_the_whole(
    rate: int, target: int, block: int
) -> None:
    samples = noise(200_001)
    blocks = (samples[start : start + block] for start in range(0, len(samples), block))
    in_blocks = np.concatenate(list(resample_blocks(blocks, rate, target)))
    np.testing.assert_array_equal(in_blocks, resample(samples, rate, target))


def test_samples_at_the_asked_rate_are_left_alone() -> None:
    samples = noise(800)
    np.testing.assert_array_equal(resample(samples.copy(), 8_000, 8_000), samples)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
def test_wav_and_flac_of_one_recording_have_one_content_hash(subtype: str, tmp_path: Path) -> None:
    whole_numbers = np.random.default_rng(0).integers(-(2**30), 2**30, 1600, np.int32)
    for name in ("a.wav", "a.flac"):
        # Whole numbers, since libsndfile rounds fractions for the two formats in two ways.
        soundfile.write(tmp_path / name, whole_numbers, 8000, subtype=subtype)
    assert content_hash(*read(tmp_path / "a.wav")) == content_hash(*read(tmp_path / "a.flac"))


def test_the_content_hash_tells_samples_order_length_and_rate_apart() -> None:
    samples = noise(1600)
    changed = samples.copy()
    changed[800] += 2.0**-15
    others = [(changed, 8000), (samples[::-1], 8000), (samples[:-1], 8000), (samples, 16000)]
    hashes = {content_hash(samples, 8000), *(content_hash(*other) for other in others)}
    assert len(hashes) == 1 + len(others)


def test_the_content_hash_takes_both_zeros_for_one() -> None:
    plus = np.array([0.5, 0.0], np.float32)
    minus = np.array([0.5, -0.0], np.float32)
    assert content_hash(plus, 8000) == content_hash(minus, 8000)


def test_the_shortest_and_quietest_clip_that_is_allowed_is_read(tmp_path: Path) -> None:
    samples = np.zeros(800, np.int16)  # 0.1 s
    samples[400] = -1  # one step of 16-bit audio
    soundfile.write(tmp_path / "a.wav", samples, 8000)
    assert np.abs(read(tmp_path / "a.wav")[0]).sum() == 2.0**-15


@pytest.mark.parametrize("kept", [0.99, 0.6, 0.3])
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("clip.wav", {"subtype": "PCM_16"}),
        ("clip.wav", {"subtype": "PCM_24"}),
        ("clip.flac", {}),
        ("clip.ogg", {}),
        ("clip.mp3", {}),
    ],
    ids=["wav", "wav24", "flac", "ogg", "mp3"],
)
def test_a_file_cut_off_while_it_was_copied_is_refused_as_truncated(
    name: str, how: dict[str, str], kept: float, tmp_path: Path
) -> None:
    path = tmp_path / name
    # Long enough that the headers of every format lie in the first third.
    soundfile.write(path, noise(48_000), 16_000, **how)
    whole = path.read_bytes()
    path.write_bytes(whole[: round(kept * len(whole))])
    assert "truncated" in refusal(path)


def test_a_wav_that_ends_after_its_header_is_refused_as_truncated(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1600), 8000)
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:44])
    assert "truncated" in refusal(tmp_path / "a.wav")


def test_an_ogg_that_lacks_only_its_last_page_is_refused_as_truncated(tmp_path: Path) -> None:
    path = tmp_path / "a.ogg"
    soundfile.write(path, noise(160_000), 16_000)
    whole = path.read_bytes()
    assert whole.count(b"OggS") > 4
    path.write_bytes(whole[: whole.rindex(b"OggS")])  # every page that is there is whole
    assert "truncated" in refusal(path)


@pytest.mark.parametrize(("subtype", "step"), [("PCM_16", 2.0**-15), ("PCM_24", 2.0**-23)])
def test_a_flac_that_does_not_say_its_length_is_read_whole(
    subtype: str, step: float, tmp_path: Path
) -> None:
    """What an encoder writes into a pipe, where it cannot go back to note the length."""
    path = tmp_path / "a.flac"
    soundfile.write(path, noise(16_000), 16_000, subtype=subtype)
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # total samples: the low 36 bits that end at byte 26; 0 means unknown
    content[22:26] = bytes(4)
    path.write_bytes(content)
    samples, _ = read(path)
    np.testing.assert_allclose(samples, noise(16_000), atol=step)


def with_one(value: float) -> NDArray[np.float32]:
    samples = noise(1600)
    samples[700] = value
    return samples


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(1600, np.float32), "silent"),
        (np.full(1600, 2.0**-16, np.float32), "silent"),
        (with_one(np.nan), "NaN"),
        (with_one(np.inf), "infinite"),
        (noise(400), r"too short: 0.050 s, at least 0.1 s"),
    ],
    ids=["zeros", "below one step", "NaN", "infinite", "0.05 s"],
)
def test_samples_that_are_no_clip_are_refused_with_the_reason(
    samples: NDArray[np.float32], reason: str, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    assert reason in refusal(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (lambda path: path.touch(), "empty file (0 bytes)"),
        (lambda path: path.write_text("file,class\na.wav,yes\n" * 9), "text"),
        (lambda path: path.write_text("نعم، هذا نص\n" * 9, encoding="utf-8"), "text"),
        (lambda path: None, "No such file"),
        (lambda path: path.symlink_to("gone.wav"), "No such file"),
        (lambda path: path.mkdir(), ""),
    ],
    ids=["zero bytes", "CSV", "Arabic text", "missing", "broken link", "a folder"],
)
def test_what_is_no_audio_file_is_refused_with_the_reason(
    place: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.wav"
    place(path)
    assert reason in refusal(path)


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes_are_refused_as_unreadable_and_not_called_text(
    seed: int, tmp_path: Path
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(np.random.default_rng(seed).bytes(4000))
    reason = refusal(path)
    assert "not readable as audio" in reason
    assert "text" not in reason


@pytest.mark.parametrize("suffix", ["wav", "flac", "aiff", "au", "ogg"])
def test_a_stretch_is_the_same_as_of_the_whole_and_no_more_of_it_is_decoded(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rate = tmp_path / f"long.{suffix}", 16_000
    stereo = 0.1 * np.random.default_rng(0).standard_normal((20 * rate, 2))
    soundfile.write(path, stereo, rate)
    whole, _ = read(path)
    frames, decode = 0, soundfile.SoundFile.read

    def counting(file: soundfile.SoundFile, *arguments: Any, **named: Any) -> Any:
        nonlocal frames
        block = decode(file, *arguments, **named)
        frames += len(block)
        return block

    monkeypatch.setattr(soundfile.SoundFile, "read", counting)
    stretch, _ = read(path, (7.25, 1.5))
    assert np.array_equal(stretch, whole[116_000:140_000])
    assert frames == (2**18 if suffix == "ogg" else 24_000), "of Ogg, the blocks up to its end"
    with pytest.raises(AudioProblem, match=r"ends at 20\.000 s, before the part to read"):
        read(path, (19.0, 1.5))
    if suffix == "flac":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(AudioProblem, match="truncated"):
            read(path, (15.0, 1.0))
