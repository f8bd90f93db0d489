"""Accuracy over the number of labels: a line per system, with the 95 % interval of each score."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lape_bench.core.label_budget import LabelBudget
from lape_bench.report.figures.style import (
    Mark,
    board_title,
    interval_note,
    interval_reach,
    legend_below,
    panels,
)
from lape_bench.report.leaderboard import BOARD
from lape_bench.results.cells import SYSTEM_VERSION

ASIDE = 1.05  # systems are shifted by this factor, since their intervals would cover each other
MOST_ASIDE = 1.3  # all of them together
PANEL = [*(name for name in BOARD if name != "labels"), "unit"]


def label_curves(board: pd.DataFrame, marks: Mapping[str, Mark]) -> Figure:
    """Draw score over the label budget, on a logarithmic axis.

    Args:
        board: rows of `leaderboard.leaderboard`; each task, protocol, kind of data and unit of budgets gets a panel.
        marks: of every system, such as `style.marks` of all that were read.
    """
    parsed = board["labels"].map(LabelBudget.parse)
    board = board.assign(
        unit=[budget.unit for budget in parsed], amount=[budget.amount for budget in parsed]
    )
    groups = list(board.groupby(PANEL, sort=False))
    figure, axes = panels(len(groups))
    drawn: dict[str, Any] = {}
    for axis, (key, rows) in zip(axes, groups, strict=True):
        where = dict(zip(PANEL, key, strict=True))
        ticks = sorted(rows["amount"].unique())
        axis.set_xscale("log")
        axis.set_xlim(ticks[0] / 1.3, ticks[-1] * 1.3)
        lines = rows.sort_values("amount").groupby(["system", *SYSTEM_VERSION])
        aside = min(ASIDE, MOST_ASIDE ** (1 / len(lines)))
        for place, ((name, *_), line) in enumerate(lines):
            system = str(name)
            color, marker = marks[system]
            drawn[system] = axis.errorbar(
                line["amount"] * aside ** (place - (len(lines) - 1) / 2),
                100 * line["score"], yerr=interval_reach(line),
                color=color, marker=marker, markersize=7, linewidth=1.6, elinewidth=1.2, capsize=2.5,
                markeredgecolor="#222222", markeredgewidth=0.6,
            )  # fmt: skip
        axis.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_title(board_title(where, board))
        axis.set_xlabel(str(where["unit"]))
        axis.set_ylabel(f"{str(where['metric']).replace('_', ' ')} (%)")
    interval_note(figure, board)
    legend_below(figure, {name: drawn[name] for name in sorted(drawn)})
    return figure
