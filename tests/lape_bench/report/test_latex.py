"""LaTeX that compiles, alone and within a paper, whatever stands in a table."""

import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lape_bench.report.latex import escaped, latex
from lape_bench.report.table import Table, TableColumn, TableEntry, TableRow

NEEDS_LATEX = pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="pdflatex (texlive) is not installed"
)
ASCII = "".join(map(chr, range(32, 127)))
NASTY = [
    ASCII,
    "[5pt] a",
    "*a",
    "--- `` '' ,, ?` !`",
    "àéîõüçßØ ÐÞ\xd7µ",
    "λ عربي 日本 ☃ \x07",
    "± \N{MINUS SIGN} \N{EN DASH} † Δ —",
]


def table(labels: list[str]) -> Table:
    columns = (
        TableColumn("system & co", left=True),
        TableColumn("a_b", "G%"),
        TableColumn("c", "G%"),
        TableColumn("d", "H"),
    )
    rows = [
        TableRow((TableEntry(label), TableEntry("79.1", "± 0.4", "best"), TableEntry("—"), TableEntry("78", rank="second", marks=("†", "1"))), block)
        for label, block in zip(labels, ["", *["published #1"] * len(labels)], strict=False)
    ]  # fmt: skip
    return Table(
        columns, tuple(rows), "100 % of a_b", {"†": "Fewer & less.", "1": "x_y"}, ("Left out: #3.",)
    )


def compiled(document: Path) -> str:
    """Compile a document and return LaTeX's log."""
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", document.name]
    done = subprocess.run(command, cwd=document.parent, capture_output=True, check=False)
    log = document.with_suffix(".log").read_text(encoding="latin-1")
    assert done.returncode == 0, log[-2000:]
    return log


@NEEDS_LATEX
@pytest.mark.slow
def test_a_file_of_tables_compiles_as_it_is(tmp_path: Path) -> None:
    document = tmp_path / "tables.tex"
    document.write_text(latex([table(NASTY), table(NASTY[:1])]), encoding="utf-8")
    log = compiled(document)
    assert "Missing character" not in log
    assert document.with_suffix(".pdf").is_file()


@NEEDS_LATEX
@pytest.mark.slow
def test_wide_and_high_tables_stay_within_the_page(tmp_path: Path) -> None:
    columns = (TableColumn("system", left=True), *(TableColumn(f"task {n}") for n in range(40)))
    row = TableRow((TableEntry("s"), *(TableEntry("79.1", "± 0.4") for _ in range(40))))
    document = tmp_path / "tables.tex"
    high = table(["s"] * 80)
    document.write_text(latex([Table(columns, (row,)), high]), encoding="utf-8")
    log = compiled(document)
    assert "Overfull" not in log
    assert "Float too large" not in log


@NEEDS_LATEX
@pytest.mark.slow
def test_a_paper_takes_the_tables_alone_and_goes_on_after_them(tmp_path: Path) -> None:
    (tmp_path / "tables.tex").write_text(latex([table(["s"])]), encoding="utf-8")
    document = tmp_path / "paper.tex"
    document.write_text(
        r"\documentclass[twocolumn]{article}\usepackage{booktabs,graphicx}\begin{document}"
        r"Before. \input{tables.tex} \typeout{went on after the tables}\end{document}",
        encoding="utf-8",
    )
    assert "went on after the tables" in compiled(document)


def test_groups_span_their_columns_and_blocks_begin_below_a_rule() -> None:
    lines = latex([table(["one", "two"])]).splitlines()
    start = lines.index(r"\toprule")
    assert lines[start + 1 : start + 3] == [
        r" & \multicolumn{2}{c}{G\%} & \multicolumn{1}{c}{H} \\",
        r"\cmidrule(lr){2-3}\cmidrule(lr){4-4}",
    ]
    block = lines.index(r"\multicolumn{4}{l}{\emph{published \#1}} \\")
    assert lines[block - 1] == r"\midrule"
    assert lines[block + 1] == (
        r"two & \textbf{79.1} {\scriptsize $\pm$ 0.4} & \textemdash{} & "
        r"\underline{78}\textsuperscript{\textdagger{},1} \\"
    )


@given(st.text())
def test_only_characters_that_every_font_has_are_left(text: str) -> None:
    written = escaped(text)
    assert written.isprintable()
    for character in written:
        # ASCII, or a Latin letter that is ASCII with an accent, or one of those that TeX itself draws.
        assert (
            character.isascii()
            or len(unicodedata.normalize("NFD", character)) == 2
            or character in "ßæÆøØ"
        )
