"""Accuracy against cost: parameters for inference, or seconds of training. One board per panel."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

from lape_bench.core.errors import UserError
from lape_bench.report.figures.style import (
    Mark,
    board_title,
    interval_note,
    interval_reach,
    legend_below,
    panels,
)
from lape_bench.report.formatting import count
from lape_bench.report.leaderboard import BOARD

MARKER = 7  # points in width
NEAR = 0.026  # share of the axis: about a marker's width
BEYOND = 0.06  # the axis reaches beyond the costs by this share of itself, and by MARGIN at least
MARGIN = 2.5
LEAST_COST = 1e-3  # what took no time at all has no logarithm


class Cost(NamedTuple):
    """The cost on the horizontal axis.

    Attributes:
        label: of the axis, with the unit.
        values: of a board, shape (systems,); NaN if unknown.
    """

    label: str
    values: pd.Series


def parameters(board: pd.DataFrame) -> Cost:
    """Return the parameters that scoring needs, encoder and classifier; NaN if unknown."""
    return Cost("parameters (encoder and classifier)", board["parameters"].astype("float64"))


def seconds(board: pd.DataFrame) -> Cost:
    """Return the training time of a cell in seconds. A cached stage counts with the time that it took to compute."""
    return Cost("seconds of training per cell", board["minutes"] * 60)


def accuracy_against(board: pd.DataFrame, cost: Cost, marks: Mapping[str, Mark]) -> Figure:
    """Draw each system's score over its cost, on a logarithmic axis, with its 95 % interval.

    Every marker is at its cost. Systems of about one cost would cover each other's intervals, so these are
    fanned out within the marker, those of one cost from the lowest score to the highest.

    Args:
        board: rows of `leaderboard.leaderboard`; each of its boards gets a panel.
        cost: of the rows; those of which it is unknown are counted below their panel.
        marks: of every system, such as `style.marks` of all that were read.

    Raises:
        UserError: the cost of no row is known.
    """
    costed = board.assign(cost=cost.values)
    if costed["cost"].isna().all():
        raise UserError(
            f"of no system the {cost.label} are known",
            allowed="systems whose encoder is an nn.Module, or says n_parameters",
        )
    groups = [
        group
        for group in costed.groupby(BOARD, sort=False, dropna=False)
        if group[1]["cost"].notna().any()
    ]
    figure, axes = panels(len(groups))
    drawn: dict[str, Any] = {}
    for axis, (key, systems) in zip(axes, groups, strict=True):
        unknown = int(systems["cost"].isna().sum())
        drawn |= _panel(axis, systems[systems["cost"].notna()], marks)
        axis.set_title(board_title(dict(zip(BOARD, key, strict=True)), board))
        set_aside = (systems["cost"] < LEAST_COST).any()
        note = f"; less than {LEAST_COST:g} is drawn there" if set_aside else ""
        note += f"; unknown of {count(unknown, 'system')}" if unknown else ""
        axis.set_xlabel(cost.label + note)
        axis.set_ylabel(f"{str(key[-1]).replace('_', ' ')} (%)")
    interval_note(figure, board)
    legend_below(figure, {name: drawn[name] for name in sorted(drawn)})
    return figure


def _panel(axis: Axes, systems: pd.DataFrame, marks: Mapping[str, Mark]) -> dict[str, Any]:
    systems = systems.sort_values(["cost", "score", "system"])
    costs = systems["cost"].clip(lower=LEAST_COST).to_numpy(np.float64)
    span = np.log10(costs.max() / costs.min())
    decades = max(span / (1 - 2 * BEYOND), span + 2 * np.log10(MARGIN))
    beyond = 10 ** ((decades - span) / 2)
    axis.set_xscale("log")
    axis.set_xlim(costs.min() / beyond, costs.max() * beyond)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1,)))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_minor_locator(NullLocator())
    shifts = _shifts(np.log10(costs) / decades, systems["interval"].notna().to_numpy())
    drawn: dict[str, Any] = {}
    for name, cost, score, reach, shift in zip(
        systems["system"], costs, 100 * systems["score"], interval_reach(systems).T, shifts, strict=True,
    ):  # fmt: skip
        color, marker = marks[name]
        drawn[name] = axis.errorbar(
            cost, score, yerr=reach[:, None], color=color, marker=marker, markersize=MARKER,
            markerfacecolor=(color, 0.3), markeredgecolor=color, linestyle="none", elinewidth=1.2,
        )  # fmt: skip
        _, _, bars = drawn[name]
        for bar in bars:
            aside = ScaledTranslation(shift * MARKER / 72, 0, axis.figure.dpi_scale_trans)
            bar.set_transform(bar.get_transform() + aside)
    return drawn


def _shifts(places: NDArray[np.float64], has_interval: NDArray[np.bool_]) -> list[float]:
    """Return how far each interval is drawn from its marker's middle, in markers, -0.5 to 0.5.

    Args:
        places: on the axis, as shares of its length, in the order in which intervals are fanned out.
        has_interval: whether there is something to fan out.
    """
    shifts = []
    for index, place in enumerate(places):
        near = np.flatnonzero(has_interval & (abs(places - place) < NEAR))
        before = np.count_nonzero(near < index)
        shifts.append(before / (len(near) - 1) - 0.5 if len(near) > 1 and index in near else 0.0)
    return shifts
