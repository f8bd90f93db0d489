"""Accuracy against what it costs: parameters of inference, or seconds of learning. One board a panel."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from lape_bench.report.figures.style import Mark, board_title, legend_below, panels
from lape_bench.report.leaderboard import BOARD

NEAR = 1.06  # points whose costs lie within this factor are set side by side
APART = 0.025  # by this share of the axis, or less where there are many
MARGIN = 2.5  # the axis reaches beyond the costs by this factor at least
LEAST_COST = 1e-3  # what took no time at all has no logarithm


class Cost(NamedTuple):
    """What a system is held against.

    Attributes:
        label: of the axis, with the unit.
        values: of a board, shape (systems,).
    """

    label: str
    values: pd.Series


def parameters(board: pd.DataFrame) -> Cost:
    """Return the parameters that scoring needs, encoder and classifier."""
    return Cost("parameters (encoder and classifier)", board["parameters"])


def seconds(board: pd.DataFrame) -> Cost:
    """Return the seconds a cell took to learn, cached stages with what they took when they were made."""
    return Cost("seconds of learning a cell", board["minutes"] * 60)


def accuracy_against(board: pd.DataFrame, cost: Cost, marks: Mapping[str, Mark]) -> Figure:
    """Draw each system's score over its cost, on a logarithmic axis, with the 95 % interval of the mean.

    Args:
        board: rows of `leaderboard.leaderboard`; each of its boards gets a panel.
        cost: of the rows.
        marks: of every system, such as `style.marks` of all that were read.
    """
    costed = board.assign(cost=cost.values)
    groups = list(costed.groupby(BOARD, sort=False))
    figure, axes = panels(len(groups))
    drawn: dict[str, Any] = {}
    for axis, (key, systems) in zip(axes, groups, strict=True):
        drawn |= _panel(axis, systems, marks)
        axis.set_title(board_title(dict(zip(BOARD, key, strict=True)), board))
        axis.set_xlabel(cost.label)
        axis.set_ylabel(f"{str(key[-1]).replace('_', ' ')} (%)")
    legend_below(figure, {name: drawn[name] for name in sorted(drawn)})
    return figure


def _panel(axis: Axes, systems: pd.DataFrame, marks: Mapping[str, Mark]) -> dict[str, Any]:
    costs = systems["cost"].clip(lower=LEAST_COST)
    apart = min(APART, 0.5 / len(costs))
    span = np.log10(costs.max() / costs.min())
    room = (
        apart * (len(costs) + 1) / 2
    )  # share of the axis that systems of one cost reach to a side
    decades = max(span / (1 - 2 * room), span + 2 * np.log10(MARGIN))
    beyond = 10 ** ((decades - span) / 2)
    axis.set_xscale("log")
    axis.set_xlim(costs.min() / beyond, costs.max() * beyond)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1,)))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_minor_locator(NullLocator())
    drawn: dict[str, Any] = {}
    for row, cost, place in zip(systems.to_dict("records"), costs, _places(costs), strict=True):
        colour, marker = marks[row["system"]]
        bounds = _bounds(row)
        drawn[row["system"]] = axis.errorbar(
            cost * 10 ** (apart * place * decades),
            100 * row["score"],
            yerr=None if bounds is None else [[bounds[0]], [bounds[1]]],
            color=colour,
            marker=marker,
            markersize=7,
            markeredgecolor="#222222",
            markeredgewidth=0.6,
            linestyle="none",
            capsize=2.5,
            elinewidth=1.2,
        )
    return drawn


def _bounds(row: Mapping[Any, Any]) -> tuple[float, float] | None:
    """Return how far the interval reaches below and above the score, in points and within 0 to 100 %."""
    if np.isnan(row["interval"]):
        return None
    score, half = 100 * row["score"], 100 * row["interval"]
    return min(half, score), min(half, 100 - score)


def _places(costs: pd.Series) -> list[float]:
    """Return a place beside its own for each system, ..., -1, 0, 1, ...: equal costs would hide each other's intervals."""
    order = np.argsort(costs.to_numpy(), kind="stable")
    groups: list[list[int]] = []
    for index in order:
        if groups and costs.iloc[index] <= NEAR * costs.iloc[groups[-1][0]]:
            groups[-1].append(int(index))
        else:
            groups.append([int(index)])
    places = [0.0] * len(costs)
    for group in groups:
        for number, index in enumerate(sorted(group)):
            places[index] = number - (len(group) - 1) / 2
    return places
