import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from lape_bench.core import folder_checksums
from lape_bench.core.errors import UserError
from lape_bench.core.folder_checksums import remember_compared
from lape_bench.data import audio, audio_store, stored_samples
from lape_bench.data import recording as decoding
from lape_bench.data.audio_store import Clips, build_store, find_store_damage, open_store
from lape_bench.data.decoding import mono
from lape_bench.data.recording import ClipFacts, Recording

WriteClip = Callable[..., Path]


@pytest.fixture
def recordings(tmp_path: Path, write_clip: WriteClip) -> list[Recording]:
    """Three clips of other contents, lengths and rates."""
    how = [(0.3, 8000), (0.5, 16_000), (0.2, 44_100)]
    return [
        Recording(f"clip-{seed}", write_clip(tmp_path / "audio" / f"{seed}.wav", seed, *each))
        for seed, each in enumerate(how)
    ]


def no_recordings() -> list[Recording]:
    raise AssertionError("the store is there, so no recording is needed")


def opened(recordings: list[Recording], rate: int = 16_000) -> Clips:
    key, _ = build_store(recordings, rate)
    return open_store(key, rate, no_recordings)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def temporary_below(folder: Path) -> list[Path]:
    return list(folder.rglob(".part-*"))


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_store_holds_each_sine_as_it_sounds_at_the_stores_rate(tmp_path: Path) -> None:
    def sine(hz: float, rate: int) -> NDArray[np.float64]:
        return 0.5 * np.sin(2 * np.pi * hz * np.arange(rate // 2) / rate)

    rates = {300.0: 8000, 500.0: 44_100, 700.0: 16_000}
    recordings = []
    for hz, rate in rates.items():
        path = tmp_path / f"{hz}.wav"
        soundfile.write(path, sine(hz, rate), rate, subtype="FLOAT")
        recordings.append(Recording(f"{hz} Hz", path))
    clips = opened(recordings)
    assert (clips.ids, clips.rate) == (("300.0 Hz", "500.0 Hz", "700.0 Hz"), 16_000)
    for index, hz in enumerate(rates):
        assert clips[index].shape == (8000,)
        np.testing.assert_allclose(clips[index][800:-800], sine(hz, 16_000)[800:-800], atol=1e-3)


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
@pytest.mark.parametrize("samples", [1, 1_000, 40_000])
def test_16_bit_audio_at_the_stores_rate_takes_16_bits_and_comes_back_to_the_byte(
    kind: str, samples: int, tmp_path: Path, cache: Path
) -> None:
    path = tmp_path / f"clip.{kind.lower()}"
    integers = np.random.default_rng(0).integers(-32_768, 32_768, samples, np.int16)
    integers[0] = -32_768
    soundfile.write(path, integers, 16_000, format=kind, subtype="PCM_16")
    clips = opened([Recording("clip", path, shortest_seconds=0.0)])
    assert isinstance(clips.samples, np.memmap)
    assert clips.samples.tobytes() == integers.tobytes()
    assert clips[0].tobytes() == (integers / np.float32(32_768)).tobytes()
    assert clips[0].dtype == np.float32
    [file] = cache.glob("store/*/samples.*")
    assert file.stat().st_size == 2 * samples


def other_audio(folder: Path) -> list[Recording]:
    """Recordings whose samples at 16 kHz are not those of 16-bit audio: resampled, mixed, of 24 bits, and lossy."""
    noise = np.random.default_rng(0).normal(0, 0.1, (6_000, 2)).astype(np.float32)
    how = {
        "rate.wav": (noise[:, 0], 22_050, "PCM_16"),
        "mix.wav": (noise, 16_000, "PCM_16"),
        "bits.flac": (noise[:, 0], 16_000, "PCM_24"),
        "lossy.ogg": (noise[:, 0], 16_000, "VORBIS"),
    }
    for name, (samples, rate, subtype) in how.items():
        soundfile.write(folder / name, samples, rate, subtype=subtype)
    return [Recording(name, folder / name) for name in how]


@pytest.mark.parametrize("index", range(4))
def test_other_audio_is_not_rounded_nor_are_the_clips_beside_it(
    index: int, tmp_path: Path, recordings: list[Recording]
) -> None:
    other, exact = other_audio(tmp_path)[index], recordings[1]
    samples, rate = audio.read(other.path)
    expected = audio.resample(samples, rate, 16_000), audio.read(exact.path)[0]
    for order in ((0, 1), (1, 0)):
        clips = opened([(other, exact)[place] for place in order])
        assert clips.samples.dtype == np.float32
        for position, place in enumerate(order):
            assert clips[position].tobytes() == expected[place].tobytes()


def test_a_store_in_float32_is_the_same_audio_with_the_same_key(
    recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = opened(recordings[1:2])
    assert narrow.samples.dtype == np.int16
    shutil.rmtree(audio_store.home() / "store")
    monkeypatch.setenv("LAPE_BENCH_STORE", "float32")
    opened(recordings[1:2])
    monkeypatch.delenv("LAPE_BENCH_STORE")
    wide = opened(recordings[1:2])
    assert wide.samples.dtype == np.float32
    assert (wide.key, wide.ids, wide[0].tobytes()) == (narrow.key, narrow.ids, narrow[0].tobytes())


def test_a_store_with_a_second_file_of_samples_is_damaged(
    recordings: list[Recording], cache: Path
) -> None:
    key, _ = build_store(recordings, 16_000)
    file = next(cache.glob("store/*/samples.f32"))
    file.with_suffix(".i16").write_bytes(bytes(4))
    assert "samples.i16 is new" in find_store_damage(key, 16_000)


def test_many_clips_decoded_in_parallel_keep_their_order(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    written = [random.normal(0, 0.1, random.integers(800, 900)) for _ in range(150)]
    recordings = []
    for index, samples in enumerate(written):
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, samples.astype(np.float32), 8000, subtype="FLOAT")
        recordings.append(Recording(str(index), path))
    clips = opened(recordings, 8000)
    assert clips.ids == tuple(str(index) for index in range(150))
    for index, samples in enumerate(written):
        np.testing.assert_array_equal(clips[index], samples.astype(np.float32))
    assert clips.lengths.sum() == sum(len(samples) for samples in written)


def test_facts_are_of_the_files_and_not_of_the_store(recordings: list[Recording]) -> None:
    _, facts = build_store(recordings, 16_000)
    assert [(fact.seconds, fact.rate) for fact in facts] == [
        (0.3, 8000),
        (0.5, 16_000),
        (0.2, 44_100),
    ]
    assert len({fact.content for fact in facts}) == 3


def test_bad_clips_are_told_and_left_out(recordings: list[Recording]) -> None:
    recordings[1].path.write_text("no audio")
    key, facts = build_store(recordings, 16_000)
    assert ["text" in fact.problem for fact in facts] == [False, True, False]
    clips = open_store(key, 16_000, no_recordings)
    assert clips.ids == ("clip-0", "clip-2")
    assert clips.lengths.tolist() == [4800, 3200]


def test_the_same_clips_have_the_same_key_wherever_they_lie(
    recordings: list[Recording], tmp_path: Path
) -> None:
    moved = []
    for recording in recordings:
        path = tmp_path / "elsewhere" / recording.path.with_suffix(".flac").name
        path.parent.mkdir(exist_ok=True)
        samples, rate = soundfile.read(recording.path, dtype="int16")
        soundfile.write(path, samples, rate)
        moved.append(Recording(recording.clip_id, path))
    assert (
        build_store(moved, 16_000)[0]
        == build_store(recordings, 16_000)[0]
        == build_store(moved, 8000)[0]
    )


@pytest.mark.parametrize("change", ["id", "content", "one more", "one less"])
def test_other_clips_have_another_key(
    change: str, recordings: list[Recording], write_clip: WriteClip, tmp_path: Path
) -> None:
    key, _ = build_store(recordings, 16_000)
    if change == "id":
        recordings[0] = recordings[0]._replace(clip_id="other")
    elif change == "content":
        write_clip(recordings[0].path, seed=9)
    elif change == "one more":
        recordings.append(Recording("more", write_clip(tmp_path / "more.wav", seed=9)))
    else:
        recordings.pop()
    assert build_store(recordings, 16_000)[0] != key


def test_building_twice_keeps_one_store(recordings: list[Recording], cache: Path) -> None:
    build_store(recordings, 16_000)
    kept = {path: path.stat().st_mtime_ns for path in files_below(cache)}
    build_store(recordings, 16_000)
    assert {path: path.stat().st_mtime_ns for path in files_below(cache)} == kept


def test_another_rate_is_built_when_it_is_first_asked_for(recordings: list[Recording]) -> None:
    key, _ = build_store(recordings, 16_000)
    clips = open_store(key, 8000, lambda: recordings)
    assert clips.rate == 8000
    assert clips.lengths.tolist() == [2400, 4000, 1600]
    np.testing.assert_array_equal(open_store(key, 8000, no_recordings).samples, clips.samples)
    assert clips.key != open_store(key, 16_000, no_recordings).key


@pytest.mark.parametrize("position", [0, 2])
def test_changed_recordings_are_refused_and_the_changed_one_is_named(
    position: int, recordings: list[Recording], write_clip: WriteClip
) -> None:
    key, facts = build_store(recordings, 16_000)
    known = [r._replace(content=f.content) for r, f in zip(recordings, facts, strict=True)]
    write_clip(recordings[position].path, seed=9)
    with pytest.raises(UserError, match="recordings changed since they were prepared") as caught:
        open_store(key, 8000, lambda: known)
    said = one_line(caught)
    assert "bench data prepare" in said
    named = [str(recording.path) in said for recording in recordings]
    assert named == [index == position for index in range(len(recordings))]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_text("no audio")])
def test_a_recording_that_is_gone_or_broken_is_named(
    harm: Callable[[Path], object], recordings: list[Recording]
) -> None:
    key, _ = build_store(recordings, 16_000)
    harm(recordings[2].path)
    with pytest.raises(UserError) as caught:
        open_store(key, 8000, lambda: recordings)
    assert str(recordings[2].path) in one_line(caught)


def test_a_view_holds_the_chosen_clips_in_the_asked_order_over_the_same_audio(
    recordings: list[Recording],
) -> None:
    clips = opened(recordings)
    view = clips.view([2, 0])
    assert view.ids == ("clip-2", "clip-0")
    np.testing.assert_array_equal(view[0], clips[2])
    np.testing.assert_array_equal(view[1], clips[0])
    assert np.shares_memory(view.samples, clips.samples)


def test_a_selection_that_fits_holds_no_audio_of_other_clips(recordings: list[Recording]) -> None:
    clips = opened(recordings)
    chosen = clips.select([2, 0])
    assert not np.shares_memory(chosen.samples, clips.samples)
    np.testing.assert_array_equal(chosen.samples, np.concatenate([clips[2], clips[0]]))
    np.testing.assert_array_equal(chosen[1], clips[0])


def test_a_selection_that_does_not_fit_in_memory_is_a_mapped_copy_without_a_name(
    recordings: list[Recording], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    clips = opened(recordings)
    bytes_of_two = 4 * (len(clips[0]) + len(clips[2]))
    monkeypatch.setattr(audio_store, "RESIDENT_BYTES", bytes_of_two)
    files = sorted(cache.rglob("*"))
    assert not isinstance(clips.select([2, 0]).samples, np.memmap)
    monkeypatch.setattr(audio_store, "RESIDENT_BYTES", bytes_of_two - 1)
    mapped = clips.select([2, 0])
    assert isinstance(mapped.samples, np.memmap)
    assert not np.shares_memory(mapped.samples, clips.samples)
    assert len(mapped.samples) == len(clips[0]) + len(clips[2])
    np.testing.assert_array_equal(mapped[0], clips[2])
    np.testing.assert_array_equal(mapped[1], clips[0])
    assert sorted(cache.rglob("*")) == files


def test_clips_are_mapped_on_systems_that_cannot_reserve_space_in_one_call(
    recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = opened(recordings)
    monkeypatch.setattr(audio_store, "RESIDENT_BYTES", 0)
    monkeypatch.setattr(audio_store, "ZEROS_AT_ONCE", 1_000)
    monkeypatch.delattr(os, "posix_fallocate")
    mapped = clips.select([2, 0])
    assert isinstance(mapped.samples, np.memmap)
    np.testing.assert_array_equal(mapped[0], clips[2])
    np.testing.assert_array_equal(mapped[1], clips[0])


def narrow(name: str, *lengths: int) -> Clips:
    """Clips in 16 bits of so many samples."""
    clips = packed(name, *lengths)
    integers = np.arange(-32_768, len(clips.samples) - 32_768).astype(np.int16)
    return replace(clips, samples=integers, key=f"narrow {name}")


def test_copies_keep_16_bits_unless_they_join_others(monkeypatch: pytest.MonkeyPatch) -> None:
    clips, other = narrow("a", 3, 1, 4), packed("b", 2)
    assert clips.select([2, 0]).samples.dtype == np.int16
    assert clips.select([2, 0])[0].tobytes() == clips[2].tobytes()
    assert Clips.join(["x", "y"], [clips, narrow("c", 2)]).samples.dtype == np.int16
    joined = Clips.join(["x", "y"], [clips, other])
    assert joined.samples.dtype == np.float32
    for index in range(4):
        expected = clips[index] if index < 3 else other[0]
        assert joined[index].tobytes() == expected.tobytes()
    monkeypatch.setattr(audio_store, "RESIDENT_BYTES", 2 * 8 - 1)
    mapped = clips.select([0, 1, 2])
    assert isinstance(mapped.samples, np.memmap)
    assert mapped.samples.tobytes() == clips.samples.tobytes()


def test_leveled_clips_are_the_same_from_either_kind_of_samples() -> None:
    clips = narrow("a", 300, 10)
    wide = replace(clips, samples=stored_samples.unpack(clips.samples))
    assert clips.leveled(-20).samples.tobytes() == wide.leveled(-20).samples.tobytes()
    assert clips.leveled(-20).key == wide.leveled(-20).key


def test_the_key_names_the_chosen_clips_and_their_order_but_not_how_they_are_held(
    recordings: list[Recording],
) -> None:
    clips = opened(recordings)
    assert clips.select([0, 2]).key == clips.view([0, 2]).key == clips.view(np.array([0, 2])).key
    assert len({clips.key, *(clips.view(each).key for each in ([0], [2], [0, 2], [2, 0]))}) == 5


def test_packed_clips_give_back_their_waveforms() -> None:
    waveforms = [np.full(length, length, np.float32) for length in (3, 1, 2)]
    clips = Clips.pack(["a", "b", "c"], waveforms, 10)
    assert (len(clips), clips.ids, clips.rate) == (3, ("a", "b", "c"), 10)
    for index, waveform in enumerate(waveforms):
        np.testing.assert_array_equal(clips[index], waveform)


def test_the_key_of_packed_clips_tells_ids_audio_and_rate_apart() -> None:
    wave, other = np.ones(3, np.float32), np.zeros(3, np.float32)
    packed = [(["a"], [wave], 10), (["b"], [wave], 10), (["a"], [other], 10), (["a"], [wave], 20)]
    assert len({Clips.pack(*each).key for each in packed}) == len(packed)
    assert Clips.pack(["a"], [wave], 10).key == Clips.pack(["a"], [wave.copy()], 10).key
    divided = [[np.ones(n, np.float32), np.ones(4 - n, np.float32)] for n in (1, 2)]
    assert len({Clips.pack(["a", "b"], waves, 10).key for waves in divided}) == 2


def packed(name: str, *lengths: int) -> Clips:
    """Clips of so many samples, each of a value of its own."""
    waveforms = [np.full(length, ord(name) + length, np.float32) for length in lengths]
    return Clips.pack([f"{index}" for index in range(len(lengths))], waveforms, 10)


def test_joined_clips_keep_their_audio_and_are_named_by_their_origin() -> None:
    parts = [packed("a", 3, 1).view([1, 0]), packed("b", 2)]
    joined = Clips.join(["x", "folder/y", "z"], [*parts[:2], parts[0].view([])])
    assert joined.ids == ("x/1", "x/0", "folder/y/0")
    assert joined.rate == 10
    expected = [parts[0][0], parts[0][1], parts[1][0]]
    for index, waveform in enumerate(expected):
        np.testing.assert_array_equal(joined[index], waveform)
    np.testing.assert_array_equal(joined.samples, np.concatenate(expected))
    assert not any(np.shares_memory(joined.samples, part.samples) for part in parts[:2])


def test_the_key_of_joined_clips_tells_names_parts_and_order_apart() -> None:
    a, b, c = packed("a", 2), packed("b", 2), packed("c", 2)
    joined = [
        (["x", "y"], [a, b]),
        (["y", "x"], [a, b]),
        (["x", "y"], [b, a]),
        (["x", "y"], [a, c]),
    ]
    assert len({Clips.join(*each).key for each in joined} | {a.key, b.key}) == len(joined) + 2
    assert Clips.join(["x", "y"], [a, b]).key == Clips.join(["x", "y"], [a, b]).key


def test_joined_clips_that_do_not_fit_in_memory_are_mapped(
    monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(audio_store, "RESIDENT_BYTES", 4 * 5 - 1)
    assert not isinstance(
        Clips.join(["x", "y"], [packed("a", 2), packed("b", 2)]).samples, np.memmap
    )
    joined = Clips.join(["x", "y"], [packed("a", 2), packed("b", 3)])
    assert isinstance(joined.samples, np.memmap)
    assert joined.samples.tolist() == [99.0, 99.0, 101.0, 101.0, 101.0]
    assert not files_below(cache)


@pytest.mark.parametrize("index", [2, -1])
def test_an_index_outside_the_clips_is_refused(index: int) -> None:
    clips = Clips.pack(["a", "b"], [np.ones(3, np.float32)] * 2, 10)
    with pytest.raises(IndexError, match=f"clip {index} of 2"):
        clips[index]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_said_and_leaves_nothing_behind(
    recordings: list[Recording], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Joined to a folder it stays what it is.
    monkeypatch.setattr(stored_samples, "FLOAT32_FILE", "/dev/full")
    with pytest.raises(UserError, match=r"disk that holds .* is full") as caught:
        build_store(recordings, 16_000)
    said = one_line(caught)
    assert str(cache) in said
    assert "LAPE_BENCH_HOME" in said
    assert not files_below(cache)
    assert not temporary_below(cache)


def test_a_cache_that_cannot_be_written_is_said(
    recordings: list[Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="cannot be written") as caught:
        build_store(recordings, 16_000)
    said = one_line(caught)
    assert str(tmp_path / "file") in said
    assert "LAPE_BENCH_HOME" in said


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_build_that_is_interrupted_leaves_nothing_half(
    stop: type[BaseException], recordings: list[Recording], cache: Path
) -> None:
    done = []

    def on_clip() -> None:
        done.append(1)
        if len(done) == 2:
            raise stop

    with pytest.raises(stop):
        build_store(recordings, 16_000, on_clip)
    assert not files_below(cache)
    assert not temporary_below(cache)
    assert opened(recordings).ids == ("clip-0", "clip-1", "clip-2")


def test_what_is_not_accepted_is_not_kept(recordings: list[Recording], cache: Path) -> None:
    seen: list[ClipFacts] = []

    def accept(facts: list[ClipFacts]) -> None:
        seen.extend(facts)
        raise UserError("not these")

    with pytest.raises(UserError, match="not these"):
        build_store(recordings, 16_000, accept=accept)
    assert len(seen) == 3
    assert not files_below(cache)


def test_a_recording_that_is_decoded_in_blocks_makes_the_same_store(
    recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings.append(recordings[1]._replace(clip_id="stretch", segment=(0.1, 0.25)))
    key, facts = build_store(recordings, 11_025)
    whole = np.array(open_store(key, 11_025, no_recordings).samples)
    monkeypatch.setattr(decoding, "WHOLE_SAMPLES", 1000)
    monkeypatch.setattr(mono, "BLOCK_FRAMES", 777)
    assert build_store(recordings, 11_025) == (key, facts)
    shutil.rmtree(audio_store.home() / "store")
    clips = open_store(key, 11_025, lambda: recordings)
    np.testing.assert_array_equal(clips.samples, whole)
    assert [recording.content_hash() for recording in recordings] == [
        fact.content for fact in facts
    ]


def test_a_long_recording_that_is_bad_at_its_end_is_left_out(
    recordings: list[Recording], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setattr(decoding, "WHOLE_SAMPLES", 1000)
    monkeypatch.setattr(mono, "BLOCK_FRAMES", 777)
    samples, rate = soundfile.read(recordings[1].path, dtype="float32")
    samples[-1] = np.nan
    soundfile.write(recordings[1].path, samples, rate, subtype="FLOAT")
    key, facts = build_store(recordings, 16_000)
    assert ["NaN" in fact.problem for fact in facts] == [False, True, False]
    assert open_store(key, 16_000, no_recordings).ids == ("clip-0", "clip-2")
    assert not temporary_below(cache)


def test_leveled_clips_have_one_rms_and_silence_stays_silent() -> None:
    random = np.random.default_rng(0)
    quiet, loud = (gain * random.normal(size=1000).astype(np.float32) for gain in (1e-4, 0.9))
    click = np.zeros(10_000, np.float32)
    click[5] = 0.5
    waveforms = [quiet, np.zeros(7, np.float32), loud, click]
    clips = Clips.pack(["quiet", "silent", "loud", "click"], waveforms, 16_000)
    leveled = clips.leveled(-20)
    for index, original in enumerate(waveforms):
        found = leveled[index]
        if not original.any():
            np.testing.assert_array_equal(found, original)
            continue
        assert np.sqrt(np.mean(found.astype(np.float64) ** 2)) == pytest.approx(0.1, rel=1e-5)
        np.testing.assert_allclose(
            found / found[original.argmax()], original / original.max(), atol=1e-6
        )
        np.testing.assert_array_equal(clips[index], original, "the original is left alone")
    assert leveled[3].max() == pytest.approx(10, rel=1e-5), "above full scale, and not clipped"
    assert (leveled.ids, leveled.rate) == (clips.ids, clips.rate)
    assert len({clips.key, leveled.key, clips.leveled(-26).key}) == 3
    assert leveled.key == clips.leveled(-20).key


# --- damage -----------------------------------------------------------------------------------------------


def overwrite(path: Path, start: float, content: bytes) -> None:
    """Write bytes at a place of a file, as a part of it."""
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * start))
        file.write(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: overwrite(folder / "samples.f32", 0.5, bytes(1000)),
        lambda folder: overwrite(folder / "samples.f32", 0.99, b"x"),
        lambda folder: os.truncate(folder / "samples.f32", 4000),
        lambda folder: (folder / "samples.f32").write_bytes(b""),
        lambda folder: (folder / "samples.f32").unlink(),
        lambda folder: overwrite(folder / "index.npz", 0.5, b"x"),
        lambda folder: (folder / "index.npz").unlink(),
        lambda folder: overwrite(folder / ".checksums.json", 0.5, b"x"),
        lambda folder: [path.unlink() for path in folder.iterdir()],
    ],
    ids=[
        "zeros", "a byte", "cut off", "empty", "lost", "index", "no index", "checksums", "all files"
    ],
)  # fmt: skip
def test_a_damaged_store_is_decoded_again_with_a_word(
    damage: Callable[[Path], object],
    recordings: list[Recording],
    cache: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key, _ = build_store(recordings, 16_000)
    whole = open_store(key, 16_000, no_recordings)
    expected = whole.ids, whole.lengths.tolist(), whole.samples.tobytes()
    damage(next((cache / "store").glob("*-16000")))
    again = open_store(key, 16_000, lambda: recordings)
    assert (again.ids, again.lengths.tolist(), again.samples.tobytes()) == expected
    assert "decoding again, since the cache is damaged" in caplog.text
    caplog.clear()
    open_store(key, 16_000, no_recordings)
    assert not caplog.text
    assert not temporary_below(cache)


def test_building_a_damaged_store_again_replaces_it(
    recordings: list[Recording], cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key, _ = build_store(recordings, 16_000)
    whole = open_store(key, 16_000, no_recordings).samples.tobytes()
    overwrite(next((cache / "store").glob("*-16000")) / "samples.f32", 0.5, b"x")
    assert build_store(recordings, 16_000)[0] == key
    assert "is replaced" in caplog.text
    assert open_store(key, 16_000, no_recordings).samples.tobytes() == whole


def test_damage_that_left_no_trace_on_the_disk_is_found_in_full(
    recordings: list[Recording], cache: Path
) -> None:
    key, _ = build_store(recordings, 16_000)
    folder = next((cache / "store").glob("*-16000"))
    overwrite(folder / "samples.f32", 0.5, b"x")
    remember_compared(folder, intact=True)  # as if a disk had changed it
    assert "damaged" in find_store_damage(key, 16_000, in_full=True)
    open_store(key, 16_000, lambda: recordings)
    assert find_store_damage(key, 16_000, in_full=True) == ""


def test_opening_reads_no_more_than_a_few_blocks(
    recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_checksums, "BLOCK", 100)
    key, _ = build_store(recordings, 16_000)
    read = []
    crc32 = folder_checksums.zlib.crc32
    monkeypatch.setattr(
        folder_checksums.zlib, "crc32", lambda data: read.append(data) or crc32(data)
    )
    clips = open_store(key, 16_000, no_recordings)
    assert 4 * len(clips.samples) > 100 * 100
    assert sum(map(len, read)) <= 3 * folder_checksums.SPOT_CHECKS * 100


PEAK = """
import resource, sys
from pathlib import Path
from lape_bench.data.audio_store import build_store
from lape_bench.data.recording import Recording
segments = [(90.0 * n, 90.0) for n in range(int(sys.argv[2]))]
recordings = [Recording(f"part {n}", Path(sys.argv[1]), segment=s) for n, s in enumerate(segments)]
_, facts = build_store([Recording("all", Path(sys.argv[1])), *recordings], 16_000)
assert not any(fact.problem for fact in facts)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.slow
def test_a_recording_of_four_times_the_length_takes_no_more_memory(tmp_path: Path) -> None:
    # Held whole, the longer one would take 95 MB more.
    noise = np.random.default_rng(0).normal(0, 0.1, (90 * 44_100, 2)).astype(np.float32)
    peaks = []
    for count in (2, 8):
        path = tmp_path / f"{count}.wav"
        with soundfile.SoundFile(path, "w", 44_100, 2, "PCM_16") as file:
            for number in range(count):
                file.write(np.roll(noise, 1_000 * number, axis=0))
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(path), str(count)],
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"LAPE_BENCH_HOME": str(tmp_path / "home")},
        )
        peaks.append(float(done.stdout))
    assert peaks[1] < peaks[0] + 60
