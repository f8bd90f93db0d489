r"""Tables as LaTeX: a file that `pdflatex` compiles as it is, and that a paper takes by `\input`.

The file is a document. If `\input` reads it into another document, it gives only its tables; that document needs the
packages booktabs and graphicx. A table wider or higher than the page allows is scaled down.
"""

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby

from lape_bench.report.table import Table, TableEntry, TableRow

BEGIN = r"""% Compiles as it is; \input in a paper that loads booktabs and graphicx gives the tables alone.
\expandafter\ifx\csname @nodocument\endcsname\relax % a document has begun
\def\endoftables{}
\else
\def\endoftables{\end{document}}
\documentclass{article}
\usepackage{booktabs,graphicx}
\usepackage[a4paper,landscape,margin=2cm]{geometry}
\begin{document}
\fi
"""
END = "\\endoftables\n"
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"{\ttfamily\char34}",
    "[": "{[}",  # after the end of a line these two would be read as its options
    "*": "{*}",
    "—": r"\textemdash{}",
    "\N{EN DASH}": r"\textendash{}",
    "\N{MINUS SIGN}": "$-$",
    "Δ": r"$\Delta$",
    "±": r"$\pm$",
    "†": r"\textdagger{}",
    "\n": " ",
}
LIGATURE = re.compile("[-,'`](?=[-,'`])|[?!](?=`)")
# of Latin-1, the letters that are ASCII with an accent, and four more: what pdflatex has in every font encoding
LETTERS = {chr(n) for n in range(0xC0, 0x100)} - set("ÐÞðþ×÷")  # noqa: RUF001  # the sign, not the letter x
RANKED = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}


def latex(tables: Sequence[Table]) -> str:
    """Write tables as one LaTeX file: booktabs, best in bold and second underlined."""
    return BEGIN + "".join(map(_float, tables)) + END


def escaped(text: str) -> str:
    """Write a text so that LaTeX prints it, whatever it holds.

    Characters that pdflatex may have no glyph for are named by their number.
    """
    text = LIGATURE.sub(lambda match: f"{match[0]}\0", unicodedata.normalize("NFC", text))
    return "".join(map(_character, text))


def _character(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    if character == "\0":  # between two characters that would become one
        return "{}"
    if character.isascii() or character in LETTERS:
        return character if character.isprintable() else " "
    return f"{{[}}U+{ord(character):04X}]"


def _float(table: Table) -> str:
    below = [
        rf"\textsuperscript{{{_marks([mark])}}} {escaped(t)}" for mark, t in table.notes.items()
    ]
    below += map(escaped, table.remarks)
    lines = [
        "",
        r"\begin{table*}[tbp]",  # across both columns of a paper, if it has two
        r"\centering",
        *([rf"\caption{{{escaped(table.title)}}}"] if table.title else []),
        r"\sbox0{%",
        *_tabular(table),
        "}%",
        r"\ifdim\wd0>\linewidth\sbox0{\resizebox{\linewidth}{!}{\usebox0}}\fi",
        r"\ifdim\dimexpr\ht0+\dp0>.75\textheight\sbox0{\resizebox*{!}{.75\textheight}{\usebox0}}\fi",
        r"\usebox0",
        *([r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize"] if below else []),
        *(rf"{line}\par" for line in below),
        *([r"\end{minipage}"] if below else []),
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _tabular(table: Table) -> list[str]:
    lines = [
        rf"\begin{{tabular}}{{{''.join('l' if c.left else 'r' for c in table.columns)}}}",
        r"\toprule",
    ]
    if table.groups:
        spans, rules, start = [], [], 1
        for group, columns in groupby(table.columns, lambda column: column.group):
            width = len(list(columns))
            spans.append(
                rf"\multicolumn{{{width}}}{{c}}{{{escaped(group)}}}"
                if group
                else " &" * (width - 1)
            )
            if group:
                rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
            start += width
        lines += [" & ".join(spans) + r" \\", "".join(rules)]
    lines.append(" & ".join(escaped(column.heading) for column in table.columns) + r" \\")
    for block, row in table.blocks():
        if block or row is table.rows[0]:
            lines.append(r"\midrule")
        if block:
            lines.append(
                rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\emph{{{escaped(block)}}}}} \\"
            )
        lines.append(_line(row))
    return [*lines, r"\bottomrule", r"\end{tabular}%"]


def _line(row: TableRow) -> str:
    return " & ".join(map(_entry, row.entries)) + r" \\"


def _entry(entry: TableEntry) -> str:
    text = RANKED[entry.rank].format(escaped(entry.text))
    if entry.small:
        text += rf" {{\scriptsize {escaped(entry.small)}}}"
    return text + (rf"\textsuperscript{{{_marks(entry.marks)}}}" if entry.marks else "")


def _marks(marks: Sequence[str]) -> str:
    return ",".join(map(escaped, marks))
