"""Reuse decoded audio: a file that has not changed is not decoded again.

Each store lists the files that it was made from. A note names the last store of a task or folder, even if its clips
were refused. So if you prepare it again with --skip-bad, or after fixing a file, only new and changed files are
decoded.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lape_bench.core.errors import DamagedFile
from lape_bench.core.folder_checksums import find_damage
from lape_bench.core.paths import discard_folder, home
from lape_bench.core.sealed_json import read_sealed_json, write_sealed_json
from lape_bench.data.decoding.version import decoder_version
from lape_bench.data.recording import ClipFacts, DecodedClip, FileVersion, Recording, decode
from lape_bench.data.stored_samples import StoredSamples, map_samples, pack
from lape_bench.runtime import environment

FILES = "files.parquet"
DECODERS = ("lape_bench", "soundfile", "av", "soxr", "numpy")  # packages
WHOLE_FILE = (-1.0, -1.0)  # stands for a whole file


class FileKey(NamedTuple):
    """Identifies decoded audio: a file, or a part of it."""

    path: bytes
    start_seconds: float
    seconds: float
    shortest_seconds: float

    @classmethod
    def of(cls, recording: Recording) -> Self:
        """Return the key of a recording."""
        segment = recording.segment or WHOLE_FILE
        return cls(os.fsencode(recording.path), *segment, recording.shortest_seconds)


class _Entry(NamedTuple):
    """The result of decoding a file."""

    version: FileVersion
    facts: ClipFacts
    first_sample: int
    n_samples: int


class FileList:
    """The list of files of a store that is being written."""

    def __init__(self) -> None:
        self._rows: list[tuple[FileKey, _Entry]] = []

    def add(self, recording: Recording, clip: DecodedClip, first_sample: int, n: int) -> None:
        """Add a clip, and where its samples are in the store."""
        if clip.version is not None:
            entry = _Entry(clip.version, clip.facts, first_sample, n)
            self._rows.append((FileKey.of(recording), entry))

    def write(self, folder: Path) -> None:
        """Write the list into the folder of the store."""
        columns: dict[str, list[object]] = {
            name: [getattr(key, name) for key, _ in self._rows] for name in FileKey._fields
        }
        for number, name in enumerate(FileVersion._fields):
            columns[f"file_{name}"] = [entry.version[number] for _, entry in self._rows]
        for name in ClipFacts._fields:
            columns[f"clip_{name}"] = [getattr(entry.facts, name) for _, entry in self._rows]
        for name in ("first_sample", "n_samples"):
            columns[name] = [getattr(entry, name) for _, entry in self._rows]
        pq.write_table(pa.table(columns), folder / FILES)


@dataclass(frozen=True)
class DecodedBefore:
    """Audio that was decoded by the last call for a task or folder; by default none.

    Attributes:
        store: name of the store's folder.
    """

    store: str = ""
    _entries: dict[FileKey, _Entry] = field(default_factory=dict, repr=False)
    _samples: StoredSamples = field(default_factory=lambda: np.empty(0, np.float32), repr=False)

    @classmethod
    def of(cls, name: str) -> "DecodedBefore":
        """Read the list of decoded audio for `name`; empty if the store is gone or damaged, or decoders have
        changed.
        """
        try:
            note = read_sealed_json(_note(name))
        except (OSError, DamagedFile):
            return cls()
        folder = home() / "store" / note["store"]
        if note["decoders"] != _decoders() or find_damage(folder, remember=True):
            return cls()
        return cls(note["store"], dict(_read_entries(folder)), map_samples(folder))

    def facts_of(self, recordings: Sequence[Recording]) -> list[ClipFacts] | None:
        """Return the facts of each recording; None if a recording was not decoded before or has changed."""
        facts = []
        for recording in recordings:
            entry = self._entry(recording)
            if entry is None:
                return None
            facts.append(entry.facts)
        return facts

    def decode(self, recording: Recording, rate: int, folder: Path) -> DecodedClip:
        """Return the clip if it was decoded before, or decode it; see `recording.decode`."""
        entry = self._entry(recording)
        if entry is not None:
            end = entry.first_sample + entry.n_samples
            samples = self._samples[entry.first_sample : end]
            # A store that needs float32 may hold clips that do not.
            return DecodedClip(entry.facts, pack(samples), version=entry.version)
        return decode(recording, rate, folder)

    def _entry(self, recording: Recording) -> _Entry | None:
        entry = self._entries.get(FileKey.of(recording)) if self._entries else None
        if entry is None or entry.version != FileVersion.of(recording.path):
            return None
        return entry


def versions_when_decoded(name: str) -> dict[Path, FileVersion]:
    """Return the version of each file when it was last decoded for `name`; empty if unknown."""
    try:
        folder = home() / "store" / read_sealed_json(_note(name))["store"]
        return {Path(os.fsdecode(key.path)): entry.version for key, entry in _read_entries(folder)}
    except (OSError, DamagedFile, pa.ArrowException):
        return {}


def note_store(name: str, store: str, is_new: bool, accepted: bool) -> None:
    """Note which store was made last for `name`; one that was made for clips that were refused gives way.

    Args:
        name: see `store_name`.
        store: name of the store's folder.
        is_new: whether this call made it.
        accepted: whether its clips were accepted.
    """
    kept = accepted or not is_new
    try:
        before = read_sealed_json(_note(name))
        if before["store"] == store:
            kept = kept and (accepted or before["kept"])
        elif not before["kept"]:
            discard_folder(home() / "store" / before["store"])
    except (OSError, DamagedFile):
        pass
    write_sealed_json(_note(name), {"store": store, "kept": kept, "decoders": _decoders()})


def store_name(name: str, rate: int) -> str:
    """Return the name of the note for a task or folder at a rate in Hz."""
    return f"{name} at {rate} Hz"


def _read_entries(folder: Path) -> list[tuple[FileKey, _Entry]]:
    table = pq.read_table(folder / FILES).to_pydict()
    rows = zip(*table.values(), strict=True)
    n_key, n_version, n_facts = (len(kind._fields) for kind in (FileKey, FileVersion, ClipFacts))
    entries = []
    for row in rows:
        key, rest = FileKey(*row[:n_key]), row[n_key:]
        version_, rest = FileVersion(*rest[:n_version]), rest[n_version:]
        facts, place = ClipFacts(*rest[:n_facts]), rest[n_facts:]
        entries.append((key, _Entry(version_, facts, *place)))
    return entries


def _note(name: str) -> Path:
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return home() / "decoded" / f"{digest}.json"


def _decoders() -> dict[str, str]:
    """Return the versions and the state of the code that decide how a file is decoded."""
    state = {"commit": environment.commit(), "decoder": decoder_version()}
    return {name: version(name) for name in DECODERS} | state
