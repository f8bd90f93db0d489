"""The clips of a set of shards: where each is, how long it is, and the hash of its decoded audio.

Every clip is decoded once, to find out whether it can be used and what it holds. The cache keeps the result in one
file per shard. So a listing that was killed continues with the next shard. In memory a clip takes less than 100 bytes, in
arrays.
"""

import hashlib
import inspect
import itertools
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lape_bench.core.errors import UserError
from lape_bench.core.locks import locked
from lape_bench.core.paths import home, new_file
from lape_bench.core.progress import Progress, Running
from lape_bench.data import audio
from lape_bench.data.clip_names import printable
from lape_bench.data.decoding.version import decoder_version
from lape_bench.data.recording import decode_in_order
from lape_bench.data.streams.shard import Member, Shard

EXAMPLES = 3
SCHEMA = pa.schema(
    {
        "name": pa.string(),
        "block": pa.int32(),
        "place": pa.int64(),
        "size": pa.int64(),
        "file_hash": pa.binary(32),  # SHA-256 of the encoded file
        "samples": pa.int64(),  # at its own rate
        "rate": pa.int32(),  # Hz
        "content": pa.binary(32),  # see `audio.content_hash`
        "problem": pa.string(),  # empty if the clip can be used
    }
)
AT_ONCE = 4096  # rows that become columns together
SEAL_BYTES = 32


class _Row(NamedTuple):
    """A row of the index; see `SCHEMA`."""

    name: str
    block: int
    place: int
    size: int
    file_hash: bytes
    samples: int
    rate: int
    content: bytes
    problem: str


@dataclass(frozen=True)
class ShardIndex:
    """The usable clips of shards, in the order of the shards. Each array has the shape (clips,).

    Attributes:
        shards: the shards.
        shard: the number of each clip's shard.
        block: as in `Member`.
        place: as in `Member`.
        size: bytes of the encoded clip.
        samples: samples at the clip's own rate.
        rate: the clip's own rate in Hz.
        named_mp3: whether the clip's name ends in .mp3, which helps to recognize it.
        state: hash of the names and contents of all audio files, whether usable or not, and of the blocks.
        key: hash of the names, the decoded audio and the blocks of the clips.
        n_left_out: number of files that cannot be used.
        examples: some of them with the reason.
    """

    shards: tuple[Shard, ...]
    shard: NDArray[np.int32]
    block: NDArray[np.int32]
    place: NDArray[np.int64]
    size: NDArray[np.int64]
    samples: NDArray[np.int64]
    rate: NDArray[np.int32]
    named_mp3: NDArray[np.bool_]
    state: str
    key: str
    n_left_out: int
    examples: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.shard)

    def read(self, clip: int) -> tuple[audio.Samples, int]:
        """Read and decode a clip at its own rate; it may be called from several threads.

        Returns:
            Samples of shape (samples,), and the rate in Hz.

        Raises:
            UserError: the shard has changed since it was listed, or cannot be read.
        """
        shard = self.shards[self.shard[clip]]
        size, samples, rate = (int(of[clip]) for of in (self.size, self.samples, self.rate))
        content = shard.read(Member("", int(self.block[clip]), int(self.place[clip]), size))
        name = "clip.mp3" if self.named_mp3[clip] else ""
        try:
            decoded, own_rate = audio.read(audio.FileContent(name, content))
        except audio.AudioProblem as problem:
            raise shard.unreadable(f"a clip that was decoded before is {problem}") from problem
        if (len(decoded), own_rate) != (samples, rate):
            raise shard.unreadable("a clip has other samples than before")
        return decoded, own_rate

    def clips_among(self, contents: Collection[str]) -> list[str]:
        """Return the names of the clips whose decoded audio has one of these hashes, in hexadecimal digits."""
        wanted = pa.array([bytes.fromhex(content) for content in contents], pa.binary(32))
        names: list[str] = []
        for shard in self.shards:
            table = _usable(_read(shard, ["name", "content", "problem"]))
            matching = table.filter(pc.is_in(table["content"], wanted))
            names += [f"{shard.path.name}/{name}" for name in matching["name"].to_pylist()]
        return names


def open_index(shards: Sequence[Shard], progress: Progress) -> ShardIndex:
    """List the clips of shards. A shard is decoded again only if its file or a decoder has changed.

    Args:
        shards: the shards.
        progress: shows the clips that are listed.

    Raises:
        UserError: a shard cannot be read, or no clip can be used.
    """
    missing = [shard for shard in shards if not _is_intact(shard)]
    if missing:
        with progress.task("listing clips of shards", None, "clips") as task:
            for number, shard in enumerate(missing, 1):
                task.note(shard=f"{number}/{len(missing)}")
                with locked(_lock_file(shard)):
                    if not _is_intact(shard):  # another process may have been faster
                        _list_shard(shard, task)
    return _join(shards)


def _list_shard(shard: Shard, task: Running) -> None:
    """Decode every clip of a shard, and write its index."""
    file = index_file(shard)
    seen: set[str] = set()
    with new_file(file) as temporary:
        with (
            pq.ParquetWriter(temporary, SCHEMA) as writer,
            decode_in_order(shard.members(), partial(_listed, shard)) as decoded,
        ):
            rows: list[_Row] = []
            for row in decoded:
                if row.name in seen:
                    row = row._replace(problem="a second file of this name in the shard")
                seen.add(row.name)
                rows.append(row)
                task.advance()
                if len(rows) == AT_ONCE:
                    writer.write_table(_table(rows))
                    rows.clear()
            writer.write_table(_table(rows))
        seal(temporary)
    for other in file.parent.glob(f"{_path_hash(shard.path)}-*"):
        if other != file:  # of an older version
            other.unlink(missing_ok=True)


def _listed(shard: Shard, member: Member) -> _Row:
    """Read and decode a member."""
    if member.problem:
        place = (member.name, member.block, member.place, member.size)
        return _Row(*place, bytes(32), 0, 0, bytes(32), member.problem)
    content = shard.read(member)
    place = (member.name, member.block, member.place, len(content))
    file_hash = hashlib.sha256(content).digest()
    try:
        samples, rate = audio.read(audio.FileContent(member.name, content))
    except audio.AudioProblem as problem:
        return _Row(*place, file_hash, 0, 0, bytes(32), str(problem))
    decoded = bytes.fromhex(audio.content_hash(samples, rate))
    return _Row(*place, file_hash, len(samples), rate, decoded, "")


def _table(rows: Sequence[_Row]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _join(shards: Sequence[Shard]) -> ShardIndex:
    """Read the indices of all shards into arrays."""
    columns = ("block", "place", "size", "samples", "rate")
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in ("shard", *columns, "named_mp3")}
    state, key = hashlib.sha256(), hashlib.sha256()
    n_left_out, examples = 0, list[str]()
    above = os.path.commonpath([shard.path.parent for shard in shards])
    for number, shard in enumerate(shards):
        table = _read(shard, SCHEMA.names)
        relative = shard.path.relative_to(above).as_posix()
        _add_rows(state, relative, table, "file_hash")
        bad = table.filter(pc.not_equal(table["problem"], ""))
        n_left_out += len(bad)
        if not len(table):
            n_left_out += 1
            examples.append(f"{printable(relative)} (holds no audio files)")
        for row in bad.slice(0, EXAMPLES).to_pylist():
            examples.append(f"{printable(relative)}/{printable(row['name'])} ({row['problem']})")
        table = _usable(table)
        _add_rows(key, relative, table, "content")
        if shard.in_blocks:  # they decide the order of a training
            for digest, name in itertools.product((state, key), ("block", "size")):
                digest.update(table[name].to_numpy().tobytes())
        parts["shard"].append(np.full(len(table), number, np.int32))
        for name in columns:
            parts[name].append(table[name].to_numpy())
        is_mp3 = pc.ends_with(pc.utf8_lower(table["name"]), ".mp3")
        parts["named_mp3"].append(is_mp3.to_numpy())
    arrays = {name: np.concatenate(each) for name, each in parts.items()}
    if not len(arrays["shard"]):
        raise UserError(
            f"the {len(shards)} shards in {above} hold no audio that can be read"
            + (f"; {n_left_out} files are left out, such as {examples[0]}" if examples else ""),
            allowed="audio files in tar files, recognized by their extension, or a column of audio in Parquet files",
        )
    return ShardIndex(
        tuple(shards),
        **arrays,
        state=state.hexdigest(),
        key=key.hexdigest(),
        n_left_out=n_left_out,
        examples=tuple(examples[:EXAMPLES]),
    )


def _add_rows(digest: "hashlib._Hash", shard: str, table: pa.Table, column: str) -> None:
    """Add the names and the hashes of a shard's rows to a digest."""
    digest.update(f"{shard}\0{len(table)}\0".encode(errors="backslashreplace"))
    for name in table["name"].to_pylist():
        digest.update(name.encode() + b"\0")
    for row_hash in table[column].to_pylist():
        digest.update(row_hash)


def _usable(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["problem"], ""))


def _read(shard: Shard, columns: Sequence[str]) -> pa.Table:
    """Read columns of a shard's index.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return pq.ParquetFile(pa.BufferReader(_sealed(index_file(shard)))).read(list(columns))
    except OSError as error:
        raise UserError(
            f"the list of clips of {shard.path} cannot be read from the cache ({error})",
            next_step="run the same command again; another process may have replaced the list",
        ) from error


def seal(file: Path) -> None:
    """Append the SHA-256 of a file to it, since the footer of Parquet has no checksum."""
    with file.open("r+b") as content:
        content.write(hashlib.file_digest(content, "sha256").digest())


def _sealed(file: Path) -> memoryview:
    """Return the content of a sealed file.

    Raises:
        OSError: it cannot be read, or its checksum differs.
    """
    content = memoryview(file.read_bytes())
    table, checksum = content[:-SEAL_BYTES], content[-SEAL_BYTES:]
    if hashlib.sha256(table).digest() != checksum:
        raise OSError("it is damaged")
    return table


def _is_intact(shard: Shard) -> bool:
    try:
        _sealed(index_file(shard))
    except OSError:
        return False
    return True


def _lock_file(shard: Shard) -> Path:
    """Return the lock for listing a shard. Some shards share one, so that there are not as many as shards."""
    return index_file(shard).parent / f".lock-{_path_hash(shard.path)[:2]}"


def index_file(shard: Shard) -> Path:
    """Return the file of a shard's index: Parquet, and a checksum after it.

    Its name holds the version of the shard, of the decoders and of the code that lists.
    """
    versions = [shard.version, decoder_version(), _code(type(shard))]
    digest = hashlib.sha256(json.dumps(versions).encode()).hexdigest()
    return home() / "corpora" / "shards" / f"{_path_hash(shard.path)}-{digest[:32]}.index"


@cache
def _code(kind: type[Shard]) -> str:
    """Return a hash of the code that lists shards of a kind."""
    digest = hashlib.sha256()
    for file in (__file__, inspect.getfile(kind)):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()


def _path_hash(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
