"""Write small shards."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile


def noise(seed: int, seconds: float = 0.3, rate: int = 8000, format: str = "WAV") -> bytes:
    """Return a recording of noise, encoded."""
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate))
    file = io.BytesIO()
    soundfile.write(file, samples.astype(np.float32), rate, format=format)
    return file.getvalue()


def write_tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """Write an uncompressed tar file; names may repeat."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_parquet(path: Path, contents: Sequence[bytes | None], rows_at_once: int = 2) -> Path:
    """Write audio as Hugging Face does: a column of structs of bytes and path, in row groups."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": content, "path": f"{number}.wav"} for number, content in enumerate(contents)]
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"audio": pa.array(rows, kind), "label": pa.array([0] * len(rows))})
    pq.write_table(table, path, row_group_size=rows_at_once)
    return path
