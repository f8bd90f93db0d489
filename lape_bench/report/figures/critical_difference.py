"""Critical-difference diagram: average ranks on a line, bars over systems that a test cannot tell apart.

Figure 1 of Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from lape_bench.report.figures.style import Mark, panels
from lape_bench.report.stats.average_ranks import AverageRanks

LINE = 0.44  # inches between two names
NAME_CHARACTERS = 38


def critical_difference_diagram(
    names: Sequence[str], average: AverageRanks, looks: Mapping[str, Mark], title: str
) -> Figure:
    """Draw average ranks, best on the left.

    Args:
        names: of the systems.
        average: their ranks, in the same order.
        looks: how each is drawn.
        title: what they were ranked on.
    """
    critical_difference = average.critical_difference
    order = np.argsort(average.ranks, kind="stable")
    ranks = [float(average.ranks[index]) for index in order]
    labels = [textwrap.fill(names[index], NAME_CHARACTERS) for index in order]
    place_of = {int(index): place for place, index in enumerate(order)}
    groups = [sorted(place_of[each] for each in clique) for clique in average.cliques]
    left = (len(ranks) + 1) // 2
    depth = 0.5 + 0.16 * len(groups)
    height = depth + LINE * left + 0.9
    figure, (axis,) = panels(1, inches=(8.6, height))
    axis.axis("off")
    axis.set_title(textwrap.fill(title, 90))
    low, high = 1, max(len(ranks), 2)
    span = high - low
    axis.set_xlim(low - 0.95 * span, high + 0.95 * span)
    axis.set_ylim(-(depth + LINE * left), 0.9)
    ink = "#222222"
    axis.plot([low, high], [0, 0], color=ink, linewidth=1.2)
    for tick in range(low, high + 1):
        axis.plot([tick, tick], [0, 0.08], color=ink, linewidth=1.2)
        axis.text(tick, 0.14, str(tick), ha="center", va="bottom")
    axis.plot([low, low + critical_difference], [0.62, 0.62], color=ink, linewidth=1.6)
    for end in (low, low + critical_difference):
        axis.plot([end, end], [0.57, 0.67], color=ink, linewidth=1.6)
    axis.text(
        low + critical_difference / 2, 0.7, f"critical difference {critical_difference:.2f}",
        ha="center", va="bottom",
    )  # fmt: skip
    for place, (rank, label) in enumerate(zip(ranks, labels, strict=True)):
        on_left = place < left
        row = place if on_left else len(ranks) - 1 - place
        end = low - 0.06 * span if on_left else high + 0.06 * span
        bottom = -(depth + LINE * row)
        look = looks[names[order[place]]]
        axis.plot([rank, rank, end], [0, bottom, bottom], color=look.color, linewidth=1.1)
        axis.plot([rank], [0], color=look.color, marker=look.marker, markeredgecolor=ink, zorder=3)
        side, aligned = (-1, "right") if on_left else (1, "left")
        axis.text(end + side * 0.02 * span, bottom, f"{rank:.2f}", ha=aligned, va="center")
        axis.text(end + side * 0.18 * span, bottom, label, ha=aligned, va="center")
    for number, (first, *_, last) in enumerate(groups):
        bottom = -(0.22 + 0.16 * number)
        edges = [ranks[first] - 0.012 * span, ranks[last] + 0.012 * span]
        axis.plot(edges, [bottom, bottom], color=ink, linewidth=4, solid_capstyle="round")
    return figure
