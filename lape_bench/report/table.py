"""One table for every report, and its writers: terminal, Markdown, CSV and JSON.

It says what stands where, which figure is best, and what a footnote explains; a writer decides how that looks.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.rule import Rule
from rich.table import Table as RichTable
from rich.text import Text

NONE = "—"  # no figure
GAP = 2  # spaces between columns of the terminal
INDENT = "  "
NARROWEST_LABEL = 20  # what the labels are folded to before the columns are divided
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class TableEntry(NamedTuple):
    """What stands in a row below one heading.

    Attributes:
        text: the figure or label, as it is read.
        small: what goes with it, such as its deviation.
        rank: among the figures of its column that may be compared.
        marks: keys of the table's notes.
        facts: what stands behind it, unrounded, for the formats that machines read.
    """

    text: str
    small: str = ""
    rank: Literal["", "best", "second"] = ""
    marks: tuple[str, ...] = ()
    facts: Mapping[str, Any] = {}


class TableColumn(NamedTuple):
    """A heading, the group of columns it stands in, and on which side its entries are aligned."""

    heading: str
    group: str = ""
    left: bool = False


class TableRow(NamedTuple):
    """A row, and the name of the block of rows it stands in."""

    entries: tuple[TableEntry, ...]
    block: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: the first is of labels; those without a group are repeated where the groups are shown apart.
        rows: in blocks, one after the other.
        title: a line above it.
        notes: marks and what they stand for.
        remarks: what holds of the whole table.
    """

    columns: tuple[TableColumn, ...]
    rows: tuple[TableRow, ...]
    title: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def groups(self) -> list[str]:
        """The names of the groups of columns, in order."""
        return list(dict.fromkeys(column.group for column in self.columns if column.group))

    @property
    def headings(self) -> list[str]:
        """The headings in one line, with the group before one that stands in several."""
        plain = [column.heading for column in self.columns]
        return [
            f"{column.group}: {column.heading}"
            if column.group and plain.count(column.heading) > 1
            else column.heading
            for column in self.columns
        ]

    def blocks(self) -> Iterable[tuple[str, TableRow]]:
        """Give every row with the name of the block that it begins, or an empty string."""
        before = ""
        for row in self.rows:
            yield (row.block if row.block != before else ""), row
            before = row.block


@dataclass(frozen=True)
class Terminal:
    """A table as `rich` draws it: whole where it fits, or else each group of columns by itself."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the table out for the console's width."""
        if self.table.title:
            yield Text(self.table.title, "bold")
        for number, columns in enumerate(self._parts(options.max_width)):
            if number:
                yield ""
            yield self._drawn(columns, options.max_width)
        for mark, text in self.table.notes.items():
            yield Text(f"{_raised([mark])} {text}")
        for text in self.table.remarks:
            yield Text(text)

    def _parts(self, width: int) -> list[list[int]]:
        columns = self.table.columns
        everything = list(range(len(columns)))
        if len(self.table.groups) < 2 or self._width(everything, stacked=False) <= width:
            return [everything]
        return [
            [n for n in everything if columns[n].group in ("", group)]
            for group in self.table.groups
        ]

    def _headings(self, columns: Sequence[int]) -> list[str]:
        if len(columns) == len(self.table.columns):
            return self.table.headings
        return [self.table.columns[n].heading for n in columns]

    def _width(self, columns: Sequence[int], stacked: bool) -> int:
        """Return the characters that some columns need, the labels folded."""
        label, *others = self._needed(columns, stacked)
        return min(label, NARROWEST_LABEL) + sum(others) + GAP * len(others)

    def _needed(self, columns: Sequence[int], stacked: bool) -> list[int]:
        """Return the characters that each of some columns needs."""
        needed = []
        for n, heading in zip(columns, self._headings(columns), strict=True):
            texts = [heading, *(_plain(row.entries[n], stacked) for row in self.table.rows)]
            needed.append(max(cell_len(line) for text in texts for line in text.split("\n")))
        return needed

    def _drawn(self, columns: Sequence[int], width: int) -> RichTable:
        stacked = self._width(columns, stacked=False) > width
        apart = len(columns) < len(self.table.columns)
        drawn = RichTable(
            box=None,
            pad_edge=False,
            header_style="bold",
            title=Text(self.table.columns[columns[-1]].group, "bold") if apart else None,
            title_justify="left",
        )
        for n, heading in zip(columns, self._headings(columns), strict=True):
            justify: Literal["left", "right"] = "left" if self.table.columns[n].left else "right"
            drawn.add_column(Text(heading), justify=justify, no_wrap=n > 0, overflow="fold")
        room = width - sum(self._needed(columns, stacked)[1:]) - GAP * (len(columns) - 1)
        before = ""
        for block, row in self.table.blocks():
            if block:
                if not before and row is not self.table.rows[0]:
                    drawn.add_row(*(Rule(style="") for _ in columns))
                drawn.add_row(Text(block, "bold"))
            before = row.block
            label = wrap_label(_plain(row.entries[0], stacked), room, INDENT if row.block else "")
            entries = [_text(row.entries[n], stacked) for n in columns[1:]]
            drawn.add_row(Text(label), *entries)
        return drawn


def wrap_label(label: str, room: int, indent: str) -> str:
    """Indent a label and break it between words, or where a word alone is too long, between the parts of a setting."""
    lines, further = [indent], indent + INDENT
    for word in re.findall(r"\S+\s*", label):
        fits = cell_len(further + word.rstrip()) <= room
        for part in [word] if fits else re.findall(r"[^,.=]*[,.=]*", word):
            if cell_len((lines[-1] + part).rstrip()) > room and lines[-1].strip():
                lines.append(further)
            lines[-1] += part
    return "\n".join(map(str.rstrip, lines))


def markdown(table: Table) -> str:
    """Write a table as Markdown, best in bold and second underlined."""
    lines = [f"**{_escaped(table.title)}**", ""] if table.title else []
    lines.append("| " + " | ".join(map(_escaped, table.headings)) + " |")
    lines.append("|" + "|".join("---" if c.left else "---:" for c in table.columns) + "|")
    for block, row in table.blocks():
        if block:
            lines.append(f"| **{_escaped(block)}** |" + " |" * (len(table.columns) - 1))
        lines.append("| " + " | ".join(map(_marked_down, row.entries)) + " |")
    below = [f"<sup>{mark}</sup> {_escaped(text)}" for mark, text in table.notes.items()]
    for text in [*below, *map(_escaped, table.remarks)]:
        lines += ["", text]
    return "\n".join(lines) + "\n"


def as_csv(tables: Sequence[Table]) -> str:
    """Write tables as CSV, one line an entry, with the unrounded facts behind it."""
    lines = []
    for table in tables:
        for row in table.rows:
            for column, entry in zip(table.columns[1:], row.entries[1:], strict=True):
                place = {"table": table.title, "block": row.block, "row": row.entries[0].text}
                place |= {"group": column.group, "column": column.heading}
                facts = {key: _flat(value) for key, value in entry.facts.items()}
                lines.append({**place, "text": _plain(entry, stacked=False), **facts})
    names = dict.fromkeys(name for line in lines for name in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def as_data(table: Table) -> dict[str, Any]:
    """Return a table as plain data, with the unrounded facts behind every entry."""
    rows = []
    for row in table.rows:
        label, *entries = row.entries
        rows.append(
            {
                "label": label.text,
                "block": row.block,
                "notes": [table.notes[mark] for mark in label.marks],
                "entries": [
                    {"group": column.group, "column": column.heading, "text": entry.text}
                    | {"small": entry.small, "rank": entry.rank}
                    | {"notes": [table.notes[mark] for mark in entry.marks]}
                    | {"facts": dict(entry.facts)}
                    for column, entry in zip(table.columns[1:], entries, strict=True)
                ],
            }
        )
    return {
        "title": table.title,
        "columns": [column._asdict() for column in table.columns],
        "rows": rows,
        "notes": dict(table.notes),
        "remarks": list(table.remarks),
    }


def as_json(values: Any) -> str:
    """Write plain data as JSON; what is no number there, such as the deviation of one seed, becomes null."""
    return json.dumps(_finite(values), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _flat(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "" if isinstance(value, float) and math.isnan(value) else value


def _raised(marks: Iterable[str]) -> str:
    return "".join(mark.translate(RAISED) for mark in marks)


def _plain(entry: TableEntry, stacked: bool) -> str:
    return _text(entry, stacked).plain


def _text(entry: TableEntry, stacked: bool) -> Text:
    """Write an entry for the terminal, what is small on a line of its own if asked."""
    style = {"": "", "best": "bold", "second": "underline"}[entry.rank]
    text = Text.assemble((entry.text, style), _raised(entry.marks))
    if entry.small:
        text.append("\n" if stacked else " ")
        text.append(entry.small)
    return text


def _marked_down(entry: TableEntry) -> str:
    text = _escaped(entry.text)
    if entry.rank:
        text = f"**{text}**" if entry.rank == "best" else f"<ins>{text}</ins>"
    if entry.small:
        text += f" {_escaped(entry.small)}"
    return text + (f"<sup>{','.join(entry.marks)}</sup>" if entry.marks else "")


def _escaped(text: str) -> str:
    """Keep Markdown from reading a text as anything but itself."""
    for character in "|*<":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
