"""Shards of Hugging Face data sets: Parquet files with a column of audio files as bytes.

A row is compressed together with its row group, so row groups are read whole and the last ones stay in memory.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lape_bench.data.recording import FileVersion
from lape_bench.data.sources.audio_rows import audio_column
from lape_bench.data.streams.shard import Member, Shard

MAX_CACHED_BYTES = 2**30  # of encoded audio, in all shards together; two row groups may exceed it


class ParquetShard(Shard):
    """A Parquet file. Its clips are named by their number in the file."""

    in_blocks = True

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._column = ""

    def members(self) -> Iterator[Member]:
        """Yield the audio files; see `Shard.members`."""
        self._column = audio_column(self.path)
        try:
            with pq.ParquetFile(self.path) as file:
                rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        except (OSError, pa.ArrowException) as error:
            raise self.unreadable(error) from error
        number = 0
        for block, count in enumerate(rows):
            for place in range(count):
                yield Member(str(number), block, place, 0)
                number += 1

    def read(self, member: Member) -> bytes:
        """Return the content of an audio file, empty if the row has none; see `Shard.read`."""
        contents = ROW_GROUPS.get(self, member.block)
        return contents[member.place].as_py() or b""

    def read_row_group(self, block: int) -> pa.ChunkedArray:
        """Return the encoded audio of a row group, shape (rows,), binary."""
        self._column = self._column or audio_column(self.path)
        try:
            with pq.ParquetFile(self.path) as file:
                table = file.read_row_group(block, columns=[f"{self._column}.bytes"])
        except (OSError, pa.ArrowException) as error:
            raise self.unreadable(error) from error
        self.refuse_changed()
        return table.flatten().column(0)


_Key = tuple[Path, FileVersion | None, int]


class _RowGroups:
    """The row groups that were read last, of all shards together."""

    def __init__(self) -> None:
        self._read: OrderedDict[_Key, pa.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()
        self._reading: dict[_Key, threading.Lock] = {}

    def get(self, shard: ParquetShard, block: int) -> pa.ChunkedArray:
        """Return the encoded audio of a row group, which is read if it is not in memory."""
        key = shard.path, shard.version, block
        with self._lock:
            reading = self._reading.setdefault(key, threading.Lock())
        with reading:  # one thread reads a row group, and the others wait for it
            with self._lock:
                if key in self._read:
                    self._read.move_to_end(key)
                    return self._read[key]
            contents = shard.read_row_group(block)
            with self._lock:
                self._read[key] = contents
                self._forget_oldest()
        return contents

    def _forget_oldest(self) -> None:
        total = sum(contents.nbytes for contents in self._read.values())
        while total > MAX_CACHED_BYTES and len(self._read) > 2:  # the present one, and the next
            key, contents = self._read.popitem(last=False)
            self._reading.pop(key, None)
            total -= contents.nbytes


ROW_GROUPS = _RowGroups()
