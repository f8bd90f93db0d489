"""Read tables with a column of audio, as Hugging Face data sets have them: Parquet files, and Arrow files of `save_to_disk`.

Each row holds an audio file as bytes, with its path. The metadata of the schema describes the columns.
"""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lape_bench.core.errors import UserError

BATCH = 64  # rows in memory at a time


def _schema(path: Path) -> pa.Schema:
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_schema(path)
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_stream(file).schema
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error})") from error


def features_of(path: Path) -> dict[str, dict[str, Any]]:
    """Return the metadata of each column, such as the names of its classes; empty for a column without any.

    Raises:
        UserError: the file cannot be read.
    """
    schema = _schema(path)
    features: dict[str, Any] = {}
    with suppress(
        ValueError, KeyError, TypeError
    ):  # without it columns are recognized by their types
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    known = features if isinstance(features, dict) else {}
    return {
        column: known[column] if isinstance(known.get(column), dict) else {}
        for column in schema.names
    }


def audio_column(path: Path) -> str:
    """Return the column with the audio of a Parquet or Arrow file: files as bytes, each with a name.

    Raises:
        UserError: the file cannot be read, or has no such column or several.
    """
    schema, features = _schema(path), features_of(path)
    columns: list[str] = [
        field.name
        for field in schema
        if _holds_files(field.type) and features[field.name].get("_type", "Audio") == "Audio"
    ]
    if len(columns) != 1:
        raise UserError(
            f"{path} has {len(columns) or 'no'} columns of audio; its columns are {', '.join(schema.names)}",
            allowed="one column of audio: a file as bytes, with its path",
        )
    return columns[0]


def _holds_files(kind: pa.DataType) -> bool:
    """Return True if a column of this type holds files as bytes. The type is null if every file is outside the table."""
    if not pa.types.is_struct(kind):
        return False
    of_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_null)
    return any(
        inner.name == "bytes" and any(fits(inner.type) for fits in of_bytes) for inner in kind
    )


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, each as its values by column.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH):
                    yield from batch.to_pylist()
        else:
            with pa.memory_map(str(path)) as mapped:
                for batch in pa.ipc.open_stream(mapped):
                    for start in range(0, len(batch), BATCH):
                        yield from batch.slice(start, BATCH).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read ({error})") from error
