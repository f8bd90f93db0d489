"""Learning curves of a record: a panel for each quantity of each stage."""

import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lape_bench.core.errors import UserError
from lape_bench.report.figures.style import mark, panels

VALIDATION = "validation_"
SCORE = "validation"  # the quantity that is a score, in [0, 1], by the task's metric
MOST_MARKED = 30  # epochs; markers of more would run into each other


def learning_curves(
    curves: Mapping[str, Sequence[Mapping[str, float]]],
    title: str,
    named: str,
    metric: str,
) -> Figure:
    """Draw every logged quantity over epochs; one of train and the same of validation share a panel.

    Args:
        curves: rows of each stage, as a record holds them.
        title: above the figure.
        named: what the curves are of, for the error.
        metric: by which a stage is scored on validation.

    Raises:
        UserError: there is no curve.
    """
    wanted = [
        (number, stage, quantity)
        for number, (stage, rows) in enumerate(curves.items())
        for quantity in quantities(rows)
    ]
    if not wanted:
        raise UserError(
            f"{named} has no learning curve: its system does not train by epochs",
            next_step="choose a record of a system that does, such as 'supervised' under finetune",
        )
    figure, axes = panels(len(wanted), inches=(3.7, 2.6))
    for axis, (number, stage, quantity) in zip(axes, wanted, strict=True):
        look, scale = mark(number), 100 if quantity == SCORE else 1
        for name, line in ((quantity, "-"), (VALIDATION + quantity, "--")):
            rows = [row for row in curves[stage] if name in row]
            if rows:
                axis.plot(
                    [row.get("epoch", place + 1) for place, row in enumerate(rows)],
                    [scale * row[name] for row in rows],
                    color=look.color if line == "-" else "#555555",
                    linestyle=line,
                    linewidth=1.6,
                    marker=look.marker if len(rows) <= MOST_MARKED else "",
                    markersize=4,
                    label="validation" if line == "--" else "train",
                )
        if len(axis.lines) > 1:
            axis.legend(fontsize=8.5)
        axis.set_title(f"{stage}: {quantity.replace('_', ' ')}")
        if quantity == SCORE:
            axis.set_ylabel(f"{metric.replace('_', ' ')} (%)")
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    characters = int(9 * figure.get_size_inches()[0])
    figure.suptitle(textwrap.fill(title, characters), fontsize=10.5)
    return figure


def quantities(rows: Sequence[Mapping[str, float]]) -> list[str]:
    """Return what is logged, in its order; a quantity of validation goes with that of train."""
    names = list(dict.fromkeys(name for row in rows for name in row if name != "epoch"))
    return [
        name
        for name in names
        if not (name.startswith(VALIDATION) and name.removeprefix(VALIDATION) in names)
    ]
