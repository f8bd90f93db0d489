"""Stages cached by content: the same inputs are never computed twice.

An artefact is a folder named by a hash of everything that determines it, with that description inside.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lape_bench.paths import home, staged_folder


@dataclass(frozen=True)
class Artifact:
    """A finished stage: what it is, the hash that names it, and its folder."""

    kind: str
    hash: str
    folder: Path
    computed: bool  # now, rather than found


def artifact(
    kind: str, determined_by: Mapping[str, Any], compute: Callable[[Path], None]
) -> Artifact:
    """Find an artefact, or compute it.

    Args:
        kind: what is kept, such as "embeddings".
        determined_by: everything its bytes depend on, as plain data.
        compute: fills the empty folder it is given.
    """
    description = json.dumps({"kind": kind, **determined_by}, sort_keys=True, indent=1)
    name = hashlib.sha256(description.encode()).hexdigest()[:32]
    folder = home() / "artifacts" / kind / name
    if folder.is_dir():
        return Artifact(kind, name, folder, computed=False)
    with staged_folder(folder.parent) as staging:
        compute(staging.path)
        (staging.path / "artifact.json").write_text(description, encoding="utf-8")
        staging.name = name
    return Artifact(kind, name, folder, computed=True)
