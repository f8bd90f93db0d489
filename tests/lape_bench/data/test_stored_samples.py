"""Sixteen bits give back the same bytes, or the samples stay float32."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from lape_bench.core.errors import UserError
from lape_bench.core.folder_checksums import find_damage, write_checksums
from lape_bench.data import stored_samples
from lape_bench.data.stored_samples import SampleFile, StoredSamples, map_samples, pack, unpack

shapes = arrays.array_shapes(max_dims=1, min_side=0, max_side=40)
sixteen_bits = arrays.arrays(np.int16, shapes)
any_floats = arrays.arrays(np.float32, shapes, elements=st.floats(width=32))
blocks = st.lists(st.one_of(sixteen_bits, any_floats), max_size=5)


def as_float32(integers: NDArray[np.int16]) -> NDArray[np.float32]:
    """The float32 samples of 16-bit audio, by division."""
    return (integers.astype(np.float64) / 32_768).astype(np.float32)


def written(folder: Path, clips: list[StoredSamples]) -> SampleFile:
    folder.mkdir()
    with SampleFile(folder) as file:
        for samples in clips:
            file.write(samples)
    return file


@given(sixteen_bits)
@example(np.zeros(0, np.int16))
@example(np.zeros(3, np.int16))
@example(np.array([-32_768, 32_767, -1, 0, 1], np.int16))
def test_sixteen_bit_audio_comes_back_to_the_byte(integers: NDArray[np.int16]) -> None:
    samples = as_float32(integers)
    packed = pack(samples)
    assert packed.dtype == np.int16
    assert packed.tobytes() == integers.tobytes()
    assert unpack(packed).dtype == np.float32
    assert unpack(packed).tobytes() == samples.tobytes()


@given(any_floats)
@example(np.array([1.0], np.float32))
@example(np.array([-0.0], np.float32))
@example(np.array([np.nan, np.inf, -np.inf, 3e38], np.float32))
def test_any_samples_come_back_to_the_byte(samples: NDArray[np.float32]) -> None:
    assert unpack(pack(samples)).tobytes() == samples.tobytes()


@pytest.mark.parametrize("sample", [2.0**-16, 0.1, 1.0, -1.001, 300.0, -0.0, np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 1_023, 1_024, 4_999])
def test_one_sample_that_16_bits_cannot_hold_keeps_a_clip_in_float32(
    sample: float, place: int
) -> None:
    samples = as_float32(np.arange(5_000, dtype=np.int16))
    assert pack(samples).dtype == np.int16
    samples[place] = sample
    assert pack(samples) is samples


@pytest.mark.parametrize("channels", [2, 3])
def test_a_mix_of_channels_is_packed_if_it_is_a_16_bit_sample(channels: int) -> None:
    integers = np.random.default_rng(0).integers(-32_768, 32_768, (100, channels), np.int16)
    mixed = as_float32(integers).mean(axis=1)
    assert pack(mixed).dtype == np.float32
    alike = np.repeat(integers[:, :1], channels, axis=1)
    assert pack(as_float32(alike[:, :2]).mean(axis=1)).tobytes() == integers[:, 0].tobytes()


@given(clips=blocks)
def test_a_file_holds_the_clips_in_16_bits_until_one_needs_more(
    clips: list[StoredSamples], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("store") / "store"
    file = written(folder, clips)
    expected = np.concatenate([np.zeros(0, np.float32), *map(unpack, clips)])
    is_narrow = all(samples.dtype == np.int16 for samples in clips)
    assert [path.name for path in folder.iterdir()] == [
        "samples.i16" if is_narrow else "samples.f32"
    ]
    found = map_samples(folder)
    assert found.dtype == (np.int16 if is_narrow else np.float32)
    assert unpack(found).tobytes() == expected.tobytes()
    assert file.n_samples == len(expected)
    write_checksums(folder, file.checksums())
    assert find_damage(folder) == ""


def test_a_long_file_is_widened_block_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_samples, "BLOCK", 7)
    integers, fraction = np.arange(100, dtype=np.int16), np.array([0.3], np.float32)
    written(tmp_path / "store", [integers, integers, fraction, integers])
    narrow = as_float32(integers)
    expected = np.concatenate([narrow, narrow, fraction, narrow])
    np.testing.assert_array_equal(map_samples(tmp_path / "store"), expected)


def test_samples_are_mapped_and_read_only(tmp_path: Path) -> None:
    for name, samples in (("narrow", np.ones(3, np.int16)), ("wide", np.full(3, 0.1, np.float32))):
        written(tmp_path / name, [samples])
        found = map_samples(tmp_path / name)
        assert isinstance(found, np.memmap)
        assert not found.flags.writeable


def test_float32_may_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPE_BENCH_STORE", "float32")
    integers = np.array([-32_768, 0, 7], np.int16)
    written(tmp_path / "store", [integers])
    found = map_samples(tmp_path / "store")
    assert found.dtype == np.float32
    assert found.tobytes() == as_float32(integers).tobytes()


def test_another_choice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAPE_BENCH_STORE", "int16")
    with pytest.raises(UserError, match=r"LAPE_BENCH_STORE is 'int16'; allowed: auto.*float32"):
        SampleFile(tmp_path)
