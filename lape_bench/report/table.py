"""One table for every report, and its writers: Markdown, CSV and JSON; `terminal.py` and `latex.py` hold two more.

A table holds the entries, which figure is best, and the footnotes. A writer decides how they look.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from tabulate import tabulate

NONE = "—"  # no figure


class TableEntry(NamedTuple):
    """The entry of a row in one column.

    Attributes:
        text: the figure or label.
        small: a second figure in small type, such as the standard deviation.
        rank: among the figures of its column that can be compared.
        marks: keys of the table's notes.
        facts: the unrounded values behind it, for CSV and JSON.
    """

    text: str
    small: str = ""
    rank: Literal["", "best", "second"] = ""
    marks: tuple[str, ...] = ()
    facts: Mapping[str, Any] = {}


class TableColumn(NamedTuple):
    """A heading, the group of columns it belongs to, and whether its entries are left-aligned."""

    heading: str
    group: str = ""
    left: bool = False


class TableRow(NamedTuple):
    """A row, and the name of the block of rows it belongs to."""

    entries: tuple[TableEntry, ...]
    block: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: the first holds labels; columns without a group are repeated if groups are shown one by one.
        rows: rows of a block are consecutive.
        title: a line above it.
        notes: marks and their texts.
        remarks: lines about the whole table.
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
        """The headings in one line; a heading that occurs in several groups is preceded by its group."""
        plain = [column.heading for column in self.columns]
        return [
            f"{column.group}: {column.heading}"
            if column.group and plain.count(column.heading) > 1
            else column.heading
            for column in self.columns
        ]

    def blocks(self) -> Iterable[tuple[str, TableRow]]:
        """Yield every row with the name of the block that it begins, or an empty string."""
        previous = ""
        for row in self.rows:
            yield (row.block if row.block != previous else ""), row
            previous = row.block


def markdown(table: Table) -> str:
    """Write a table as Markdown, best in bold and second underlined."""
    rows = []
    for block, row in table.blocks():
        if block:
            rows.append([f"**{_escaped(block)}**", *[""] * (len(table.columns) - 1)])
        rows.append([*map(_markdown_entry, row.entries)])
    lines = [f"**{_escaped(table.title)}**", ""] if table.title else []
    lines.append(
        tabulate(
            rows,
            headers=[*map(_escaped, table.headings)],
            tablefmt="pipe",
            colalign=["left" if column.left else "right" for column in table.columns],
            disable_numparse=True,
        )
    )
    notes = [f"<sup>{mark}</sup> {_escaped(text)}" for mark, text in table.notes.items()]
    for text in [*notes, *map(_escaped, table.remarks)]:
        lines += ["", text]
    return "\n".join(lines) + "\n"


def as_csv(tables: Sequence[Table]) -> str:
    """Write tables as CSV, one line for each entry, with its unrounded facts."""
    lines = []
    for table in tables:
        for row in table.rows:
            for column, entry in zip(table.columns[1:], row.entries[1:], strict=True):
                position = {"table": table.title, "block": row.block, "row": row.entries[0].text}
                position |= {"group": column.group, "column": column.heading}
                facts = {key: _csv_value(value) for key, value in entry.facts.items()}
                lines.append({**position, "text": _plain_text(entry), **facts})
    names = dict.fromkeys(name for line in lines for name in line)
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def as_data(table: Table) -> dict[str, Any]:
    """Return a table as plain data, every entry with its unrounded facts."""
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
    """Write plain data as JSON; NaN, such as the standard deviation of one seed, becomes null."""
    return json.dumps(_finite(values), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _finite(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [_finite(value) for value in values]
    return None if isinstance(values, float) and not math.isfinite(values) else values


def _csv_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return "" if isinstance(value, float) and math.isnan(value) else value


def _plain_text(entry: TableEntry) -> str:
    text = entry.text + "".join(entry.marks)
    return f"{text} {entry.small}" if entry.small else text


def _markdown_entry(entry: TableEntry) -> str:
    text = _escaped(entry.text)
    if entry.rank:
        text = f"**{text}**" if entry.rank == "best" else f"<ins>{text}</ins>"
    if entry.small:
        text += f" {_escaped(entry.small)}"
    return text + (f"<sup>{','.join(entry.marks)}</sup>" if entry.marks else "")


def _escaped(text: str) -> str:
    """Escape the characters that Markdown would interpret."""
    for character in "|*<":
        text = text.replace(character, f"\\{character}")
    return text.replace("\n", " ")
