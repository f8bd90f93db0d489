"""Audio is read whole, or refused with the reason; never read in part."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from lape_bench.data.audio import AudioProblem, FileContent, read, seconds_of
from tests.lape_bench.data.decoding.encoders import (
    by_ffmpeg,
    by_libsndfile,
    ogg_pages,
    tone,
    with_sizes,
    without_tag_frame,
)

SECONDS = 1.0
RATE = 16_000
PADDING = 0.15  # seconds that a lossy codec may add

LIBSNDFILE = [
    ("WAV", "PCM_16"), ("WAV", "GSM610"), ("WAV", "MS_ADPCM"), ("WAV", "IMA_ADPCM"), ("WAV", "ULAW"),
    ("RF64", "PCM_16"), ("RF64", "FLOAT"), ("W64", "PCM_24"), ("W64", "IMA_ADPCM"),
    ("AIFF", "PCM_16"), ("AIFF", "IMA_ADPCM"), ("AU", "PCM_16"), ("AU", "G721_32"), ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip
FFMPEG = [
    ("mp4", "aac", RATE), ("mp4", "alac", RATE), ("adts", "aac", RATE), ("webm", "libopus", 48_000),
    ("matroska", "pcm_s16le", RATE), ("ogg", "flac", RATE), ("mp3", "libmp3lame", RATE), ("ogg", "libopus", 48_000),
]  # fmt: skip


def encoded(how: tuple[str, str] | tuple[str, str, int]) -> tuple[bytes, int]:
    """Return a recording of `SECONDS` and its rate."""
    if len(how) == 2:
        return by_libsndfile(tone(SECONDS), *how), RATE
    container, codec, rate = how
    return by_ffmpeg(tone(SECONDS, rate), container, codec, rate), rate


def every_container(test: Callable[..., None]) -> Callable[..., None]:
    hows = [*LIBSNDFILE, *FFMPEG]
    return pytest.mark.parametrize("how", hows, ids=["-".join(map(str, how)) for how in hows])(test)


def seconds(path: Path, segment: tuple[float, float] | None = None) -> float:
    samples, rate = read(path, segment)
    assert 0.15 < np.abs(samples).max() < 0.4, "no noise of wrongly decoded bytes"
    return len(samples) / rate


def refusal(path: Path) -> str:
    with pytest.raises(AudioProblem) as caught:
        read(path)
    return str(caught.value)


@every_container
def test_a_whole_file_is_read_whole_and_its_pitch_is_heard(
    how: tuple[str, str], tmp_path: Path
) -> None:
    content, rate = encoded(how)
    (tmp_path / "a").write_bytes(content)
    samples, own_rate = read(tmp_path / "a")
    assert own_rate == rate
    assert SECONDS - 0.001 <= len(samples) / rate <= SECONDS + PADDING
    assert seconds_of(tmp_path / "a") == pytest.approx(len(samples) / rate)
    middle = samples[rate // 4 : rate // 4 + rate // 2] * np.hanning(rate // 2)
    assert np.abs(np.fft.rfft(middle)).argmax() == 440 / 2


@every_container
def test_recordings_that_were_concatenated_are_all_read(
    how: tuple[str, str], tmp_path: Path
) -> None:
    content, _ = encoded(how)
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(content * 3)
    assert seconds(tmp_path / "b") == pytest.approx(3 * seconds(tmp_path / "a"), abs=1e-6)


@every_container
def test_a_file_in_memory_gives_the_samples_of_the_file_on_disk(
    how: tuple[str, str], tmp_path: Path
) -> None:
    content, _ = encoded(how)
    for copies in (1, 2):
        (tmp_path / "a").write_bytes(content * copies)
        on_disk, in_memory = read(tmp_path / "a"), read(FileContent("a", content * copies))
        assert in_memory[1] == on_disk[1]
        assert np.array_equal(in_memory[0], on_disk[0])


@every_container
@pytest.mark.parametrize("kept", [0.97, 0.5])
def test_a_file_that_is_cut_off_is_refused(
    how: tuple[str, str], kept: float, tmp_path: Path
) -> None:
    content, _ = encoded(how)
    (tmp_path / "a").write_bytes(content[: round(kept * len(content))])
    assert "truncated" in refusal(tmp_path / "a")


@every_container
def test_a_stretch_is_the_same_as_of_the_whole(how: tuple[str, str], tmp_path: Path) -> None:
    content, rate = encoded(how)
    (tmp_path / "a").write_bytes(content)
    whole, _ = read(tmp_path / "a")
    stretch, _ = read(tmp_path / "a", (0.3, 0.4))
    start = round(0.3 * rate)
    np.testing.assert_array_equal(stretch, whole[start : start + round(0.4 * rate)])
    with pytest.raises(AudioProblem, match="before the part to read"):
        read(tmp_path / "a", (0.9, 0.5))


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "ULAW", "GSM610", "IMA_ADPCM"])
@pytest.mark.parametrize(
    ("data", "riff"),
    [(2**32 - 1, 2**32 - 1), (0, 0), (0, 36), (0x7FFFF000, 0x7FFFF024), (2**31, 2**31 + 36)],
    ids=["ffmpeg", "zero", "wave", "sox", "2 GB"],
)
def test_a_wav_that_was_written_to_a_pipe_gives_the_samples_of_the_file(
    subtype: str, data: int, riff: int, tmp_path: Path
) -> None:
    wav = by_libsndfile(tone(SECONDS), "WAV", subtype)
    (tmp_path / "file").write_bytes(wav)
    # Notes behind the audio cannot be told from it without its size; a pipe has none.
    end = wav.index(b"data") + 8 + struct.unpack_from("<I", wav, wav.index(b"data") + 4)[0]
    (tmp_path / "pipe").write_bytes(with_sizes(wav[:end], data, riff))
    from_file, from_pipe = read(tmp_path / "file")[0], read(tmp_path / "pipe")[0]
    assert len(from_pipe) == pytest.approx(len(from_file), abs=1024)
    count = min(len(from_file), len(from_pipe))
    atol = 0.0 if subtype.startswith(("PCM", "FLOAT")) else 2.0**-10
    np.testing.assert_allclose(from_pipe[:count], from_file[:count], rtol=0, atol=atol)


def test_a_wav_whose_header_stopped_counting_is_refused(tmp_path: Path) -> None:
    wav = by_libsndfile(tone(SECONDS), "WAV", "PCM_16")
    (tmp_path / "a").write_bytes(with_sizes(wav, 4_000, 4_036))
    assert "holds more than its header says" in refusal(tmp_path / "a")


def test_an_empty_wav_with_notes_is_too_short_and_not_taken_for_a_pipes(tmp_path: Path) -> None:
    notes = b"LIST" + struct.pack("<I", 1004) + b"INFO" + bytes(1000)
    wav = by_libsndfile(np.zeros(0, np.float32), "WAV", "PCM_16")
    (tmp_path / "a").write_bytes(wav[: wav.index(b"data") + 4] + bytes(4) + notes)
    assert "too short" in refusal(tmp_path / "a")


def test_an_aiff_that_was_written_to_a_pipe_is_refused_with_the_reason(tmp_path: Path) -> None:
    aiff = by_libsndfile(tone(SECONDS), "AIFF", "PCM_16")
    place = aiff.index(b"SSND") + 4
    (tmp_path / "a").write_bytes(aiff[:place] + bytes(4) + aiff[place + 4 :])
    assert "does not say how long it is" in refusal(tmp_path / "a")


def noisy_and_still(rate: int = 44_100) -> NDArray[np.float32]:
    """Return a recording whose bit rate varies."""
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * rate).astype(np.float32)
    return np.concatenate([noise, 0.01 * noise, tone(4, rate)])


@pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("tagged", [False, True])
def test_an_mp3_is_read_whole_without_the_frame_that_tells_its_length(
    mode: str, copies: int, tagged: bool, tmp_path: Path
) -> None:
    samples = noisy_and_still()
    path = tmp_path / "a.mp3"
    soundfile.write(path, samples, 44_100, bitrate_mode=mode, compression_level=0.4)
    mp3 = without_tag_frame(path.read_bytes())
    notes = b"ID3\x03\x00\x00\x00\x00\x01\x00" + bytes(128)
    path.write_bytes(((notes if tagged else b"") + mp3 + (b"TAG" + bytes(125)) * tagged) * copies)
    read_samples, _ = read(path)
    assert len(read_samples) == pytest.approx(copies * len(samples), rel=0.01)
    path.write_bytes(mp3[:-10])
    assert "truncated" in refusal(path)


def test_bytes_between_the_frames_of_an_mp3_are_refused(tmp_path: Path) -> None:
    mp3 = by_libsndfile(tone(20), "MP3", "MPEG_LAYER_III")
    junk = np.random.default_rng(0).bytes(5_000)
    (tmp_path / "a.mp3").write_bytes(mp3[:10_000] + junk + mp3[10_000:])
    assert "damaged" in refusal(tmp_path / "a.mp3")


def test_an_ogg_with_missing_pages_is_refused(tmp_path: Path) -> None:
    pages = ogg_pages(by_libsndfile(tone(30), "OGG", "VORBIS"))
    (tmp_path / "a.ogg").write_bytes(b"".join(pages[:5] + pages[6:]))
    assert "1 Ogg pages are missing" in refusal(tmp_path / "a.ogg")


def test_a_chain_of_which_one_stream_was_cut_off_is_refused(tmp_path: Path) -> None:
    ogg = by_libsndfile(tone(3), "OGG", "VORBIS")
    (tmp_path / "a.ogg").write_bytes(b"".join(ogg_pages(ogg)[:-1]) + ogg)
    assert "truncated" in refusal(tmp_path / "a.ogg")


def test_a_chain_of_two_rates_is_refused(tmp_path: Path) -> None:
    ogg = by_libsndfile(tone(1), "OGG", "VORBIS")
    (tmp_path / "a.ogg").write_bytes(ogg + by_libsndfile(tone(1, 8_000), "OGG", "VORBIS", 8_000))
    assert "changes from 16,000 to 8,000 Hz" in refusal(tmp_path / "a.ogg")


def test_a_file_of_two_audio_tracks_is_refused(tmp_path: Path) -> None:
    content = by_ffmpeg(tone(1), "matroska", "pcm_s16le", tracks=2)
    (tmp_path / "a.mka").write_bytes(content)
    assert "2 audio tracks" in refusal(tmp_path / "a.mka")


@pytest.mark.parametrize("scale", [32_767.0, 2.0**31, 1e9, 40.0])
@pytest.mark.parametrize(("container", "subtype"), [("WAV", "FLOAT"), ("AIFF", "DOUBLE")])
def test_floats_that_are_not_scaled_to_one_are_refused(
    scale: float, container: str, subtype: str, tmp_path: Path
) -> None:
    content = by_libsndfile(scale * tone(1), container, subtype)
    (tmp_path / "a").write_bytes(content)
    assert "times full scale" in refusal(tmp_path / "a")


def test_floats_a_little_above_full_scale_are_taken(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(by_libsndfile(5 * tone(1), "WAV", "FLOAT"))
    assert np.abs(read(tmp_path / "a")[0]).max() > 1


@pytest.mark.parametrize("rate", [1, 1_999, 768_001, 4_000_000])
def test_a_rate_at_which_nothing_is_recorded_is_refused(rate: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(by_libsndfile(tone(1), "WAV", "PCM_16", rate))
    assert "allowed: 2,000 to 768,000 Hz" in refusal(tmp_path / "a")


def test_a_named_pipe_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    (tmp_path / "b.wav").mkdir()
    assert refusal(tmp_path / "a.wav") == "not a file but a named pipe"
    assert refusal(tmp_path / "b.wav") == "not a file but a folder"
    assert seconds_of(tmp_path / "a.wav") == 0


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_an_ogg_with_a_damaged_page_is_refused(codec: str, tmp_path: Path) -> None:
    ogg = bytearray(by_libsndfile(tone(6.0), "OGG", codec))
    ogg[len(ogg) // 2] ^= 16
    (tmp_path / "a.ogg").write_bytes(ogg)
    assert "damaged: the checksum of the Ogg page at byte" in refusal(tmp_path / "a.ogg")


def test_an_ogg_of_two_tracks_at_once_is_refused(tmp_path: Path) -> None:
    streams = [ogg_pages(by_libsndfile(tone(SECONDS, seed=n), "OGG", "VORBIS")) for n in (0, 1)]
    first, second = streams
    # Both streams begin before either goes on, as RFC 3533 says.
    (tmp_path / "a.ogg").write_bytes(b"".join([first[0], second[0], *first[1:], *second[1:]]))
    assert "2 audio tracks" in refusal(tmp_path / "a.ogg")


@pytest.mark.parametrize("start", [b".snd", b"dns."])
def test_an_au_of_zeros_is_refused_at_once(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(start + bytes(2_000))
    assert "damaged" in refusal(tmp_path / "a.wav")


def test_a_nist_file_is_read_whole_or_refused(tmp_path: Path) -> None:
    sphere, path = by_libsndfile(tone(SECONDS), "NIST", "PCM_16"), tmp_path / "a.wav"
    path.write_bytes(sphere)
    assert seconds(path) == SECONDS
    path.write_bytes(sphere + sphere)
    assert seconds(path) == 2 * SECONDS
    path.write_bytes(sphere[: len(sphere) // 2])
    assert "truncated" in refusal(path)
    path.write_bytes(sphere.replace(b"sample_count -i 16000", b"sample_count -i 08000"))
    assert "goes on at byte" in refusal(path)
    path.write_bytes(sphere.replace(b"-s3 pcm", b"-s26 pcm,embedded-shorten-v2.00"))
    assert "sph2pipe" in refusal(path)
    path.write_bytes(sphere.replace(b"sample_count", b"sample_mount"))
    assert "does not say how much audio" in refusal(path)


@pytest.mark.parametrize("container", ["VOC", "PAF", "IRCAM", "PVF", "AVR", "MAT5", "SVX"])
def test_a_format_whose_length_cannot_be_checked_is_refused(container: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(by_libsndfile(tone(SECONDS), container, "PCM_16"))
    assert "convert it to WAV or FLAC" in refusal(tmp_path / "a.wav")
