"""Pins: checksums of files for which the card has none, set by the first download. Later downloads must match.

They are lines of a text file, `SHA-256  bytes  address`, which may be copied to another machine.
"""

import re
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from lape_bench.core.errors import UserError, explain_write_errors
from lape_bench.core.paths import home


class Pin(NamedTuple):
    """Checksum and size of the first download from an address."""

    sha256: str
    bytes: int


def lock_file() -> Path:
    """Return the file that holds the pins."""
    return home() / "sources.lock"


def read() -> dict[str, Pin]:
    """Return every pin by its address.

    Raises:
        UserError: a line is not a pin.
    """
    path = lock_file()
    if not path.is_file():
        return {}
    pins: dict[str, Pin] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        pin = re.fullmatch(r"([0-9a-f]{64})\s+(\d+)\s+(\S.*)", line)
        if pin is None:
            raise UserError(
                f"{path}: line {number} is not a pin",
                allowed="lines of SHA-256, bytes and address",
                next_step="remove the line; the next download is pinned again",
            )
        pins.setdefault(pin[3], Pin(pin[1], int(pin[2])))  # the first line counts
    return pins


def add(url: str, pin: Pin) -> None:
    """Pin the download from an address, unless it is already pinned."""
    path = lock_file()
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            text = path.read_text(encoding="utf-8") if path.is_file() else ""
            end = (
                "" if not text or text.endswith("\n") else "\n"
            )  # an editor may have removed the line feed
            if f"  {url}\n" not in text + end:
                with path.open("a", encoding="utf-8") as file:
                    file.write(f"{end}{pin.sha256}  {pin.bytes}  {url}\n")


def claim(url: str | None, sha256: str | None) -> str:
    """Return the start of a clause that says where a checksum comes from."""
    pin = read().get(url or "")
    if pin is not None and pin.sha256 == sha256:
        return f"the first download, pinned in {lock_file()}, had"
    return "the card names"
