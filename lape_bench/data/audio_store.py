"""Every clip of a data set once: decoded, resampled, in one memory-mapped file.

A store is a folder named by the clips it holds and their rate, so tasks and variants over the same
recordings share it. It appears whole or not at all.
"""

import hashlib
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from lape_bench.core.errors import UserError, explain_write_errors
from lape_bench.core.paths import home, staged_folder
from lape_bench.data import audio
from lape_bench.runtime import cpu_cores

STORE_RATE = 16_000  # decoded for at once, since nearly every encoder of the field wants it
SAMPLES, INDEX = "samples.f32", "index.npz"
WHOLE_SAMPLES = 2**22  # up to so many samples, a recording is decoded and resampled in memory
RESIDENT_BYTES = 2**30  # a selection up to this size is held in memory; a larger one is mapped


class Recording(NamedTuple):
    """A clip to decode.

    Attributes:
        clip_id: its name.
        path: its file.
        content: the hash it must have, where that is known.
        segment: start and length in seconds of the stretch to take; none: the whole file.
        shortest_seconds: what is shorter cannot be used.
    """

    clip_id: str
    path: Path
    content: str = ""
    segment: tuple[float, float] | None = None
    shortest_seconds: float = audio.SHORTEST_SECONDS

    def decode(self, checks: audio.ClipChecks) -> Iterator[audio.Samples]:
        """Decode it in blocks; see `audio.decode`."""
        return audio.decode(self.path, self.segment, self.shortest_seconds, checks)

    def content_hash(self) -> str:
        """Return the hash of its audio, decoded in blocks.

        Raises:
            AudioProblem: as `audio.decode` raises it.
        """
        checks, samples = _decode_once(self)
        if samples is not None:
            return audio.content_hash(samples, checks.rate)
        digest = audio.ContentHash(checks.samples, checks.rate)
        for block in self.decode(audio.ClipChecks()):
            digest.add(block)
        return digest.hexdigest()


class ClipFacts(NamedTuple):
    """What decoding a clip showed; `problem` is empty if the clip is usable."""

    seconds: float
    rate: int
    content: str
    problem: str


@dataclass(frozen=True)
class Clips:
    """Clips of one rate, back to back in one array.

    Attributes:
        ids: clip ids, one a clip; those of clips that a system is handed are numbers (see `numbered`).
        samples: all audio, shape (total samples,), float32; in memory or memory-mapped.
        starts: first sample of each clip, shape (clips,).
        lengths: samples of each clip, shape (clips,).
        rate: Hz.
        key: hash of ids, audio and rate, which names what is computed from them.
    """

    ids: tuple[str, ...]
    samples: NDArray[np.float32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    rate: int
    key: str

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """Return one clip's samples, shape (samples,)."""
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return self.samples[self.starts[index] : self.starts[index] + self.lengths[index]]

    def view(self, indices: Sequence[int] | NDArray[np.int64]) -> "Clips":
        """Return the clips at `indices`, in that order, over the same audio."""
        indices = np.asarray(indices, dtype=np.int64)
        ids = tuple(self.ids[index] for index in indices)
        starts, lengths = self.starts[indices], self.lengths[indices]
        return Clips(ids, self.samples, starts, lengths, self.rate, _hash(self.key, *ids))

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "Clips":
        """Return copies of the clips at `indices`, in that order, so that nothing of the others is held.

        Above `RESIDENT_BYTES` the copy is a memory-mapped file without a name, which goes with its last user.

        Raises:
            UserError: the disk of the cache is full.
        """
        chosen = self.view(indices)
        samples = _room(int(chosen.lengths.sum()))
        starts = np.cumsum(chosen.lengths) - chosen.lengths
        for index, start in enumerate(starts):
            samples[start : start + chosen.lengths[index]] = chosen[index]
        return Clips(chosen.ids, samples, starts, chosen.lengths, self.rate, chosen.key)

    def leveled(self, dbfs: float) -> "Clips":
        """Return copies of the clips, each scaled to one RMS; a silent clip stays as it is.

        Peaks may exceed 1: float32 samples are not clipped.

        Args:
            dbfs: RMS in decibels relative to full scale, so that 0 dB is an RMS of 1.

        Raises:
            UserError: as `select`.
        """
        copies = self.select(np.arange(len(self)))
        for index in range(len(copies)):
            waveform = copies[index]
            rms = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
            if rms > 0:
                waveform *= np.float32(10 ** (dbfs / 20) / rms)
        return replace(copies, key=_hash(copies.key, f"RMS of {dbfs} dBFS"))

    def numbered(self, numbers: Sequence[int] | NDArray[np.int64] | None = None) -> "Clips":
        """Return the same clips under numbers instead of names, which may tell a class, a speaker or a file.

        The key stays, so that what is computed from the clips is found again.

        Args:
            numbers: the new IDs, one for each clip; by default their positions.
        """
        numbers = range(len(self)) if numbers is None else numbers
        return replace(self, ids=tuple(str(number) for number in numbers))

    @classmethod
    def pack(cls, ids: Sequence[str], waveforms: Sequence[NDArray[np.float32]], rate: int) -> Self:
        """Build clips from waveforms of shape (samples,) that lie in memory."""
        lengths = np.array([len(waveform) for waveform in waveforms], np.int64)
        starts = np.cumsum(lengths) - lengths
        samples = np.concatenate(waveforms).astype(np.float32)
        key = _hash(str(rate), *ids, hashlib.sha256(samples.tobytes()).hexdigest())
        return cls(tuple(ids), samples, starts, lengths, rate, key)

    @classmethod
    def join(cls, names: Sequence[str], parts: Sequence["Clips"]) -> "Clips":
        """Copy clips of several origins into one, in that order; ids begin with their origin's name."""
        ids = tuple(
            f"{name}/{each}" for name, part in zip(names, parts, strict=True) for each in part.ids
        )
        lengths = np.concatenate([part.lengths for part in parts])
        starts = np.cumsum(lengths) - lengths
        samples = _room(int(lengths.sum()))
        waveforms = (part[index] for part in parts for index in range(len(part)))
        for start, waveform in zip(starts, waveforms, strict=True):
            samples[start : start + len(waveform)] = waveform
        key = _hash(*names, *(part.key for part in parts))
        return cls(ids, samples, starts, lengths, parts[0].rate, key)


def _room(count: int) -> NDArray[np.float32]:
    """Return a writable array for `count` samples, in memory or mapped."""
    if count * np.dtype(np.float32).itemsize <= RESIDENT_BYTES:
        return np.empty(count, np.float32)
    folder = home() / "store"
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with explain_write_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        # Reserved now: a full disk met later, while writing to the map, would kill the process.
        os.posix_fallocate(file.fileno(), 0, count * 4)
        return np.memmap(file, np.float32, mode="r+", shape=(count,))


def audio_key(clips: Sequence[tuple[str, str]]) -> str:
    """Return the key of a store that holds these clips, given as (id, content hash) in order of id."""
    return _hash(*(part for clip in clips for part in clip))


def key_of(recordings: Sequence[Recording], facts: Sequence[ClipFacts]) -> str:
    """Return the key of the store that `build` makes of recordings with these facts."""
    return audio_key(
        [
            (recording.clip_id, fact.content)
            for recording, fact in zip(recordings, facts, strict=True)
            if not fact.problem
        ]
    )


def build_store(
    recordings: Sequence[Recording],
    rate: int,
    on_clip: Callable[[], None] = lambda: None,
    accept: Callable[[list[ClipFacts]], None] = lambda facts: None,
) -> tuple[str, list[ClipFacts]]:
    """Decode recordings in parallel into a store at `rate` Hz.

    Args:
        recordings: the clips, with distinct ids.
        rate: the store's rate in Hz.
        on_clip: called after each clip.
        accept: sees the facts of all recordings before the store is kept, and may refuse by raising.

    Returns:
        The key of the usable clips' audio, for `open_store`, and the facts of every recording.

    Raises:
        UserError: the disk is full, or the cache cannot be written.
    """
    facts: list[ClipFacts] = []
    lengths: list[int] = []
    with staged_folder(home() / "store") as staging:
        with (staging.path / SAMPLES).open("wb") as file:
            for fact, decoded in _decode_in_order(recordings, rate, staging.path):
                facts.append(fact)
                if not fact.problem:
                    lengths.append(decoded.write(file))
                on_clip()
        accept(facts)
        key = key_of(recordings, facts)
        ids = [r.clip_id for r, fact in zip(recordings, facts, strict=True) if not fact.problem]
        np.savez(staging.path / INDEX, ids=np.array(ids), lengths=np.array(lengths, np.int64))
        staging.name = _folder(key, rate)
    return key, facts


def is_built(key: str, rate: int) -> bool:
    """Tell whether a store was built at this rate in Hz."""
    return (home() / "store" / _folder(key, rate)).is_dir()


def built_rates(key: str) -> list[int]:
    """Return the rates in Hz at which a store was built."""
    folders = (home() / "store").glob(_folder(key, 0).removesuffix("0") + "*")
    return sorted(int(folder.name.rpartition("-")[2]) for folder in folders)


def open_store(
    key: str,
    rate: int,
    recordings: Callable[[], Sequence[Recording]],
    on_clip: Callable[[], None] = lambda: None,
) -> Clips:
    """Map a store; where it is missing at this rate, decode the recordings again.

    Args:
        key: as `build` returned it.
        rate: Hz.
        recordings: gives the clips of the store, for a rate that was not asked for before.
        on_clip: called after each clip that is decoded.

    Raises:
        UserError: the recordings are needed and no longer hold the audio they were prepared with.
    """
    folder = home() / "store" / _folder(key, rate)
    if not is_built(key, rate):
        sources = recordings()
        build_store(sources, rate, on_clip, lambda facts: _refuse_changed(key, sources, facts))
    with np.load(folder / INDEX) as index:
        ids, lengths = index["ids"], index["lengths"]
    samples = np.memmap(folder / SAMPLES, np.float32, mode="r")
    starts = np.cumsum(lengths) - lengths
    return Clips(tuple(ids.tolist()), samples, starts, lengths, rate, _folder(key, rate))


def _refuse_changed(key: str, recordings: Sequence[Recording], facts: list[ClipFacts]) -> None:
    pairs = list(zip(recordings, facts, strict=True))
    if audio_key([(recording.clip_id, fact.content) for recording, fact in pairs]) == key:
        return
    changed = [
        f" ({recording.path}: {fact.problem or 'other audio'})"
        for recording, fact in pairs
        if fact.problem or (recording.content and fact.content != recording.content)
    ]
    raise UserError(
        "the recordings changed since they were prepared" + (changed or [""])[0],
        next_step="prepare the task again with 'bench data prepare'",
    )


def _decode_in_order(
    recordings: Sequence[Recording], rate: int, folder: Path
) -> Iterator[tuple[ClipFacts, "_Decoded"]]:
    # Threads suffice: libsndfile, soxr and hashlib let go of the interpreter while they work.
    with ThreadPoolExecutor(cpu_cores.available()) as pool:
        waiting: deque[Future[tuple[ClipFacts, _Decoded]]] = deque()
        try:
            for recording in recordings:
                waiting.append(pool.submit(_decode, recording, rate, folder))
                if len(waiting) > 64:  # bounds what lies in memory between decoding and writing
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@dataclass(frozen=True)
class _Decoded:
    """A clip at the store's rate: its samples, or a file of those of a long one."""

    samples: audio.Samples
    file: IO[bytes] | None = None

    def write(self, target: IO[bytes]) -> int:
        """Append the clip to a file, and return how many samples it has."""
        start = target.tell()
        if self.file is None:
            target.write(self.samples.data)
        else:
            with self.file:
                self.file.seek(0)
                shutil.copyfileobj(self.file, target, 2**20)
        return (target.tell() - start) // 4


def _decode_once(recording: Recording) -> tuple[audio.ClipChecks, audio.Samples | None]:
    """Decode a recording; its samples are None if they are too many to be held."""
    checks = audio.ClipChecks()
    blocks: list[audio.Samples] = []
    for block in recording.decode(checks):
        blocks.append(block)
        if checks.samples > WHOLE_SAMPLES:
            blocks.clear()
    if checks.samples > WHOLE_SAMPLES:
        return checks, None
    return checks, blocks[0] if len(blocks) == 1 else np.concatenate(blocks)


def _decode(recording: Recording, rate: int, folder: Path) -> tuple[ClipFacts, _Decoded]:
    try:
        checks, samples = _decode_once(recording)
        if samples is None:
            # Decoded once more, since the content hash begins with the number of samples.
            return _decode_long(recording, rate, folder, checks)
    except audio.AudioProblem as problem:
        return ClipFacts(0.0, 0, "", str(problem)), _Decoded(np.empty(0, np.float32))
    content = audio.content_hash(samples, checks.rate)
    facts = ClipFacts(len(samples) / checks.rate, checks.rate, content, "")
    return facts, _Decoded(np.ascontiguousarray(audio.resample(samples, checks.rate, rate)))


def _decode_long(
    recording: Recording, rate: int, folder: Path, checks: audio.ClipChecks
) -> tuple[ClipFacts, _Decoded]:
    """Decode a recording of known length into a file without a name, block by block."""
    digest = audio.ContentHash(checks.samples, checks.rate)

    def hashed() -> Iterator[audio.Samples]:
        for block in recording.decode(audio.ClipChecks()):
            digest.add(block)
            yield block

    file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed when it is copied, or collected
    for block in audio.resample_blocks(hashed(), checks.rate, rate):
        file.write(np.ascontiguousarray(block).data)
    facts = ClipFacts(checks.samples / checks.rate, checks.rate, digest.hexdigest(), "")
    return facts, _Decoded(np.empty(0, np.float32), file)


def _folder(key: str, rate: int) -> str:
    return f"{key[:32]}-{rate}"


def _hash(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()
