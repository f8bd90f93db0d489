"""Accuracy over the share of labels: a line a system, with the 95 % interval of each mean."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lape_bench.report.figures.style import Mark, board_title, interval_reach, legend_below, panels
from lape_bench.report.leaderboard import BOARD
from lape_bench.results.cells import SYSTEM_VERSION

ASIDE = 1.05  # systems stand side by side by this factor, or their intervals would cover each other
MOST_ASIDE = 1.3  # all of them together
PANEL = [name for name in BOARD if name != "label_fraction"]


def label_fraction_curves(board: pd.DataFrame, marks: Mapping[str, Mark]) -> Figure:
    """Draw score over label fraction, on a logarithmic axis.

    Args:
        board: rows of `leaderboard.leaderboard`; each task, protocol and kind of data gets a panel.
        marks: of every system, such as `style.marks` of all that were read.
    """
    groups = list(board.groupby(PANEL, sort=False))
    figure, axes = panels(len(groups))
    drawn: dict[str, Any] = {}
    for axis, (key, rows) in zip(axes, groups, strict=True):
        where = dict(zip(PANEL, key, strict=True))
        ticks = sorted(rows["label_fraction"].unique())
        axis.set_xscale("log")
        axis.set_xlim(100 * ticks[0] / 1.3, 100 * ticks[-1] * 1.3)
        lines = rows.sort_values("label_fraction").groupby(["system", *SYSTEM_VERSION])
        aside = min(ASIDE, MOST_ASIDE ** (1 / len(lines)))
        for place, ((name, *_), line) in enumerate(lines):
            system = str(name)
            color, marker = marks[system]
            drawn[system] = axis.errorbar(
                100 * line["label_fraction"] * aside ** (place - (len(lines) - 1) / 2),
                100 * line["score"], yerr=interval_reach(line),
                color=color, marker=marker, markersize=7, linewidth=1.6, elinewidth=1.2, capsize=2.5,
                markeredgecolor="#222222", markeredgewidth=0.6,
            )  # fmt: skip
        axis.set_xticks([100 * tick for tick in ticks], [f"{100 * tick:.3g}" for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_title(board_title(where, board))
        axis.set_xlabel("labels (% of train)")
        axis.set_ylabel(f"{str(where['metric']).replace('_', ' ')} (%)")
    legend_below(figure, {name: drawn[name] for name in sorted(drawn)})
    return figure
