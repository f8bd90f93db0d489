"""Where one system stands, as text."""

import io
from typing import Any

from rich.console import Console, Group
from rich.table import Table

from lape_bench.core.label_budget import LabelBudget
from lape_bench.report.formatting import count, p_value, percent
from lape_bench.report.leaderboard import REFERENCE_MARK
from lape_bench.report.overview_view import OverviewView, rank_text, short_count
from lape_bench.report.standing import Neighbor, Standing
from lape_bench.report.stats.crossed import LEVEL

WIDTH = 100  # characters of a text that no terminal shows


def standing_view(standing: Standing) -> Group:
    """Return the overview, the nearest systems, the curve over label budgets, and the cost."""
    parts: list[Any] = [OverviewView(standing.overview, standing.system), ""]
    parts += [_place(standing), *map(_neighbor, standing.neighbors)]
    if len(standing.curve) > 1:
        parts += ["", _curve(standing)]
    row = standing.row
    parts += [
        "",
        f"cost: {short_count(row.encoder_parameters)} parameters in the encoder; {row.seconds:.0f} s of learning per cell, "
        f"{standing.seconds / 60:.1f} min for {count(standing.cells, 'cell')}",
    ]
    return Group(*parts)


def as_text(standing: Standing) -> str:
    """Return the same as plain text."""
    console = Console(width=WIDTH, file=io.StringIO(), markup=False, highlight=False)
    console.print(standing_view(standing))
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    return "\n".join(map(str.rstrip, text.splitlines()))


def _place(standing: Standing) -> str:
    point = next((p for p in standing.curve if p.labels == standing.overview.labels), None)
    if point is None:
        return f"{standing.system} lacks a task, so it has no mean and no rank"
    if point.systems == 1:
        return f"{standing.system}: no other system has the same tasks"
    return (
        f"{standing.system}: place {point.place} of {point.systems} by the mean over tasks, "
        f"average rank {rank_text(standing.row)}"
    )


def _neighbor(neighbor: Neighbor) -> str:
    name = f"next {neighbor.side}: {neighbor.system}{REFERENCE_MARK * neighbor.reference}"
    found = neighbor.verdict
    if found is None:
        return f"{name}, not compared: {neighbor.problem}"
    text = f"{name}, difference {percent(found.difference, 1, signed=True)} points"
    if found.interval:
        low, high = (percent(end, 1, signed=True) for end in found.interval)
        over = "groups and seeds" if found.p is not None else "groups, of these two runs alone"
        text += f", 95 % interval over {over} {low} to {high}"
    if found.p is None:
        return f"{text}; no test: {found.why_untested}"
    corrected = found.p_holm is not None
    p = found.p_holm if found.p_holm is not None else found.p
    apart = "" if p <= LEVEL else ": cannot be told apart"
    return f"{text}, p {p_value(p)}{' (Holm)' * corrected}{apart}"


def _curve(standing: Standing) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(f"{standing.overview.protocol}, labels")
    for heading in ("mean %", "place", "average rank"):
        table.add_column(heading, justify="right")
    for point in standing.curve:
        rank = "" if point.average_rank is None else f"{point.average_rank:.1f}"
        if point.average_rank_interval is not None:
            low, high = point.average_rank_interval
            rank += f" ({low:.1f}\u2013{high:.1f})"
        place = f"{point.place} of {point.systems}"
        labels = LabelBudget.parse(point.labels).description
        table.add_row(labels, percent(point.average, 1), place, rank)
    return table
