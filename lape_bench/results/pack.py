"""Results folders packed: one file for each task, small enough for a repository, see `records.pack`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from lape_bench.core.errors import UserError, explain_write_errors, unknown
from lape_bench.records.pack import (
    SUFFIX,
    PackedCell,
    find_packs,
    packed,
    read_pack,
    write_pack,
)
from lape_bench.records.predictions import read_predictions
from lape_bench.records.record import read_record, record_folders
from lape_bench.results.verify import verify


class PackResult(NamedTuple):
    """The packs that were written, with the number of their cells, and a line for each record that was left out."""

    packs: dict[Path, int]
    left_out: list[str]


def pack(
    sources: Sequence[Path],
    into: Path,
    tasks: Sequence[str],
    system_version: Callable[[str], int | None],
) -> PackResult:
    """Pack the finished cells of some folders, one file for each task; a file that is there is replaced.

    Args:
        sources: folders of records or of packs; of two records of one cell the later one counts.
        into: folder of the packs.
        tasks: names, or name@variant, to pack; none for all.
        system_version: as for `verify`; records that are wrong or outdated are left out.

    Raises:
        UserError: a source is missing, no cell is left, there is no finished cell of a task, or a pack cannot be written.
    """
    cells: dict[str, PackedCell] = {}  # by identity
    left_out: list[str] = []
    for source in sources:
        if not source.is_dir():
            raise UserError(f"there is no folder {source}", allowed="a folder of records or packs")
        bad: set[Path] = set()
        for finding in verify(source, system_version).findings:
            if finding.grade != "doubtful" and finding.folder not in bad:
                bad.add(finding.folder)
                left_out.append(f"{finding.folder} is {finding.grade}: {finding.what}")
        found: list[PackedCell | None] = [
            cell for path in find_packs(source) if path not in bad for cell in read_pack(path)
        ]
        found += [_packed(folder) for folder in record_folders(source)[0] if folder not in bad]
        cells |= {cell.record.identity: cell for cell in found if cell and cell.folder not in bad}
    by_task: dict[str, list[PackedCell]] = {}
    for cell in cells.values():
        by_task.setdefault(cell.record.cell.task, []).append(cell)
    if not by_task:
        raise UserError("no record is left to pack", next_step="'bench verify' says why")
    for task in tasks:
        if task not in by_task:
            raise unknown("finished cell of the task", task, by_task)
    packs = {}
    with explain_write_errors(into):
        into.mkdir(parents=True, exist_ok=True)
    for task in sorted(tasks or by_task):
        path = into / f"{task}{SUFFIX}"
        write_pack(path, by_task[task])
        packs[path] = len(by_task[task])
    return PackResult(packs, left_out)


def _packed(folder: Path) -> PackedCell | None:
    """Pack the cell of a folder; None if it failed."""
    record = read_record(folder)
    if record.status == "failed":
        return None
    return packed(folder, record, read_predictions(folder, record))
