"""Confusion matrix of a record, as shares of each true class."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from lape_bench.metrics import Confusion
from lape_bench.report.figures.style import panels
from lape_bench.report.formatting import percent

NUMBERS_UP_TO = 14  # classes
NAMES_UP_TO = 45
LISTED = 12
NAME_CHARACTERS = 24


def confusion_figure(confusion: Confusion, classes: Sequence[str], title: str) -> Figure:
    """Draw a confusion matrix, each row divided by its sum.

    With few classes every entry shows its percentage. With very many, classes have numbers, and the most frequent
    confusions are listed beside the matrix.

    Args:
        confusion: counts, shape (classes, classes), rows are true classes.
        classes: their names.
        title: above the figure.
    """
    support = confusion.sum(axis=1, keepdims=True)
    shares = 100 * confusion / np.maximum(support, 1)
    count = len(classes)
    named = count <= NAMES_UP_TO
    names = [textwrap.shorten(name, NAME_CHARACTERS, placeholder=" ...") for name in classes]
    longest = max(map(len, names)) * 0.075 if named else 0.4
    side = float(np.clip(0.42 * count if count <= NUMBERS_UP_TO else 0.2 * count, 2.6, 7.0))
    width = side + longest + 1.5
    figure, (axis,) = panels(1, inches=(max(width, 5.2), side + longest + (1.1 if named else 3.0)))
    axis.grid(visible=False)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    axis.set_title(textwrap.fill(title, max(40, int(width * 10))))
    axis.set_xlabel("taken for")
    axis.set_ylabel("true class")
    size = 9 if count <= 25 else 7.5
    if named:
        axis.set_xticks(range(count), names, rotation=90, fontsize=size)
        axis.set_yticks(range(count), names, fontsize=size)
    figure.colorbar(image, ax=axis, shrink=0.7, label="% of the true class", pad=0.02)
    if count <= NUMBERS_UP_TO:
        for row, column in zip(*np.nonzero(confusion), strict=True):
            share = shares[row, column]
            axis.text(
                column, row, percent(share / 100, digits=0), ha="center", va="center", fontsize=8.5,
                color="white" if share > 55 else "#222222",
            )  # fmt: skip
    if not named:
        figure.supxlabel(_in_words(confusion, names), fontsize=8.5)
    return figure


def most_confused(confusion: Confusion, most: int) -> list[tuple[int, int, int]]:
    """Return the largest entries off the diagonal, as (true class, taken for, clips), largest first."""
    off = confusion.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:most]
    places = [(int(place) // len(off), int(place) % len(off)) for place in order]
    return [(row, column, int(off[row, column])) for row, column in places if off[row, column]]


def _in_words(confusion: Confusion, names: Sequence[str]) -> str:
    support = confusion.sum(axis=1)
    lines = ["most often confused:"]
    lines += [
        f"{names[row]} ({row}) for {names[column]} ({column}): {clips} of {support[row]}"
        for row, column, clips in most_confused(confusion, LISTED)
    ]
    return "\n".join(lines)
