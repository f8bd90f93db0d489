"""Names of temporary files and folders that identify the process that made them.

By the name, a later process finds out that the maker was killed, and removes the leftover.
"""

import hashlib
import os
import re
from pathlib import Path

PROC = Path("/proc")
TAG = re.compile(r"([0-9a-f]{8})-(\d+)-(\d+)-")


def process_tag() -> str:
    """Return a name part that identifies this process, such as "1f0c2a9b-4711-88123-"."""
    pid = os.getpid()
    return f"{_kernel()}-{pid}-{_started(pid)}-"


def is_left_over(name: str) -> bool:
    """Return True if a name holds the tag of a process of this machine that has ended.

    Other machines and containers may share the folder; nothing is known about their processes.
    """
    match = TAG.search(name)
    if match is None or match[1] != _kernel():
        return False
    pid, started = int(match[2]), int(match[3])
    return started != 0 and _started(pid) != started


def _kernel() -> str:
    """Return a hash of the kernel's boot ID and the process namespace; zeros if the system does not provide them."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii")
        processes = (PROC / "self/ns/pid").readlink()
    except OSError:
        return "0" * 8
    return hashlib.sha256(f"{boot}{processes}".encode()).hexdigest()[:8]


def _started(pid: int) -> int:
    """Return when a process started, in ticks since boot; 0 if it is not running."""
    try:
        stat = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[19])  # after the name, which may hold spaces
