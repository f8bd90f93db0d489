"""Critical-difference diagram: average ranks on a line, bars over systems closer than the critical difference.

Figure 1 of Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lape_bench.report.figures.style import Mark, panels
from lape_bench.report.stats.average_ranks import AverageRanks, as_text
from lape_bench.report.stats.crossed import LEVEL

LINE = 0.44  # inches between two names
NAME_CHARACTERS = 38
INK = "#222222"


class _Layout(NamedTuple):
    """Measures of the diagram: ranks across, inches down.

    Attributes:
        low: the best rank on the axis.
        high: the worst rank on the axis.
        depth: distance from the axis to the first name.
        on_left: number of names on the left, which are the better half.
    """

    low: int
    high: int
    depth: float
    on_left: int

    @property
    def span(self) -> int:
        return self.high - self.low


def critical_difference_diagram(
    names: Sequence[str], average: AverageRanks, looks: Mapping[str, Mark], title: str
) -> Figure:
    """Draw average ranks, best on the left.

    Args:
        names: of the systems.
        average: their ranks, in the same order.
        looks: the mark of each system.
        title: such as the tasks that they were ranked on.
    """
    order = np.argsort(average.ranks, kind="stable")
    ranks = [float(average.ranks[index]) for index in order]
    place_of = {int(index): place for place, index in enumerate(order)}
    # On so few tasks that no test could tell systems apart, bars would say nothing.
    testable = average.least_p <= LEVEL
    cliques = average.cliques if testable else ()
    groups = [sorted(place_of[member] for member in clique) for clique in cliques]
    layout = _Layout(1, max(len(ranks), 2), 0.5 + 0.16 * len(groups), (len(ranks) + 1) // 2)
    bottom = layout.depth + LINE * layout.on_left
    figure, (axes,) = panels(1, inches=(8.6, bottom + 1.1))
    axes.axis("off")
    axes.set_title("\n".join(textwrap.fill(text, 90) for text in (title, as_text(average))))
    axes.set_xlim(layout.low - 0.95 * layout.span, layout.high + 0.95 * layout.span)
    axes.set_ylim(-bottom, 0.9)
    _draw_axis(axes, layout, average.critical_difference if testable else None)
    for place, index in enumerate(order):
        _draw_system(axes, layout, place, ranks, names[index], looks[names[index]])
    for number, (first, *_, last) in enumerate(groups):
        height = -(0.22 + 0.16 * number)
        ends = [ranks[first] - 0.012 * layout.span, ranks[last] + 0.012 * layout.span]
        axes.plot(ends, [height, height], color=INK, linewidth=4, solid_capstyle="round")
    return figure


def _draw_axis(axes: Axes, layout: _Layout, critical_difference: float | None) -> None:
    """Draw the line of ranks, and the critical difference above it if there is a test."""
    low, high = layout.low, layout.high
    axes.plot([low, high], [0, 0], color=INK, linewidth=1.2)
    for tick in range(low, high + 1):
        axes.plot([tick, tick], [0, 0.08], color=INK, linewidth=1.2)
        axes.text(tick, 0.14, str(tick), ha="center", va="bottom")
    if critical_difference is None:
        return
    axes.plot([low, low + critical_difference], [0.62, 0.62], color=INK, linewidth=1.6)
    for end in (low, low + critical_difference):
        axes.plot([end, end], [0.57, 0.67], color=INK, linewidth=1.6)
    axes.text(
        low + critical_difference / 2, 0.7, f"critical difference over these tasks {critical_difference:.2f}",
        ha="center", va="bottom",
    )  # fmt: skip


def _draw_system(
    axes: Axes, layout: _Layout, place: int, ranks: Sequence[float], name: str, look: Mark
) -> None:
    """Draw a system at its rank, with a line to its name at the side."""
    rank, span, on_left = ranks[place], layout.span, place < layout.on_left
    row = place if on_left else len(ranks) - 1 - place
    end = layout.low - 0.06 * span if on_left else layout.high + 0.06 * span
    height = -(layout.depth + LINE * row)
    axes.plot([rank, rank, end], [0, height, height], color=look.color, linewidth=1.1)
    axes.plot([rank], [0], color=look.color, marker=look.marker, markeredgecolor=INK, zorder=3)
    side, alignment = (-1, "right") if on_left else (1, "left")
    axes.text(end + side * 0.02 * span, height, f"{rank:.2f}", ha=alignment, va="center")
    label = textwrap.fill(name, NAME_CHARACTERS)
    axes.text(end + side * 0.18 * span, height, label, ha=alignment, va="center")
