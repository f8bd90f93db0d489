"""Identify the code that decodes audio files: another version may return other samples, which have another hash."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("soundfile", "av", "numpy")


@cache
def decoder_version() -> str:
    """Return a hash of the versions of packages, and of the code in this folder and in `lape_bench.data.audio`."""
    here = Path(__file__).parent
    digest = hashlib.sha256(" ".join(map(version, PACKAGES)).encode())
    for path in (*sorted(here.glob("*.py")), here.parent / "audio.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()
