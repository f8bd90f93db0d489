"""Records of several machines, merged into one folder."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from lape_bench.core.errors import UserError, explain_write_errors
from lape_bench.core.paths import new_file
from lape_bench.records.predictions import read_predictions
from lape_bench.records.record import (
    ERROR,
    LOCK,
    RECORD,
    WORK,
    RunRecord,
    cell_folder,
    read_record,
    record_folders,
)


@dataclass
class MergeResult:
    """Folders of the records that were copied or were there before, and a line for each record left out."""

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
        folders = record_folders(source) if source.is_dir() else []
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
                _copy(folder, target)
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


def _copy(folder: Path, target: Path) -> None:
    """Copy a cell's folder, the record last; what a run needs only while it runs stays behind."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in files if path.relative_to(folder).parts[0] not in (WORK, LOCK)]
    for path in sorted(kept, key=lambda path: path.name == RECORD):
        with new_file(target / path.relative_to(folder)) as temporary:
            shutil.copyfile(path, temporary)
    if not (folder / ERROR).exists():
        (target / ERROR).unlink(missing_ok=True)  # of a record that failed and has given way
