"""Tables in the terminal, drawn by rich: whole if the width allows it, else each group of columns by itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.rule import Rule
from rich.table import Table as RichTable
from rich.text import Text

from lape_bench.report.table import Table, TableEntry

GAP = 2  # spaces between columns
INDENT = "  "
NARROWEST_LABEL = 20  # characters; labels are wrapped to this width before figures are divided
UNLIMITED = 100_000  # characters
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
STYLES = {"": "", "best": "bold", "second": "underline"}


@dataclass(frozen=True)
class TerminalTable:
    """A table that rich can print."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the table out for the console's width."""
        if self.table.title:
            yield Text(self.table.title, "bold")
        for number, columns in enumerate(self._parts(console, options)):
            if number:
                yield ""
            yield self._part(columns, console, options)
        for mark, text in self.table.notes.items():
            yield Text(f"{mark.translate(SUPERSCRIPTS)} {text}")
        for text in self.table.remarks:
            yield Text(text)

    def _parts(self, console: Console, options: ConsoleOptions) -> list[list[int]]:
        """Return the columns of each part: all columns, or those of each group after the label."""
        columns = self.table.columns
        everything = list(range(len(columns)))
        if len(self.table.groups) < 2 or self._fits(everything, console, options):
            return [everything]
        return [
            [n for n in everything if columns[n].group in ("", group)]
            for group in self.table.groups
        ]

    def _fits(self, columns: Sequence[int], console: Console, options: ConsoleOptions) -> bool:
        labels = [self.table.columns[0].heading, *(row.entries[0].text for row in self.table.rows)]
        least = min(max(map(cell_len, labels)), NARROWEST_LABEL)
        return least <= self._label_room(columns, False, console, options)

    def _label_room(
        self, columns: Sequence[int], stacked: bool, console: Console, options: ConsoleOptions
    ) -> int:
        """Return the characters that the other columns leave for the label."""
        others = self._empty(columns[1:], self._headings(columns)[1:])
        for row in self.table.rows:
            others.add_row(*(_text(row.entries[n], stacked) for n in columns[1:]))
        needed = Measurement.get(console, options.update_width(UNLIMITED), others).maximum
        return options.max_width - GAP - needed

    def _headings(self, columns: Sequence[int]) -> list[str]:
        if len(columns) == len(self.table.columns):
            return self.table.headings
        return [self.table.columns[n].heading for n in columns]

    def _empty(self, columns: Sequence[int], headings: Sequence[str]) -> RichTable:
        drawn = RichTable(box=None, pad_edge=False, header_style="bold", title_justify="left")
        for n, heading in zip(columns, headings, strict=True):
            justify: Literal["left", "right"] = "left" if self.table.columns[n].left else "right"
            drawn.add_column(Text(heading), justify=justify, no_wrap=n > 0, overflow="fold")
        return drawn

    def _part(self, columns: Sequence[int], console: Console, options: ConsoleOptions) -> RichTable:
        drawn = self._empty(columns, self._headings(columns))
        if len(columns) < len(self.table.columns):
            drawn.title = Text(self.table.columns[columns[-1]].group, "bold")
        stacked = not self._fits(columns, console, options)
        room = self._label_room(columns, stacked, console, options)
        previous = ""
        for block, row in self.table.blocks():
            if block:
                if not previous and row is not self.table.rows[0]:
                    drawn.add_row(*(Rule(style="") for _ in columns))
                drawn.add_row(Text(block, "bold"))
            previous = row.block
            label = _text(row.entries[0], stacked).plain
            wrapped = wrap_label(label, room, INDENT if row.block else "")
            drawn.add_row(Text(wrapped), *(_text(row.entries[n], stacked) for n in columns[1:]))
        return drawn


def wrap_label(label: str, room: int, indent: str) -> str:
    """Indent a label and wrap it between words; a word that is too long is wrapped between parts of a setting."""
    lines, hanging = [indent], indent + INDENT
    for word in re.findall(r"\S+\s*", label):
        fits = cell_len(hanging + word.rstrip()) <= room
        for part in [word] if fits else re.findall(r"[^,.=]*[,.=]*", word):
            if cell_len((lines[-1] + part).rstrip()) > room and lines[-1].strip():
                lines.append(hanging)
            lines[-1] += part
    return "\n".join(map(str.rstrip, lines))


def _text(entry: TableEntry, stacked: bool) -> Text:
    """Write an entry; if stacked, its small text has a line of its own."""
    marks = "".join(entry.marks).translate(SUPERSCRIPTS)
    text = Text.assemble((entry.text, STYLES[entry.rank]), marks)
    if entry.small:
        text.append("\n" if stacked else " ")
        text.append(entry.small)
    return text
