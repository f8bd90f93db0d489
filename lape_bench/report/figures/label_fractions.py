"""Accuracy over the share of labels: a line a system, its 95 % interval as a band."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lape_bench.report.figures.style import Mark, board_title, legend_below, panels
from lape_bench.report.leaderboard import BOARD

PANEL = [name for name in BOARD if name != "label_fraction"]


def label_fraction_curves(board: pd.DataFrame, marks: Mapping[str, Mark]) -> Figure:
    """Draw score over label fraction, on a logarithmic axis.

    Args:
        board: rows of `leaderboard.leaderboard`; each task, protocol and kind of data gets a panel.
        marks: of every system, such as `style.marks` of all that were read.
    """
    groups = list(board.groupby(PANEL, sort=False))
    figure, axes = panels(len(groups))
    drawn: dict[str, Artist] = {}
    for axis, (key, rows) in zip(axes, groups, strict=True):
        where = dict(zip(PANEL, key, strict=True))
        axis.set_xscale("log")
        for (name, _), unsorted in rows.groupby(["system", "system_version"]):
            system, line = str(name), unsorted.sort_values("label_fraction")
            colour, marker = marks[system]
            fractions, scores = 100 * line["label_fraction"], 100 * line["score"]
            (drawn[system],) = axis.plot(
                fractions, scores, color=colour, marker=marker, markersize=7, linewidth=1.6,
                markeredgecolor="#222222", markeredgewidth=0.6,
            )  # fmt: skip
            half = 100 * line["interval"]
            axis.fill_between(
                fractions,
                (scores - half).clip(lower=0),
                (scores + half).clip(upper=100),
                color=colour,
                alpha=0.1,
                linewidth=0,
            )
        ticks = sorted(rows["label_fraction"].unique())
        axis.set_xticks([100 * tick for tick in ticks], [f"{100 * tick:.3g}" for tick in ticks])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlim(100 * ticks[0] / 1.3, 100 * ticks[-1] * 1.3)
        axis.set_title(board_title(where, board))
        axis.set_xlabel("labels (% of train)")
        axis.set_ylabel(f"{str(where['metric']).replace('_', ' ')} (%)")
    legend_below(figure, {name: drawn[name] for name in sorted(drawn)})
    return figure
