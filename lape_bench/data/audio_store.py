"""The decoded and resampled clips of a data set, in one memory-mapped file.

The folder of a store is named by a hash of its clips and their rate, so tasks and variants with the same recordings
share it. It is written whole or not at all. Its checksums are compared when it is opened.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from lape_bench.core.errors import UserError, explain_write_errors
from lape_bench.core.folder_checksums import find_damage, remember_compared, write_checksums
from lape_bench.core.locks import locked
from lape_bench.core.paths import discard_folder, home, staged_folder
from lape_bench.data.decoded_before import DecodedBefore, FileList, note_store, store_name
from lape_bench.data.recording import ClipFacts, Recording, decode_in_order
from lape_bench.data.stored_samples import SampleFile, StoredSamples, map_samples, unpack
from lape_bench.runtime import cpu_cores

logger = logging.getLogger(__name__)

STORE_RATE = 16_000  # the rate at which `prepare` decodes, since nearly every encoder uses it
INDEX = "index.npz"
ZEROS_AT_ONCE = 2**20  # bytes
RESIDENT_BYTES = (
    2**30
)  # a selection up to this size is held in memory; a larger one is memory-mapped


@dataclass(frozen=True)
class Clips:
    """Clips with one sample rate, one after the other in one array.

    Attributes:
        ids: one ID per clip; systems get numbers instead of names (see `numbered`).
        samples: all audio, shape (total samples,), in memory or memory-mapped. It is float32, or int16 if that loses
            nothing; see `stored_samples.unpack`.
        starts: first sample of each clip, shape (clips,).
        lengths: samples of each clip, shape (clips,).
        rate: Hz.
        key: hash of IDs, audio and rate; artifacts that are computed from the clips are identified by it.
    """

    ids: tuple[str, ...]
    samples: StoredSamples
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    rate: int
    key: str

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """Return one clip's samples, shape (samples,), float32."""
        return unpack(self._stored(index))

    def _stored(self, index: int) -> StoredSamples:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        return self.samples[self.starts[index] : self.starts[index] + self.lengths[index]]

    def view(self, indices: Sequence[int] | NDArray[np.int64]) -> "Clips":
        """Return the clips at `indices`, in that order, without copying audio."""
        indices = np.asarray(indices, dtype=np.int64)
        ids = tuple(self.ids[index] for index in indices)
        starts, lengths = self.starts[indices], self.lengths[indices]
        return Clips(ids, self.samples, starts, lengths, self.rate, _hash(self.key, *ids))

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> "Clips":
        """Return copies of the clips at `indices`, in that order, which hold no audio of other clips.

        Above `RESIDENT_BYTES` the copy is a memory-mapped file without a name, which is deleted after its last use.

        Raises:
            UserError: the disk of the cache is full.
        """
        chosen = self.view(indices)
        waveforms = (chosen._stored(index) for index in range(len(chosen)))
        samples, starts = _copy(waveforms, chosen.lengths, self.samples.dtype)
        return Clips(chosen.ids, samples, starts, chosen.lengths, self.rate, chosen.key)

    def leveled(self, dbfs: float) -> "Clips":
        """Return copies of the clips, each scaled to the same RMS. Silent clips stay silent.

        Peaks may exceed 1: float32 samples are not clipped.

        Args:
            dbfs: RMS in decibels relative to full scale, so that 0 dB is an RMS of 1.

        Raises:
            UserError: as `select`.
        """

        def scaled(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
            rms = np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))
            return waveform * np.float32(10 ** (dbfs / 20) / rms) if rms > 0 else waveform

        leveled = (scaled(self[index]) for index in range(len(self)))
        samples, starts = _copy(leveled, self.lengths, np.dtype(np.float32))
        key = _hash(self.view(range(len(self))).key, f"RMS of {dbfs} dBFS")
        return replace(self, samples=samples, starts=starts, key=key)

    def numbered(self, numbers: Sequence[int] | NDArray[np.int64] | None = None) -> "Clips":
        """Return the same clips with numbers as IDs, since names may reveal a class, a speaker or a file.

        The key stays the same, so that artifacts computed from the clips are found again.

        Args:
            numbers: the new IDs, one for each clip; by default their positions.
        """
        numbers = range(len(self)) if numbers is None else numbers
        return replace(self, ids=tuple(str(number) for number in numbers))

    @classmethod
    def pack(cls, ids: Sequence[str], waveforms: Sequence[NDArray[np.float32]], rate: int) -> Self:
        """Build clips from waveforms of shape (samples,) in memory."""
        lengths = np.array([len(waveform) for waveform in waveforms], np.int64)
        starts = np.cumsum(lengths) - lengths
        samples = np.concatenate(waveforms).astype(np.float32)
        audio = hashlib.sha256(lengths.tobytes() + samples.tobytes()).hexdigest()
        key = _hash(str(rate), *ids, audio)
        return cls(tuple(ids), samples, starts, lengths, rate, key)

    @classmethod
    def join(cls, names: Sequence[str], parts: Sequence["Clips"]) -> "Clips":
        """Copy clips from several sources into one `Clips`, in that order. Each ID starts with the name of its
        source.
        """
        ids = tuple(
            f"{name}/{each}" for name, part in zip(names, parts, strict=True) for each in part.ids
        )
        lengths = np.concatenate([part.lengths for part in parts])
        kind = np.result_type(*(part.samples.dtype for part in parts))  # float32 if one part is
        waveform = cls._stored if kind == np.int16 else cls.__getitem__
        waveforms = (waveform(part, index) for part in parts for index in range(len(part)))
        samples, starts = _copy(waveforms, lengths, kind)
        key = _hash(*names, *(part.key for part in parts))
        return cls(ids, samples, starts, lengths, parts[0].rate, key)


def _copy(
    waveforms: Iterable[StoredSamples], lengths: NDArray[np.int64], kind: np.dtype[Any]
) -> tuple[StoredSamples, NDArray[np.int64]]:
    """Copy waveforms of known lengths into one array of a kind of samples, and return it with their starts."""
    starts = np.cumsum(lengths) - lengths
    samples = _room(int(lengths.sum()), kind)
    for start, waveform in zip(starts, waveforms, strict=True):
        samples[start : start + len(waveform)] = waveform
    return samples, starts


def _room(count: int, kind: np.dtype[Any]) -> StoredSamples:
    """Return a writable array for `count` samples, in memory or mapped."""
    if count * kind.itemsize <= RESIDENT_BYTES:
        return np.empty(count, kind)
    folder = home() / "store"
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with explain_write_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        _reserve(file, count * kind.itemsize)
        return np.memmap(file, kind, mode="r+", shape=(count,))


def _reserve(file: IO[bytes], size: int) -> None:
    """Reserve bytes on the disk, since a full disk during a write to a memory map would kill the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for start in range(0, size, ZEROS_AT_ONCE):  # macOS
        file.write(bytes(min(ZEROS_AT_ONCE, size - start)))
    file.flush()


def audio_key(clips: Sequence[tuple[str, str]]) -> str:
    """Return the key of a store with these clips, given as (ID, content hash) in order of ID."""
    return _hash(*(part for clip in clips for part in clip))


def key_of(recordings: Sequence[Recording], facts: Sequence[ClipFacts]) -> str:
    """Return the key of the store that `build_store` makes from recordings with these facts."""
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
    name: str = "",
) -> tuple[str, list[ClipFacts]]:
    """Decode recordings in parallel into a store at `rate` Hz.

    Args:
        recordings: the clips, with distinct IDs.
        rate: the store's rate in Hz.
        on_clip: called after each clip.
        accept: gets the facts of all recordings before the store is kept, and may raise a `UserError` to refuse them.
        name: name of the task or folder of the recordings. With a name, files that have not changed since the last call
            are not decoded again, even if clips were refused then.

    Returns:
        The key of the usable clips' audio, for `open_store`, and the facts of every recording.

    Raises:
        UserError: the disk is full, or the cache cannot be written.
    """
    name = name and store_name(name, rate)
    before = DecodedBefore.of(name) if name else DecodedBefore()
    facts = before.facts_of(recordings)
    if facts is not None and _folder(key := key_of(recordings, facts), rate) == before.store:
        for _ in recordings:
            on_clip()
        accept(facts)
        note_store(name, before.store, is_new=False, accepted=True)
        return key, facts
    refused = None
    with staged_folder(home() / "store") as staging:
        facts = _write_store(recordings, rate, staging.path, before, on_clip)
        try:
            accept(facts)
        except UserError as error:
            if not name:
                raise
            refused = error
        key = key_of(recordings, facts)
        staging.name = _folder(key, rate)
        is_new = _make_room(home() / "store" / staging.name)
    if name:
        note_store(name, _folder(key, rate), is_new, accepted=refused is None)
    if refused is not None:
        raise refused
    return key, facts


def _write_store(
    recordings: Sequence[Recording],
    rate: int,
    folder: Path,
    before: DecodedBefore,
    on_clip: Callable[[], None],
) -> list[ClipFacts]:
    """Write the samples, the index and the list of files of a store with their checksums, and return the facts."""
    facts, files, ids, lengths = list[ClipFacts](), FileList(), list[str](), list[int]()
    decode = partial(before.decode, rate=rate, folder=folder)
    with SampleFile(folder) as samples, decode_in_order(recordings, decode) as clips:
        for recording, clip in zip(recordings, clips, strict=True):
            start = samples.n_samples
            if not clip.facts.problem:
                clip.write(samples)
                ids.append(recording.clip_id)
                lengths.append(samples.n_samples - start)
            facts.append(clip.facts)
            files.add(recording, clip, start, samples.n_samples - start)
            on_clip()
    np.savez(folder / INDEX, ids=np.array(ids), lengths=np.array(lengths, np.int64))
    files.write(folder)
    write_checksums(folder, samples.checksums())
    remember_compared(folder, intact=True)
    return facts


def _make_room(folder: Path) -> bool:
    """Remove a damaged store. Return True if no store is left."""
    if folder.is_dir() and (damage := find_damage(folder, threads=cpu_cores.available())):
        logger.warning(f"decoded audio in the cache is replaced: {damage}")
        discard_folder(folder)
    return not folder.is_dir()


def is_built(key: str, rate: int) -> bool:
    """Return True if a store was built at this rate in Hz."""
    return (home() / "store" / _folder(key, rate)).is_dir()


def find_store_damage(key: str, rate: int, in_full: bool = False) -> str:
    """Return a message that says what is damaged in a store; empty if it is intact.

    Args:
        key: as `build_store` returned it.
        rate: Hz.
        in_full: compare all bytes, even if nobody has written to the store since the last full comparison.
    """
    folder, threads = home() / "store" / _folder(key, rate), cpu_cores.available()
    if not in_full:
        return find_damage(folder, remember=True, threads=threads)
    damage = find_damage(folder, threads=threads)
    remember_compared(folder, intact=not damage)
    return damage


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
    """Memory-map a store. If it is missing at this rate or damaged, decode the recordings again.

    Args:
        key: as `build_store` returned it.
        rate: Hz.
        recordings: returns the clips of the store; needed for a new rate.
        on_clip: called after each clip that is decoded.

    Raises:
        UserError: the recordings are needed, but their audio has changed since they were prepared.
    """
    folder = home() / "store" / _folder(key, rate)
    if find_store_damage(key, rate):
        with locked(folder.parent / f".lock-{folder.name}"):
            _rebuild(key, rate, recordings, on_clip)
    with np.load(folder / INDEX) as index:
        ids, lengths = index["ids"], index["lengths"]
    starts = np.cumsum(lengths) - lengths
    return Clips(
        tuple(ids.tolist()), map_samples(folder), starts, lengths, rate, _folder(key, rate)
    )


def _rebuild(
    key: str,
    rate: int,
    recordings: Callable[[], Sequence[Recording]],
    on_clip: Callable[[], None],
) -> None:
    """Decode recordings, unless another process has finished this meanwhile."""
    damage = find_store_damage(key, rate)
    if not damage:
        return
    if is_built(key, rate):
        logger.warning(f"decoding again, since the cache is damaged: {damage}")
    sources = recordings()
    build_store(sources, rate, on_clip, lambda facts: _refuse_changed(key, sources, facts))


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


def _folder(key: str, rate: int) -> str:
    return f"{key[:32]}-{rate}"


def _hash(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()
