"""Submissions: folders of records that others propose, each with the card of its systems.

A submission holds `card.yaml` and packs, or folders of records, and nothing else. Nothing of it is run or imported, and no
link is followed.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from lape_bench.core.config import flatten
from lape_bench.core.errors import UserError
from lape_bench.core.printable import printable
from lape_bench.records.pack import SUFFIX
from lape_bench.records.record import PREDICTIONS, RECORD, RunRecord, record_folders
from lape_bench.results.known_cells import KnownCells
from lape_bench.results.stored_cells import StoredCell, stored_cells
from lape_bench.results.system_card import CARD, MARKUP, SystemCard, read_card
from lape_bench.results.verify import RecordFinding, verify

README = "README.md"  # allowed beside the submissions
NAME = r"[A-Za-z0-9][\w.-]{0,59}"  # of a submission's folder
MOST_FILE_BYTES = 10 * 2**20
MOST_SUBMISSION_BYTES = 40 * 2**20
MOST_FILES = 5_000


class SubmissionResult(NamedTuple):
    """What the check of a submission has found.

    Attributes:
        name: of its folder.
        finished: number of its finished records.
        refused: reasons to refuse it, one line each.
        remarks: lines for the reader of a submission: records that are outdated or doubtful.
    """

    name: str
    finished: int
    refused: tuple[str, ...]
    remarks: tuple[str, ...]


def submission_folders(folder: Path) -> list[Path]:
    """Return the submissions in a folder, sorted; links are left out.

    Raises:
        UserError: the folder is missing, a link, or itself a submission.
    """
    return [path for path in _entries(folder) if path.is_dir() and not path.is_symlink()]


def _entries(folder: Path) -> list[Path]:
    if folder.is_symlink() or not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}", allowed="a folder of submissions, not a link"
        )
    paths = sorted(path for path in folder.iterdir() if path.name != README)
    if any(path.name == CARD for path in paths):
        raise UserError(
            f"{folder} is one submission", next_step="give the folder of submissions that holds it"
        )
    return paths


def check_submissions(
    folder: Path, system_version: Callable[[str], int | None], references: Sequence[Path]
) -> list[SubmissionResult]:
    """Check every submission in a folder.

    Args:
        folder: of submissions.
        system_version: as for `verify`.
        references: folders of results that predictions and test sets are compared with.

    Raises:
        UserError: the folder is missing, a link, or itself a submission.
    """
    known = KnownCells()
    for reference in references:
        known.trust(reference)
    names: dict[str, Path] = {}  # of cards
    return [_checked(path, system_version, known, names) for path in _entries(folder)]


def _checked(
    folder: Path,
    system_version: Callable[[str], int | None],
    known: KnownCells,
    names: dict[str, Path],
) -> SubmissionResult:
    if problems := [*_file_problems(folder)]:
        return SubmissionResult(_line(folder.name), 0, tuple(map(_line, problems)), ())
    refused: list[str] = []
    card = None
    try:
        card = read_card(folder)
    except UserError as error:
        refused.append(str(error))
    verified = verify(folder, system_version, known)
    refused += _lines(folder, (f for f in verified.findings if f.grade == "wrong"))
    remarks = _lines(folder, (f for f in verified.findings if f.grade != "wrong"))
    if verified.failed:
        refused.append(f"it holds {verified.failed} failed records, which have no score")
    records = [*_records(folder)]
    refused += _markup_in_names(records)
    if card is not None:
        refused += _card_problems(card, records)
        first = names.setdefault(card.name, folder)
        if first != folder:
            refused.append(f"its card has the name of {first.name}: '{card.name}'")
    if not verified.finished:
        refused.append("it holds no finished record")
    return SubmissionResult(
        _line(folder.name),
        verified.finished,
        tuple(map(_line, refused)),
        tuple(map(_line, remarks)),
    )


def _line(text: str) -> str:
    """Make one line of a text: a second line could give commands to the program that reads a log."""
    return printable(" ".join(text.split()))


def _file_problems(folder: Path) -> Iterator[str]:
    """Check names, kinds and sizes of a submission's files before any is read."""
    if not re.fullmatch(NAME, folder.name):
        yield f"its folder cannot have the name '{folder.name}'; allowed: letters, digits and . _ -"
    if folder.is_symlink() or not folder.is_dir():
        yield "it is not a folder" if not folder.is_symlink() else "it is a link"
        return
    waiting, files, total = [folder], 0, 0
    while waiting:
        place = waiting.pop()
        with os.scandir(place) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            name = Path(entry.path).relative_to(folder).as_posix()
            files += 1
            if files > MOST_FILES:
                yield f"it has more than {MOST_FILES:,} files; pack them with 'bench pack'"
                return
            if entry.is_symlink():
                yield f"{name} is a link"
            elif entry.is_dir(follow_symlinks=False):
                waiting.append(Path(entry.path))
            elif not entry.is_file(follow_symlinks=False):
                yield f"{name} is not a regular file"
            elif not _belongs(entry.name, in_root=place == folder):
                yield f"{name} does not belong to a submission; allowed: {CARD}, packs, and folders of records"
            else:
                size = entry.stat(follow_symlinks=False).st_size
                total += size
                if size > MOST_FILE_BYTES:
                    yield f"{name} has {size:,} bytes; allowed: at most {MOST_FILE_BYTES:,}"
    if total > MOST_SUBMISSION_BYTES:
        yield f"it has {total:,} bytes; allowed: at most {MOST_SUBMISSION_BYTES:,}"


def _belongs(name: str, in_root: bool) -> bool:
    if in_root:
        return name == CARD or Path(name).suffix == SUFFIX
    return name in (RECORD, PREDICTIONS)


def _lines(folder: Path, findings: Iterable[RecordFinding]) -> list[str]:
    """Write findings as lines, one for all records with the same one."""
    by_reason: dict[str, list[str]] = {}
    for finding in findings:
        place = finding.folder.relative_to(folder).as_posix()
        by_reason.setdefault(f"{finding.grade}: {finding.what}", []).append(place)
    return [
        f"{places[0]}{f' and {len(places) - 1} more' if len(places) > 1 else ''} is {reason}"
        for reason, places in by_reason.items()
    ]


def _records(folder: Path) -> Iterator[RunRecord]:
    cells = stored_cells(folder, record_folders(folder)[0])
    return (cell.record for cell in cells if isinstance(cell, StoredCell))


def _markup_in_names(records: Iterable[RunRecord]) -> list[str]:
    """Return a line for each name in a record that holds markup, which could be a script."""
    names: set[str] = set()
    for record in records:
        settings = flatten(record.cell.settings)
        names |= {record.cell.system, record.cell.task, *record.provenance, *settings}
        names |= set(map(str, settings.values()))
    return [
        f"a record has markup in the name '{name}'" for name in sorted(names) if MARKUP.search(name)
    ]


def _card_problems(card: SystemCard, records: Sequence[RunRecord]) -> Iterator[str]:
    """Compare a card with the records that it is about."""
    systems = {record.cell.system_name for record in records}
    for system in sorted({*card.systems} - systems):
        yield f"{CARD} names the system '{system}', and no record is of it"
    for system in sorted(systems - {*card.systems}):
        yield f"{CARD} does not name the system '{system}', which has records"
    for task in sorted({record.cell.task for record in records}):
        if card.contamination_of(task) is None:
            yield f"{CARD} does not say under 'contamination' what the system has heard of {task}"
