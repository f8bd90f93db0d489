"""One score for a system over all label budgets: the area under its label curve."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.table import Table

from lape_bench.core.label_budget import LabelBudget
from lape_bench.report.formatting import percent
from lape_bench.results.cells import PREPARATION, SYSTEM_VERSION

CURVE = ["task", "data", "protocol", *PREPARATION, "metric", "unit"]  # scores that share a curve
SYSTEM = ["system", *SYSTEM_VERSION, "parameters", "encoder_parameters"]


def area_under_curve(
    amounts: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Average a score over the logarithm of the number of labels, by the trapezoid rule.

    Each doubling of the labels counts alike. The area is divided by its width, so that it is a mean score.

    Args:
        amounts: of labels, ascending, above 0, shape (budgets,).
        scores: shape (..., budgets).

    Returns:
        Shape (...), in the unit of the scores.

    Raises:
        ValueError: there are fewer than two amounts, or they do not ascend.
    """
    if len(amounts) < 2 or not (np.diff(amounts) > 0).all():
        raise ValueError(f"amounts of labels {amounts} need to be two or more, ascending")
    places = np.log(amounts)
    heights = (scores[..., 1:] + scores[..., :-1]) / 2
    return np.asarray((heights * np.diff(places)).sum(axis=-1) / (places[-1] - places[0]))


class CurveAreas(NamedTuple):
    """Areas under label curves.

    Attributes:
        table: a row for each system on a task (of one kind of data, protocol and preparation), best first:
            budgets (a tuple of texts), seeds (fewest and most behind a score of the curve), area (of the task's metric,
            in [0, 1]).
        left_out: a line for each system that lacks a budget which another one has.
    """

    table: pd.DataFrame
    left_out: list[str]


def curve_areas(board: pd.DataFrame) -> CurveAreas:
    """Compute the area under the label curve of each system on each task of a leaderboard.

    Only systems that have every label budget of their task can be compared, so only they get an area. A task with
    one budget has no area. Numbers of clips per class and shares of train are on separate curves.
    """
    parsed = board["labels"].map(LabelBudget.parse)
    board = board.assign(
        unit=[budget.unit for budget in parsed], amount=[budget.amount for budget in parsed]
    )
    rows, left_out = [], []
    for key, part in board.groupby(CURVE):
        curves, seeds = (
            part.pivot(index=SYSTEM, columns="amount", values=name) for name in ("score", "seeds")
        )
        amounts = tuple(curves.columns)
        if len(amounts) < 2:
            continue
        texts = part.set_index("amount")["labels"].to_dict()
        where = dict(zip(CURVE, key, strict=True))
        ends = zip(seeds.min(axis=1), seeds.max(axis=1), strict=True)
        for system, scores, behind in zip(curves.index, curves.to_numpy(), ends, strict=True):
            missing = [
                texts[n] for n, score in zip(amounts, scores, strict=True) if np.isnan(score)
            ]
            entry = where | dict(zip(SYSTEM, system, strict=True))
            if missing:
                left_out.append(
                    f"{entry['system']} on {entry['task']}, {entry['protocol']}, lacks {', '.join(missing)}"
                )
            else:
                area = float(area_under_curve(np.array(amounts), scores))
                budgets = tuple(texts[amount] for amount in amounts)
                known = {"budgets": budgets, "seeds": tuple(map(int, behind)), "area": area}
                rows.append(entry | known)
    table = pd.DataFrame(rows, columns=[*CURVE, *SYSTEM, "budgets", "seeds", "area"])
    table = table.sort_values([*CURVE, "area"], ascending=[True] * len(CURVE) + [False])
    return CurveAreas(table.reset_index(drop=True), left_out)


def as_table(curve_areas: CurveAreas) -> Table:
    """Draw areas for the terminal, as mean scores in percent."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("task", "system"):
        table.add_column(name, overflow="fold")
    for name in ("labels", "seeds", "area %"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in curve_areas.table.to_dict("records"):
        labels = f"{row['budgets'][0]} to {row['budgets'][-1]}"
        seeds = " to ".join(map(str, dict.fromkeys(row["seeds"])))
        where = f"{row['task']}, {row['protocol']}"
        table.add_row(where, row["system"], labels, seeds, percent(row["area"], 1))
    return table
