"""Identify the code that decodes audio files: another version may return other samples, which have another hash."""

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path

import av
import soundfile

PACKAGES = ("soundfile", "av", "numpy")


@cache
def decoder_version() -> str:
    """Return a hash of the versions of packages and their libraries, and of the code in this folder and in `lape_bench.data.audio`."""
    here = Path(__file__).parent
    # The packages of some distributions use libraries that are updated by themselves.
    libraries = {"libsndfile": soundfile.__libsndfile_version__, **av.library_versions}
    digest = hashlib.sha256(json.dumps([[*map(version, PACKAGES)], libraries]).encode())
    for path in (*sorted(here.glob("*.py")), here.parent / "audio.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()
