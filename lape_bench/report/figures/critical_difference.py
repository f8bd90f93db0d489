"""Critical-difference diagram: average ranks on a line, bars over systems that a test cannot tell apart.

Figure 1 of Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from lape_bench.errors import UserError
from lape_bench.report.figures.style import marks, panels

LINE = 0.34  # inches between two names
NAME_CHARACTERS = 38


def critical_difference_diagram(
    names: Sequence[str], average_ranks: Sequence[float], critical_difference: float
) -> Figure:
    """Draw average ranks, best on the left.

    Args:
        names: of the systems.
        average_ranks: of each, over tasks; 1 is best.
        critical_difference: by how much, at least, two average ranks must differ to be told apart.

    Raises:
        UserError: there are fewer than two systems.
    """
    if len(names) < 2:
        raise UserError(
            f"a critical-difference diagram of {len(names)} systems has nothing to tell"
        )
    order = np.argsort(np.asarray(average_ranks), kind="stable")
    ranks = [float(average_ranks[index]) for index in order]
    labels = [
        textwrap.shorten(names[index], NAME_CHARACTERS, placeholder=" ...") for index in order
    ]
    looks = marks(names)
    groups = cliques(ranks, critical_difference)
    left = (len(ranks) + 1) // 2
    depth = 0.5 + 0.16 * len(groups)
    height = depth + LINE * left + 0.9
    figure, (axis,) = panels(1, inches=(8.6, height))
    axis.axis("off")
    low, high = 1, max(len(ranks), 2)
    span = high - low
    axis.set_xlim(low - 0.75 * span, high + 0.75 * span)
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
        axis.plot([rank, rank, end], [0, bottom, bottom], color=look.colour, linewidth=1.1)
        axis.plot([rank], [0], color=look.colour, marker=look.marker, markeredgecolor=ink, zorder=3)
        text = f"{label}  {rank:.2f}" if on_left else f"{rank:.2f}  {label}"
        axis.text(
            end + (-0.02 if on_left else 0.02) * span, bottom, text,
            ha="right" if on_left else "left", va="center",
        )  # fmt: skip
    for number, (first, last) in enumerate(groups):
        bottom = -(0.22 + 0.16 * number)
        edges = [ranks[first] - 0.012 * span, ranks[last] + 0.012 * span]
        axis.plot(edges, [bottom, bottom], color=ink, linewidth=4, solid_capstyle="round")
    return figure


def cliques(ranks: Sequence[float], critical_difference: float) -> list[tuple[int, int]]:
    """Return the longest runs of sorted ranks that differ by less than the critical difference.

    Returns:
        First and last index of each run of at least two; none lies within another.
    """
    runs: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(i for i, other in enumerate(ranks) if other - rank < critical_difference)
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs
