"""What a run ran on: packages, commit, machine."""

import hashlib
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "lape_bench", "torch", "torchaudio", "numpy", "scikit-learn", "soundfile", "soxr", "pandas", "pyarrow",
)  # fmt: skip


@cache
def commit() -> str:
    """Return the harness's git commit, or "none" outside a checkout.

    Where files differ from it, "-dirty-" follows and a hash of the difference: two states of the code never
    have one name.
    """
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return "none"
    try:
        head = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return "none"
    digest = hashlib.sha256(changed.encode()).hexdigest()[:12]
    return f"{head}-dirty-{digest}" if changed else head


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


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True, timeout=10
    )
    return done.stdout.strip()
