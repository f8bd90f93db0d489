"""Records of several machines, merged into one folder."""

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from filelock import FileLock

from lape_bench.core.errors import UserError, explain_write_errors
from lape_bench.core.paths import new_file
from lape_bench.core.printable import printable
from lape_bench.core.regular_files import open_regular
from lape_bench.records import predictions
from lape_bench.records.predictions import read_predictions
from lape_bench.records.record import (
    ERROR,
    LOCK,
    MODEL,
    MOST_BYTES,
    PREDICTIONS,
    RECORD,
    RunRecord,
    cell_folder,
    read_record,
    record_folders,
)

MOST_ERROR_BYTES = 2**24  # of a traceback
MOST_MODEL_BYTES, MOST_MODEL_FILES = 2**35, 1_000  # of all files of a model together


@dataclass
class MergeResult:
    """Folders of the records that were copied or were there before, and a line for whatever was left out."""

    taken: list[Path] = field(default_factory=list)
    there: list[Path] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def merge(into: Path, sources: Sequence[Path], on_record: Callable[[], None]) -> MergeResult:
    """Copy every intact record of some folders into one; finished records are never overwritten.

    A finished record replaces a failed one. If a cell is finished on both sides with different predictions, which
    another machine or other package versions can cause, the present record stays and the other one is reported.

    Args:
        into: the receiving folder; it is created if it does not exist.
        sources: folders of records, which are only read.
        on_record: called after each record.

    Raises:
        UserError: a source is missing, holds no record, or lies in the receiving folder or around it; or results
            cannot be written.
    """
    merged = MergeResult()
    for source in sources:
        inner, outer = sorted((into.resolve(), source.resolve()), key=lambda p: -len(p.parts))
        if inner != outer and inner.is_relative_to(outer):
            raise UserError(
                f"one of {into} and {source} contains the other",
                allowed="a receiving folder outside the sources",
            )
        folders, problems = record_folders(source) if source.is_dir() else ([], [])
        merged.left_out += problems
        if not folders:
            raise UserError(f"{source} holds no record", allowed="a folder of records")
        for folder in folders:
            _merge_one(into, folder, merged)
            on_record()
    return merged


def _merge_one(into: Path, folder: Path, merged: MergeResult) -> None:
    try:
        record = _whole(folder)
    except UserError as error:
        merged.left_out.append(str(error))
        return
    target = cell_folder(into, record.cell, record.identity)
    if not target.resolve().is_relative_to(into.resolve()):
        merged.left_out.append(f"{folder} names a task whose folder would lie outside of {into}")
        return
    if target.resolve() == folder.resolve():
        merged.there.append(folder)
        return
    with explain_write_errors(target):
        target.mkdir(parents=True, exist_ok=True)
        with FileLock(target / LOCK):  # a cell that runs there is waited for
            before = _there(target)
            if before is None or (before.status == "failed" and record.status == "finished"):
                try:
                    _copy(folder, target, record, merged.left_out)
                except UserError as error:  # it changed since it was read
                    merged.left_out.append(str(error))
                    return
                merged.taken.append(folder)
            elif before.status == "finished" and record.status == "finished":
                if before.predictions_sha256 == record.predictions_sha256:
                    merged.there.append(folder)
                else:
                    merged.left_out.append(
                        f"{folder} has other predictions than {target}, which stays as it is"
                    )
            else:
                merged.there.append(folder)


def _whole(folder: Path) -> RunRecord:
    record = read_record(folder)
    if record.status == "finished":
        read_predictions(folder, record)
    return record


def _there(target: Path) -> RunRecord | None:
    """Return the record in a folder if it is whole; a damaged one is replaced."""
    try:
        return _whole(target)
    except UserError:
        return None


def _copy(folder: Path, target: Path, record: RunRecord, left_out: list[str]) -> None:
    """Copy the files that a record has, and no others; the record last."""
    if record.status == "finished":
        _copy_file(folder / PREDICTIONS, target / PREDICTIONS, predictions.MOST_BYTES)
        (target / ERROR).unlink(missing_ok=True)  # of a failed record that is replaced
    elif os.path.lexists(folder / ERROR):
        try:
            _copy_file(folder / ERROR, target / ERROR, MOST_ERROR_BYTES)
        except UserError as error:
            left_out.append(printable(str(error)))
    if os.path.lexists(folder / MODEL):
        try:
            _copy_model(folder / MODEL, target / MODEL)
        except UserError as error:
            shutil.rmtree(target / MODEL, ignore_errors=True)
            left_out.append(f"the model of {folder}: {error}")
    _copy_file(folder / RECORD, target / RECORD, MOST_BYTES)


def _copy_model(model: Path, target: Path) -> None:
    """Copy a kept model.

    Raises:
        UserError: it holds a link or anything else that is not a regular file or folder, cannot be read, or is too large.
    """
    if model.is_symlink() or not model.is_dir():
        raise UserError(f"{model} is not a folder")
    files, left = 0, MOST_MODEL_BYTES
    for place, folders, names in os.walk(model, onerror=_refuse):
        for name in folders:
            if (path := Path(place, name)).is_symlink():
                raise UserError(f"{path} is a link, and links are not followed here")
        for name in names:
            files += 1
            if files > MOST_MODEL_FILES:
                raise UserError(f"{model} holds more than {MOST_MODEL_FILES:,} files")
            path = Path(place, name)
            left -= _copy_file(path, target / path.relative_to(model), left)


def _copy_file(path: Path, target: Path, most_bytes: int) -> int:
    """Copy a regular file, and return its size in bytes.

    Raises:
        UserError: it is not a regular file, is too large, or cannot be read.
        OSError: the copy cannot be written.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_regular(path, most_bytes))
        except OSError as error:
            _refuse(error)
        copy = stack.enter_context(stack.enter_context(new_file(target)).open("wb"))
        shutil.copyfileobj(file, copy)
        return copy.tell()


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"{error.filename} cannot be read ({error.strerror})") from error
