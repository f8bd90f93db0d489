"""JSON files with a checksum of their content, so that damage is noticed when they are read."""

import hashlib
import json
from pathlib import Path
from typing import Any

from lape_bench.core.errors import DamagedFile
from lape_bench.core.paths import write_text

CONTENT, CHECKSUM = "content", "sha256"


def write_sealed_json(path: Path, content: Any) -> None:
    """Write plain data and its checksum to a file, whole or not at all."""
    write_text(path, json.dumps({CONTENT: content, CHECKSUM: _checksum(content)}))


def read_sealed_json(path: Path) -> Any:
    """Return the data that `write_sealed_json` wrote.

    Raises:
        DamagedFile: the checksum of the file does not match.
        OSError: the file is missing or cannot be read.
    """
    try:
        sealed = json.loads(path.read_text(encoding="utf-8"))
        content, checksum = sealed[CONTENT], sealed[CHECKSUM]
        intact = checksum == _checksum(content)
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise DamagedFile(f"{path} is damaged: its checksum does not match")
    return content


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
