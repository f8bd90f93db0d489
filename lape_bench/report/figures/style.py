"""How figures look: marks that everyone can tell apart, panels, and files of the same bytes each time.

Colors are those of Okabe and Ito (Color Universal Design, 2008) with gray instead of yellow, which is
too pale for a line on white. A marker goes with each, so that color is never the only sign.
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from lape_bench.core.errors import UserError, unknown
from lape_bench.core.label_budget import LabelBudget
from lape_bench.core.paths import new_file
from lape_bench.report.display_names import preparation_names
from lape_bench.report.figures.fonts import FAMILY, fonts_for
from lape_bench.results.cells import PREPARATION, Preparation

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#7F7F7F")
# Seven, so that with eight colors 56 marks in a row differ, and neighbors in both.
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FORMATS = ("png", "svg", "pdf")
# What a writer would add by itself and would differ from run to run or from release to release.
METADATA = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
INTERVALS = {  # what an interval is over, by its kind on a leaderboard
    "groups and seeds": "over {unit} and seeds",
    "groups": "of one seed: over {unit}, of that run alone",
    "seeds": "over seeds alone, on these test clips",
}
MOST_PANELS = 12
LEGEND_CHARACTERS = 60
PANEL_INCHES = (4.6, 3.4)

STYLE: dict[str, Any] = {
    "font.family": FAMILY,
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "lape_bench",
    "pdf.fonttype": 42,  # text stays text
    "text.parse_math": False,  # a dollar in a name is a dollar
}


class Mark(NamedTuple):
    """How one system is drawn, in every figure."""

    color: str
    marker: str


def styled() -> AbstractContextManager[None]:
    """Give a block in which figures are made and written in this style, whatever a user's matplotlibrc says."""
    return matplotlib.style.context(["default", STYLE])


def numbered(names: Iterable[str]) -> dict[str, int]:
    """Number distinct names in their order: the same names, the same numbers, so the same marks."""
    return {name: number for number, name in enumerate(sorted(set(names)))}


def mark(number: int) -> Mark:
    """Return the mark of a number; 56 in a row differ."""
    return Mark(COLORS[number % len(COLORS)], MARKERS[number % len(MARKERS)])


def marks(names: Iterable[str]) -> dict[str, Mark]:
    """Give each distinct name a mark."""
    return {name: mark(number) for name, number in numbered(names).items()}


def panels(
    count: int, columns: int = 3, inches: tuple[float, float] = PANEL_INCHES
) -> tuple[Figure, list[Axes]]:
    """Make a figure of equal panels, filled row by row.

    Raises:
        UserError: there is nothing to draw, or more panels than can be read.
    """
    if not 1 <= count <= MOST_PANELS:
        raise UserError(
            f"the figure would have {count} panels",
            allowed=f"1 to {MOST_PANELS}, one for each board",
            next_step="choose boards with --task, --protocol and --labels",
        )
    across = min(count, columns)
    down = -(-count // across)
    figure = Figure(
        figsize=(inches[0] * across, inches[1] * down),
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1),
    )
    FigureCanvasAgg(figure)
    return figure, [figure.add_subplot(down, across, number + 1) for number in range(count)]


def legend_below(figure: Figure, entries: Mapping[str, Any]) -> None:
    """Put one legend for all panels under them, where it hides no point; the figure grows by its height."""
    labels = [textwrap.fill(label, LEGEND_CHARACTERS, break_on_hyphens=False) for label in entries]
    widest = max(len(line) for label in labels for line in label.splitlines())
    width, height = figure.get_size_inches()
    columns = max(1, min(len(labels), int(width * 12 / (widest + 6))))  # 12 characters an inch
    lines = sum(max(label.count("\n") + 1 for label in row) for row in _rows(labels, columns))
    figure.set_size_inches(width, height + 0.2 * lines + 0.1)
    figure.legend(
        list(entries.values()), labels, loc="outside lower center", ncols=columns, fontsize=9
    )


def _rows(labels: Sequence[str], columns: int) -> list[Sequence[str]]:
    return [labels[start : start + columns] for start in range(0, len(labels), columns)]


def board_title(where: Mapping[str, Any], board: pd.DataFrame) -> str:
    """Name the board above a panel.

    Args:
        where: task, protocol, data, the columns `PREPARATION`, and labels unless it is the x-axis.
        board: all rows; if a task was prepared in several ways, the title names the way.
    """
    title = f"{where['task']}, {where['protocol']}"
    budget = LabelBudget.parse(where.get("labels", "100%"))
    if not budget.is_all:
        title += f", {budget.description}"
    if where["data"] == "synthetic":
        title += " [synthetic]"
    names = preparation_names(board[board["task"] == where["task"]])
    if name := names[Preparation(*(where[column] for column in PREPARATION))]:
        title += f" [{name}]"
    return textwrap.fill(title, 46)


def interval_reach(rows: pd.DataFrame) -> NDArray[np.float64]:
    """Return how far each interval reaches below and above its score, in points and within 0 to 100 %.

    Args:
        rows: of a leaderboard.

    Returns:
        Shape (2, rows), NaN where a row has no interval.
    """
    score, half = (100 * rows[name].to_numpy(np.float64) for name in ("score", "interval"))
    return np.stack([np.minimum(half, score), np.minimum(half, 100 - score)])


def interval_note(figure: Figure, board: pd.DataFrame) -> None:
    """Say above all panels what the error bars are over.

    Args:
        figure: with its panels.
        board: the rows that are drawn.
    """
    kinds = [
        text.format(unit=_unit(board[board["interval_over"] == over]))
        for over, text in INTERVALS.items()
        if (board["interval_over"] == over).any()
    ]
    if kinds:
        figure.suptitle(textwrap.fill(f"95 % intervals {'; '.join(kinds)}", 80), fontsize=9)


def _unit(board: pd.DataFrame) -> str:
    """Name what intervals are over: the groups of clips if the predictions name some, else the clips."""
    grouped = board.get("grouped", pd.Series(dtype="boolean")).dropna()
    names = {True: "groups of clips", False: "clips"}
    return " or ".join(names[each] for each in names if (grouped == each).any()) or "clips"


def check_suffix(path: Path) -> str:
    """Return the format that a file's suffix asks for, or say which there are."""
    suffix = path.suffix.removeprefix(".").lower()
    if suffix not in FORMATS:
        raise unknown(
            "figure format", path.suffix or path.name, [f".{each}" for each in FORMATS],
            "give --file a name with one of these endings",
        )  # fmt: skip
    return suffix


def write_figure(draw: Callable[[], Figure], path: Path) -> None:
    """Draw a figure in our style and write it whole or not at all: same input, same bytes.

    Args:
        draw: makes the figure.
        path: ends in .png, .svg or .pdf.

    Raises:
        UserError: another suffix, or the place cannot be written.
    """
    suffix = check_suffix(path)
    with styled():
        figure = draw()
        with new_file(path) as temporary, fonts_for(figure, path):
            figure.savefig(temporary, format=suffix, dpi=200, metadata=METADATA[suffix])
