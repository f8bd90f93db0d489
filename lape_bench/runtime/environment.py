"""The environment of a run: packages, commit, machine."""

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "lape_bench", "torch", "torchaudio", "numpy", "scikit-learn", "soundfile", "av", "soxr", "pandas", "pyarrow",
)  # fmt: skip
CODE = ("lape_bench", "tasks", "baselines", "unfused", "pyproject.toml")  # code and cards


@cache
def commit() -> str:
    """Return the harness's git commit, or "none" outside a checkout.

    If code or cards differ from the commit, "-dirty-" and a hash of the difference follow, including untracked files. So two
    states of the code never have the same name. Other files do not count: a checkpoint of another commit is not resumed, and an
    edited README must not cost a training.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return "none"
    try:
        head = _git(folder, "rev-parse", "HEAD").decode().strip()
        # Whatever the user's settings of git are.
        plain = ("--no-ext-diff", "--no-color", "--full-index", "--binary")
        changed = _git(folder, "diff", *plain, "HEAD", "--", *CODE)
        new = _git(folder, "ls-files", "--others", "--exclude-standard", "-z", "--", *CODE)
        for name in filter(None, new.split(b"\0")):
            changed += name + (folder / os.fsdecode(name)).read_bytes()
    except (OSError, subprocess.SubprocessError):
        return "none"
    return f"{head}-dirty-{hashlib.sha256(changed).hexdigest()[:12]}" if changed else head


def describe() -> dict[str, str]:
    """Return versions, commit and machine, as text."""
    facts = {
        "commit": commit(),
        "python": platform.python_version(),
        "machine": platform.platform(),
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "none"
    return facts


def _git(folder: Path, *arguments: str) -> bytes:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=10).stdout
