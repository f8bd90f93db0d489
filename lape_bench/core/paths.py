"""The folders of the harness on this machine, and functions that write files and folders whole or not at all."""

import glob
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_path

from lape_bench.core.errors import UserError, explain_write_errors
from lape_bench.core.leftovers import is_left_over, process_tag

PART = ".part-"
ABANDONED_SECONDS = 24 * 3600  # age of another machine's unfinished folder when it is removed
FLUSHED_SINGLY = 16  # most files that are flushed to the disk one by one


def home() -> Path:
    """Return the cache folder: `LAPE_BENCH_HOME`, or if it is not set, the platform's cache folder."""
    chosen = os.environ.get("LAPE_BENCH_HOME")
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("lape_bench")


def within_home(path: Path) -> Path:
    """Return a path relative to the cache folder if it is inside, so that the cache can be moved."""
    return path.relative_to(home()) if path.is_relative_to(home()) else path


def manifest_path(reference: str) -> Path:
    """Return the path of the manifest of a task, or of task@variant."""
    return home() / "manifests" / f"{reference}.parquet"


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `path` if the block succeeds.

    Raises:
        UserError: the disk is full or the folder cannot be written; no file is left behind.
    """
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_special_file(path)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
            if is_left_over(left.name):
                left.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{process_tag()}")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _flush(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _refuse_special_file(path: Path) -> None:
    """Raise a `UserError` for a device or FIFO, which the new file would replace. `/dev/stdout` is a link to one."""
    is_open_file = path.is_symlink() and str(path.readlink()).startswith("/proc/")
    if is_open_file or (path.exists() and not path.is_file() and not path.is_dir()):
        raise UserError(f"{path} is not a regular file", allowed="a new file, or one to replace")


class Staging:
    """A temporary folder that gets its final name when the block ends, or is deleted if it has none.

    Attributes:
        path: the empty folder to fill.
        name: set this to keep the folder: its final name within the parent folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name: str | None = None


@contextmanager
def staged_folder(parent: Path) -> Iterator[Staging]:
    """Yield a folder to fill, which then appears below `parent` complete or not at all.

    Folders made this way are named by their content. If another process has finished a folder of the same name first,
    that one is kept and this one is deleted.
    """
    with staged_folders(parent) as stage:
        yield stage()


@contextmanager
def staged_folders(parent: Path) -> Iterator[Callable[[], Staging]]:
    """Yield a function that makes folders to fill, from any thread; see `staged_folder`.

    They are flushed to the disk together when the block succeeds, and then appear one after the other.
    """
    with explain_write_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        stagings: list[Staging] = []

        def stage() -> Staging:
            staging = Staging(part_folder(parent))
            stagings.append(staging)
            return staging

        try:
            yield stage
            named = [staging for staging in stagings if staging.name is not None]
            _flush_all(staging.path for staging in named)
            for staging in named:
                _appear(staging, parent)
        finally:
            for staging in stagings:
                shutil.rmtree(staging.path, ignore_errors=True)


def part_folder(parent: Path) -> Path:
    """Make a temporary folder. If this process is killed, a later one removes it as a leftover."""
    return Path(tempfile.mkdtemp(dir=parent, prefix=f"{PART}{process_tag()}"))


def remove_leftovers() -> None:
    """Remove unfinished files of killed processes from the cache."""
    for pattern in ("store", "data", "artifacts/*"):
        for parent in home().glob(pattern):
            _remove_abandoned(parent)


def discard_folder(folder: Path) -> None:
    """Remove a folder in one step, so that no process finds a part of it."""
    aside = part_folder(folder.parent)
    with suppress(OSError):  # another process was faster
        folder.rename(aside / folder.name)
    shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def digest(path: Path, kind: str) -> str:
    """Return a file's checksum of the given kind, such as md5, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    return digest(path, "sha256")


def require_exists(path: Path, what: str) -> Path:
    """Return an absolute path that exists.

    Args:
        path: a path that a user gave.
        what: what the path is for, in the error: "the folder".

    Raises:
        UserError: the path does not exist.
    """
    path = path.expanduser().absolute()
    if not path.exists():
        raise UserError(
            f"{what} {path} does not exist", next_step="check the path for a typing mistake"
        )
    return path


def _appear(staging: Staging, parent: Path) -> None:
    assert staging.name is not None
    staging.path.chmod(0o755)
    try:
        staging.path.rename(parent / staging.name)
    except OSError:
        if not (parent / staging.name).is_dir():
            raise


def _remove_abandoned(parent: Path) -> None:
    """Remove unfinished files of killed processes. A file from another machine is removed once it is a day old."""
    for folder in parent.glob(f"{PART}*"):
        with suppress(OSError):  # another process may be removing it too
            if is_left_over(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
                continue
            newest = max(path.stat().st_mtime for path in [folder, *folder.rglob("*")])
            if time.time() - newest > ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _flush_all(folders: Iterable[Path]) -> None:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    if len(files) > FLUSHED_SINGLY:
        os.sync()  # An unpacked archive holds thousands of clips; flushing them one by one would take minutes.
    else:
        for path in files:
            _flush(path)


def _flush(path: Path) -> None:
    # Without this the rename can reach the disk before the bytes, and a power cut leaves an empty file.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
