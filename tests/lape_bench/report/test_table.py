"""One table in every format: the same figures, the best marked, whole at any width."""

import csv
import io
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from lape_bench.report.table import (
    Table,
    TableColumn,
    TableEntry,
    TableRow,
    as_csv,
    as_data,
    as_json,
    markdown,
)
from lape_bench.report.terminal import TerminalTable, wrap_label

WIDE = Table(
    columns=(
        TableColumn("system", left=True),
        *(TableColumn(f"task-{n}", "Speech") for n in range(5)),
        TableColumn("average", "Speech"),
        *(TableColumn(f"task-{n}", "Sound") for n in range(5, 9)),
        TableColumn("average", "Sound"),
    ),
    rows=tuple(
        TableRow(
            (
                TableEntry(f"system {s}"),
                *(TableEntry(f"{s}{n}.5", "± 0.1", facts={"score": s / 10}) for n in range(10, 21)),
            )
        )
        for s in range(1, 4)
    ),
    title="Accuracy",
    notes={"†": "Fewer seeds."},
)


def drawn(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False, markup=False)
    console.print(TerminalTable(table))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_that_is_wide_enough_shows_the_table_whole_with_its_groups_named() -> None:
    title, headings, *rows = drawn(WIDE, 300).splitlines()
    assert title.strip() == "Accuracy"
    assert "Speech: average" in headings
    assert "Sound: average" in headings
    assert len(rows) == 3 + 1
    assert rows[0].split()[:4] == ["system", "1", "110.5", "±"]


@settings(max_examples=20)
@given(st.integers(60, 250))
def test_at_any_width_no_line_is_wider_and_every_figure_stands_there_once(width: int) -> None:
    lines = drawn(WIDE, width).splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    for row in WIDE.rows:
        for entry in row.entries[1:]:
            assert words.count(entry.text) == 1


def test_a_narrow_terminal_shows_each_group_by_itself_under_its_name() -> None:
    lines = [line.rstrip() for line in drawn(WIDE, 80).splitlines()]
    speech, sound = lines.index("Speech"), lines.index("Sound")
    assert "task-0" in lines[speech + 1]
    assert "task-5" not in lines[speech + 1]
    assert "task-5" in lines[sound + 1]
    assert sum(line.startswith("system ") for line in lines) == 2 * (1 + 3)


def test_a_long_label_breaks_between_words_or_else_between_the_parts_of_a_setting() -> None:
    system = "UnFuSeD, d = 1536 (teacher_settings.corpus=asc-keywords)"
    figures = tuple(TableEntry("12.34") for _ in range(7))
    columns = (TableColumn("system", left=True), *(TableColumn(f"task-{n}") for n in range(7)))
    table = Table(columns, (TableRow((TableEntry(system), *figures), "a block"),))
    lines = [line[:24].rstrip() for line in drawn(table, 80).splitlines()]
    assert lines == [
        "system",
        "a block",
        "  UnFuSeD, d = 1536",
        "    (teacher_settings.",
        "    corpus=asc-keywords)",
    ]


@given(st.text(st.sampled_from("ab ,.=()"), max_size=60), st.integers(8, 70))
def test_a_folded_label_loses_nothing_but_spaces_and_is_too_wide_only_where_one_name_is(
    label: str, room: int
) -> None:
    def without_spaces(text: str) -> str:
        return "".join(text.split())

    lines = wrap_label(label, room, "  ").split("\n")
    assert without_spaces("".join(lines)) == without_spaces(label)
    assert all(len(line) <= room or len(re.findall("[^ ,.=]+", line)) <= 1 for line in lines)


def test_markdown_marks_the_best_the_second_and_what_has_a_footnote() -> None:
    entries = (
        TableEntry("a|b*c"),
        TableEntry("79.1", "± 0.4", rank="best"),
        TableEntry("78.0", rank="second", marks=("†", "1")),
    )
    columns = (TableColumn("system", left=True), TableColumn("x", "G"), TableColumn("x", "H"))
    table = Table(columns, (TableRow(entries, "ours"),), "T", {"†": "Fewer.", "1": "Partly."})
    lines = [re.sub("-+", "--", re.sub(" +", " ", line)) for line in markdown(table).splitlines()]
    assert lines == [
        "**T**",
        "",
        "| system | G: x | H: x |",
        "|:--|--:|--:|",
        "| **ours** | | |",
        "| a\\|b\\*c | **79.1** ± 0.4 | <ins>78.0</ins><sup>†,1</sup> |",
        "",
        "<sup>†</sup> Fewer.",
        "",
        "<sup>1</sup> Partly.",
    ]


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=8)


@given(st.lists(st.tuples(TEXT, st.floats(), TEXT), min_size=1, max_size=4))
def test_csv_and_json_give_back_what_stands_behind_every_entry(
    figures: list[tuple[str, float, str]],
) -> None:
    rows = tuple(
        TableRow(
            (TableEntry("s"), TableEntry(text, facts={"score": score, "tasks": ["a", "b"]})), block
        )
        for text, score, block in figures
    )
    table = Table((TableColumn("system", left=True), TableColumn("t", "G")), rows, "T")
    lines = list(csv.DictReader(io.StringIO(as_csv([table]), newline="")))
    told = json.loads(as_json(as_data(table)))["rows"]
    for (text, score, block), line, row in zip(figures, lines, told, strict=True):
        assert (line["text"], line["block"], line["tasks"]) == (text, block, "a b")
        (entry,) = row["entries"]
        assert (entry["text"], row["block"], entry["group"]) == (text, block, "G")
        assert line["score"] == ("" if math.isnan(score) else str(score))
        assert entry["facts"]["score"] == (score if math.isfinite(score) else None)


@pytest.mark.parametrize("text", ["a|b", "[x](y)", "<b>", "*a*"])
def test_no_label_breaks_a_row_of_markdown(text: str) -> None:
    table = Table(
        (TableColumn("s", left=True), TableColumn("x")),
        (TableRow((TableEntry(text), TableEntry("1"))),),
    )
    row = markdown(table).splitlines()[2].replace("\\|", "")
    assert row.count("|") == 3
