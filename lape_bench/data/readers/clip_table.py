"""A table of clips: a CSV file with one clip per line, its path and its class.

    path,label[,split or fold][,group][,start_seconds,seconds or end_seconds]

The separator is a comma, a semicolon or a tab, whichever is most frequent in the first line, or the one that a first line
such as `sep=;` names. A byte order mark is ignored.
"""

import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from lape_bench.core.errors import UserError, did_you_mean
from lape_bench.core.regular_files import MOST_TABLE_BYTES, read_text
from lape_bench.data.clip_names import find_spelled_alike
from lape_bench.task import SIDE_NAMES, ClipEntry, Columns, Reader, Segment, SplitName, TaskCard

SEPARATORS = ",;\t"
SEPARATOR_LINE = re.compile(rf"sep=([{SEPARATORS}])\s*")  # a first line that spreadsheets write
MOST_FOLDS = 1_000
LONGEST_SECONDS = 1e6  # more than eleven days
Value = TypeVar("Value")


class ClipTable(Reader):
    """Clips as listed in a table. The recordings are below the root."""

    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the clips of the card's table."""
        recordings = card.recordings
        assert recordings is not None, "only a card with a table has this reader"
        assert recordings.table is not None, "only a card with a table has this reader"
        table = recordings.table
        if not table.is_file() and table.is_relative_to(
            recordings.folder
        ):  # the table was moved with the recordings
            table = root / table.relative_to(recordings.folder)
        return list_clips(table, recordings.columns, root)


class CsvRow(NamedTuple):
    """One clip's line.

    Attributes:
        table: the file.
        number: number of the line, from 1.
        values: the text in each column, by the name of the column, without surrounding spaces.
    """

    table: Path
    number: int
    values: dict[str, str]

    def text(self, column: str, allowed: str) -> str:
        """Return the text in a column; `allowed` describes the allowed values."""
        return self.value(column, allowed, str)

    def value(self, column: str, allowed: str, parse: Callable[[str], Value | None]) -> Value:
        """Return the parsed value of a column.

        Raises:
            UserError: the column is empty, or `parse` returns None or raises a ValueError.
        """
        text = self.values[column]
        try:
            value = parse(text) if text else None
        except ValueError:
            value = None
        if value is None:
            problem = f"has the {column} '{text}'" if text else f"has no {column}"
            raise UserError(f"{self} {problem}", allowed=f"it may be {allowed}")
        return value

    def __str__(self) -> str:
        return f"{self.table}, line {self.number}"


def column_names(table: Path) -> list[str]:
    """Return the names in the first line of a table.

    Raises:
        UserError: the table cannot be read, is empty, or repeats a name.
    """
    _, header = next(_lines(table), (0, []))
    names = [name for name in header if name]
    if not names:
        raise UserError(f"{table} is empty", allowed="a first line with the names of the columns")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise UserError(f"{table} has two columns '{twice[0]}'", next_step="rename one of them")
    return names


def column_texts(table: Path) -> dict[str, list[str]]:
    """Return the texts in every column of a table, by name."""
    names, texts = column_names(table), {}
    lines = _lines(table)
    _, header = next(lines)
    rows = [[*fields, *[""] * len(header)] for _, fields in lines]
    for name in names:
        number = header.index(name)
        texts[name] = [row[number] for row in rows]
    return texts


def list_clips(table: Path, columns: Columns, root: Path) -> list[ClipEntry]:
    """List the clips of a table.

    Args:
        table: the CSV file.
        columns: names of the columns.
        root: the folder of the recordings; paths are relative to it, or absolute and inside it.

    Raises:
        UserError: the table cannot be read or lacks a column, a line is not valid, or two lines describe the same clip.
    """
    clips: dict[str, ClipEntry] = {}
    line_of: dict[str, int] = {}
    for row in _rows(table, columns):
        clip = _clip(row, columns, root)
        before = clips.setdefault(clip.clip_id, clip)
        if before is not clip:
            raise UserError(
                f"{table} has two lines about '{clip.clip_id}': {line_of[clip.clip_id]}, which says "
                f"'{before.label}', and {row.number}, which says '{clip.label}'",
                allowed="a clip has one line and one class",
                next_step="remove one of each such pair",
            )
        line_of[clip.clip_id] = row.number
    listing = list(clips.values())
    if any(clip.fold == 0 for clip in listing):  # counted from 0
        listing = [clip._replace(fold=clip.fold + 1) for clip in listing if clip.fold is not None]
    return listing


def _clip(row: CsvRow, columns: Columns, root: Path) -> ClipEntry:
    path = _inside(row.text(columns.path, "the path of a recording"), root, row)
    clip_id = path.relative_to(root).with_suffix("").as_posix()
    label = unicodedata.normalize("NFC", row.text(columns.label, "the name of a class"))
    split: SplitName | None = None
    fold, group = None, None
    if columns.split is not None:
        known = ", ".join(SIDE_NAMES)
        split = row.value(columns.split, known, lambda text: SIDE_NAMES.get(text.lower()))
    if columns.fold is not None:
        fold = row.value(columns.fold, "a whole number, from 1 or from 0", _fold)
    if columns.group is not None:
        named = row.text(columns.group, "a name; a clip without a group gets its own name")
        group = unicodedata.normalize("NFC", named)
    segment = _segment(row, columns)
    if segment is not None:
        if columns.group is None:
            group = clip_id  # parts of one recording may overlap
        clip_id = f"{clip_id}@{segment.start_seconds:.3f}"
    return ClipEntry(clip_id, path, label, split, fold, group, segment)


def _segment(row: CsvRow, columns: Columns) -> Segment | None:
    """Return the part of its recording that a clip is; None if it is all of it."""
    if columns.start_seconds is None or not (columns.seconds or columns.end_seconds):
        return None
    start = row.value(columns.start_seconds, "seconds, from 0", _seconds)
    if columns.end_seconds is None:
        assert columns.seconds is not None
        length = row.value(columns.seconds, "seconds, above 0", lambda text: _seconds(text) or None)
        return Segment(start, length)

    def after_start(text: str) -> float | None:
        end = _seconds(text)
        return end if end is not None and end > start else None

    allowed = f"seconds, above the start at {start:g}"
    return Segment(start, row.value(columns.end_seconds, allowed, after_start) - start)


def _inside(text: str, root: Path, row: CsvRow) -> Path:
    """Return the path of a recording below the root, which a link may reach under another name."""
    path = Path(os.path.normpath(root / text.replace("\\", "/")))
    if path == root:
        raise UserError(f"{row} names {text}, which is the folder", allowed="a recording in it")
    if path.is_relative_to(root):
        return find_spelled_alike(path, root)
    if path.resolve().is_relative_to(root.resolve()):
        return root / path.resolve().relative_to(root.resolve())
    raise UserError(
        f"{row} names {text}, which is outside {root}",
        allowed="a path relative to that folder, or an absolute one inside it",
        next_step="give the folder that holds all recordings: 'bench tasks new' takes --audio FOLDER, "
        "'bench data prepare' --from FOLDER",
    )


def _fold(text: str) -> int | None:
    number = float(text)  # pandas writes whole numbers as 1.0 if the column has gaps
    return int(number) if number.is_integer() and 0 <= number <= MOST_FOLDS else None


def _seconds(text: str) -> float | None:
    value = float(text.replace(",", "."))  # a decimal comma
    return value if 0 <= value <= LONGEST_SECONDS else None


def _rows(table: Path, columns: Columns) -> Iterator[CsvRow]:
    known = column_names(table)
    for name in filter(None, columns.model_dump().values()):
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(
                f"{table} has no column '{name}'" + (f": {hint}" if hint else ""),
                allowed=f"its columns are {', '.join(known)}",
                next_step="'bench tasks new' takes --column path=NAME, --column label=NAME and so on",
            )
    lines = _lines(table)
    _, header = next(lines)
    for number, fields in lines:
        if any(fields[len(header) :]):
            raise UserError(
                f"{table}, line {number} has {len(fields)} columns, but the first line {len(header)}",
                next_step="fix the line; put a text that holds the separator in quotes",
            )
        filled = [*fields, *[""] * len(header)]
        yield CsvRow(table, number, dict(zip(header, filled, strict=False)))


def _lines(table: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and fields of each line that is not empty."""
    try:
        text = read_text(table, MOST_TABLE_BYTES)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{table} is not UTF-8 (byte {error.start})",
            next_step="save it as UTF-8, which spreadsheets call 'CSV UTF-8'",
        ) from error
    except OSError as error:
        raise UserError(
            f"the table {table} cannot be read ({error.strerror})",
            next_step="check that it is there; the card names it under 'recordings'",
        ) from error
    first = text.lstrip().partition("\n")[0]
    named = SEPARATOR_LINE.fullmatch(first)
    separator = named[1] if named else max(SEPARATORS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for fields in reader:
            if named and separator.join(fields).strip() == first.strip():
                continue
            stripped = [field.strip() for field in fields]
            if "\0" in "".join(stripped):
                raise UserError(f"{table}, line {reader.line_num} holds a null character")
            if any(stripped):
                yield reader.line_num, stripped
    except csv.Error as error:
        raise UserError(f"{table}, line {reader.line_num} is not CSV ({error})") from error
