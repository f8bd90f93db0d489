"""A user's mistake, in one form: what is wrong, where, what is allowed, what to do next.

The command line prints a `UserError` as one line and exits with code 2. Every other exception is a defect of the
harness and keeps its traceback.
"""

import difflib
import errno
import os
import re
import shutil
import sysconfig
import textwrap
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lape_bench.core.printable import printable

FULL_DISK = {errno.ENOSPC, errno.EDQUOT}
FULL_BELOW = 2**15  # free bytes below which a disk counts as full
CANNOT_WRITE = {
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOENT,  # such as below /proc, where no file can be created
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
# What a plug-in may raise without ending the harness; some plug-ins call sys.exit().
FAILURES = (Exception, SystemExit)
LONGEST_REASON = 200  # characters
INSTALLED = {"site-packages", "dist-packages"}  # folders of installed packages
OURS = "lape_bench"
PYTHONS = Path(sysconfig.get_path("stdlib"))
ELSEWHERE = "set LAPE_BENCH_HOME for data, or --out, --file or --html for the output of the command"


class UserError(Exception):
    """A mistake that the user can fix.

    Args:
        what: what is wrong and where, without a full stop.
        allowed: what would be right, without a full stop.
        next_step: what to do now, without a full stop.
    """

    def __init__(self, what: str, *, allowed: str = "", next_step: str = "") -> None:
        self.what, self.allowed, self.next_step = what, allowed, next_step
        message = "; ".join(part for part in (what, allowed, next_step) if part) + "."
        # One line: a name, or the message of a library, may have several.
        super().__init__(printable(re.sub(r"\s*[\r\n]\s*", " ", message)))

    def __reduce__(self) -> tuple[object, ...]:
        # Worker processes return errors by pickle, which would pass the whole message as `what`.
        return _rebuild, (type(self), self.what, self.allowed, self.next_step)


class DamagedFile(UserError):
    """The content of a file has changed since the harness wrote it."""


def _rebuild(kind: type[UserError], what: str, allowed: str, next_step: str) -> UserError:
    return kind(what, allowed=allowed, next_step=next_step)


def summarize_error(error: BaseException) -> str:
    """Return the message of a `UserError`; for another error its type, the beginning of its message, and where it was
    raised.
    """
    if isinstance(error, UserError):
        return str(error)
    message = textwrap.shorten(str(error), LONGEST_REASON, placeholder=" ...")
    summary = f"{type(error).__name__}: {message}" if message else type(error).__name__
    place = _place_in_a_plug_in(error)
    return f"{summary}, at {place}" if place else summary


def _place_in_a_plug_in(error: BaseException) -> str:
    """Return the last line of a traceback that is in a plug-in; empty if there is none."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = Path(frame.f_code.co_filename)
        ours = frame.f_globals.get("__name__", "").partition(".")[0] == OURS
        made_up = file.name.startswith("<")  # such as <frozen importlib._bootstrap>
        if not (ours or made_up or INSTALLED & set(file.parts) or file.is_relative_to(PYTHONS)):
            place = f"{file.name}:{line} in {frame.f_code.co_name}"
    return place


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return "did you mean 'x'?" for the known name nearest to `name`, or an empty string."""
    lowercase = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), lowercase, n=1, cutoff=0.6)
    return f"did you mean '{lowercase[close[0]]}'?" if close else ""


def unknown(
    kind: str, name: str, known: Iterable[str], next_step: str = "", where: str = ""
) -> UserError:
    """Return the error for an unknown name; it lists the known names and suggests the nearest one."""
    known = sorted(known)
    hint = did_you_mean(name, known)
    return UserError(
        f"there is no {kind} '{name}'"
        + (f" in {where}" if where else "")
        + (f": {hint}" if hint else ""),
        allowed=f"known: {', '.join(known) or 'none'}",
        next_step=next_step,
    )


def _is_about(error: OSError, place: Path) -> bool:
    """Return True if an error is about a place: a path in it, beside it or above it. Files that are only read do not
    count.
    """
    if not isinstance(error.filename, str | os.PathLike):
        return True
    named, place = Path(error.filename).absolute(), place.absolute()
    return named.is_relative_to(place.parent) or place.is_relative_to(named)


def _is_of_full_disk(error: BaseException, place: Path) -> bool:
    """Return True if the cause of an error is a full disk. The message of torch's file writer does not say so."""
    if isinstance(error, OSError):
        return error.errno in FULL_DISK
    if error.__context__ is not None and _is_of_full_disk(error.__context__, place):
        return True
    existing = next((path for path in (place, *place.absolute().parents) if path.exists()), None)
    return existing is not None and shutil.disk_usage(existing).free < FULL_BELOW


@contextmanager
def explain_write_errors(place: Path) -> Iterator[None]:
    """Raise a `UserError` that names the place if the disk is full or the place cannot be written."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if _is_of_full_disk(error, place):
            raise UserError(
                f"the disk that holds {place} is full",
                next_step=f"free some space, or choose another disk: {ELSEWHERE}",
            ) from error
        if not isinstance(error, OSError):
            raise
        if error.errno in CANNOT_WRITE and _is_about(error, place):
            raise UserError(
                f"{place} cannot be written ({error.strerror})",
                next_step=f"choose another folder: {ELSEWHERE}",
            ) from error
        raise
