"""Measure a streamed corpus: `python -m tests.benchmarks.streamed_corpus [CLIPS] [ROWS]`.

Clips of 0.2 to 0.5 s are written into tar shards (1.1 GB for 100,000 clips), listed, opened again, and read in random
order. Then an index of ROWS rows (2,000,000) is made up, opened and searched for held-out clips. At last clips of 10 s
are decoded on one core, which tells how many cores feed a GPU. Everything is written below the folder for temporary
files (TMPDIR), and deleted.
"""

import hashlib
import io
import os
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch

from lape_bench.core.progress import Progress
from lape_bench.data import audio
from lape_bench.data.streams.find_shards import find_shards
from lape_bench.data.streams.shard_index import SCHEMA, index_file, open_index, seal
from lape_bench.data.streams.streamed_clips import StreamedClips
from lape_bench.data.streams.tar_shard import TarShard
from lape_bench.learning.training.batches import shuffled
from lape_bench.runtime import cpu_cores

RATE, MIB, PER_SHARD, BATCH = 16_000, 2**20, 10_000, 64
STREAMED = 20_000  # clips that are read in random order
QUIET = Progress(quiet=True)
ENCODINGS = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}


class Measured:
    """Time, CPU time, and growth of anonymous memory during a block."""

    seconds: float
    cpu_seconds: float
    grown_mib: float


@contextmanager
def measured() -> Iterator[Measured]:
    """Measure a block; memory is sampled every 20 ms."""
    result, stop = Measured(), threading.Event()
    before = peak = anonymous_mib()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.02):
            peak = max(peak, anonymous_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    began, began_cpu = time.perf_counter(), time.process_time()
    yield result
    result.seconds, result.cpu_seconds = (
        time.perf_counter() - began,
        time.process_time() - began_cpu,
    )
    stop.set()
    watcher.join()
    result.grown_mib = max(peak, anonymous_mib()) - before


def anonymous_mib() -> float:
    """Return the anonymous memory of this process, which a kernel cannot take back, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell RssAnon")


def wav(samples: np.ndarray) -> bytes:
    """Return int16 samples as a WAV file."""
    data = samples.tobytes()
    head = (
        b"RIFF" + (36 + len(data)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    )
    head += (
        b"\1\0\1\0" + RATE.to_bytes(4, "little") + (2 * RATE).to_bytes(4, "little") + b"\2\0\20\0"
    )
    return head + b"data" + len(data).to_bytes(4, "little") + data


def write_shards(folder: Path, count: int) -> None:
    """Write clips of noise into tar files of `PER_SHARD` clips."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 3_000, 2**22).astype(np.int16)
    folder.mkdir()
    for first in range(0, count, PER_SHARD):
        with tarfile.open(folder / f"{first // PER_SHARD:04d}.tar", "w") as archive:
            for number in range(first, min(first + PER_SHARD, count)):
                length = int(random.integers(RATE // 5, RATE // 2))
                start = int(random.integers(len(noise) - length))
                content = wav(noise[start : start + length])
                member = tarfile.TarInfo(f"{number:09d}.wav")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def size_of(folder: Path) -> int:
    """Return the size of all files below a folder in bytes."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def row(what: str, rate: float | None, of: Measured, also: str = "") -> None:
    """Print a row of the table."""
    speed = "" if rate is None else f"{rate:,.0f}"
    print(
        f"| {what} | {of.seconds:.1f} | {of.cpu_seconds:.1f} | {speed} | {of.grown_mib:.0f} | {also} |",
        flush=True,
    )


def short_clips(root: Path, count: int) -> None:
    """List, open and stream clips in tar files."""
    with measured() as writing:
        write_shards(root / "shards", count)
    mib = size_of(root / "shards") / MIB
    row(f"write {count:,} clips", count / writing.seconds, writing, f"{mib:,.0f} MiB of shards")
    shards = find_shards(str(root / "shards"))
    assert shards is not None
    with measured() as listing:
        index = open_index(shards, QUIET)
    index_mib = size_of(root / "home") / MIB
    per_core = count / listing.cpu_seconds
    row("list them", count / listing.seconds, listing, f"{per_core:,.0f} clips/s of CPU time, {index_mib:.0f} MiB of index")  # fmt: skip
    with measured() as opening:
        index = open_index(shards, QUIET)
    row("open the index again", count / opening.seconds, opening)
    clips = StreamedClips.of(index, RATE)
    with measured() as streaming:
        order = shuffled(clips, torch.Generator().manual_seed(0))[:STREAMED]
        n_read = sum(len(batch) for batch in clips.batches(b.numpy() for b in order.split(BATCH)))
    per_core = n_read / streaming.cpu_seconds
    row(f"stream {n_read:,} in random order", n_read / streaming.seconds, streaming, f"{per_core:,.0f} clips/s of CPU time")  # fmt: skip


def many_rows(root: Path, count: int) -> None:
    """Open an index of many rows, and look for held-out clips in it."""
    folder = root / "made up"
    folder.mkdir()
    shards = []
    for first in range(0, count, PER_SHARD):
        path = folder / f"{first // PER_SHARD:06d}.tar"
        path.touch()
        shards.append(TarShard(path))
        write_index(shards[-1], range(first, min(first + PER_SHARD, count)))
    mib = sum(index_file(shard).stat().st_size for shard in shards) / MIB
    with measured() as opening:
        index = open_index(shards, QUIET)
        clips = StreamedClips.of(index, RATE)
    each = opening.grown_mib * MIB / count
    row(f"open an index of {count:,} rows", count / opening.seconds, opening, f"{mib:.0f} MiB on disk, {each:.0f} bytes of memory a row")  # fmt: skip
    held_out = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(5_000)]
    with measured() as searching:
        assert len(index.clips_among(held_out)) == min(count, 5_000)
    row("find 5,000 held-out clips in it", count / searching.seconds, searching)
    with measured() as shuffling:
        shuffled(clips, torch.Generator().manual_seed(0))
    row("shuffle it", count / shuffling.seconds, shuffling)


def write_index(shard: TarShard, numbers: range) -> None:
    """Write the index of a shard of clips of 10 s that does not hold them."""
    hashes = [hashlib.sha256(str(number).encode()).digest() for number in numbers]
    n, zeros = len(numbers), np.zeros(len(numbers), np.int32)
    columns = [
        [f"{number:09d}.flac" for number in numbers], zeros, np.arange(n) * 200_000, np.full(n, 199_000),
        hashes, np.full(n, 10 * RATE), zeros + RATE, hashes, [""] * n,
    ]  # fmt: skip
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    index_file(shard).parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_arrays(arrays, schema=SCHEMA)
    pq.write_table(table, index_file(shard))
    seal(index_file(shard))


def long_clips() -> None:
    """Decode clips of 10 s in each encoding on one core, to list them and to train on them."""
    samples = np.random.default_rng(0).normal(0, 0.1, 10 * RATE).astype(np.float32)
    for encoding, subtype in ENCODINGS.items():
        file = io.BytesIO()
        soundfile.write(file, samples, RATE, format=encoding, subtype=subtype)
        content = audio.FileContent(f"a.{encoding.lower()}", file.getvalue())
        with measured() as decoding:
            began, n_decoded = time.process_time(), 0
            while time.process_time() - began < 2:
                decoded, rate = audio.read(content)
                n_decoded += 1
        began = time.process_time()
        for _ in range(100):
            audio.content_hash(decoded, rate)
        hashing = (time.process_time() - began) / 100
        a_second = n_decoded / decoding.cpu_seconds
        hours = 2_000_000 * (1 / a_second + hashing) / 3600
        row(f"decode 10 s of {encoding} on one core", a_second, decoding, f"list 2,000,000 of them: {hours:.1f} core-hours")  # fmt: skip


def main() -> None:
    """Print a table."""
    count, rows = (
        int(given) for given in (*sys.argv[1:], *("100000", "2000000")[len(sys.argv) - 1 :])
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["LAPE_BENCH_HOME"] = str(root / "home")
        print(f"{cpu_cores.available()} cores\n")
        print("| what | seconds | CPU seconds | clips/s | memory grows, MiB | |")
        print("|---|---:|---:|---:|---:|---|")
        short_clips(root, count)
        many_rows(root, rows)
        long_clips()


if __name__ == "__main__":
    main()
