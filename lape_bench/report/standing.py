"""Where one system stands: its place in the overview, the nearest systems, its curve over label budgets, and its cost."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from lape_bench.core.config import Frozen
from lape_bench.core.errors import UserError
from lape_bench.core.label_budget import budget_order
from lape_bench.report.compare import (
    Verdict,
    compare_over_tasks,
    paired_scores,
    verdict,
)
from lape_bench.report.display_names import find_system, system_display_names
from lape_bench.report.overview import Overview, OverviewSystem, overviews
from lape_bench.report.stats.crossed import with_ties
from lape_bench.report.stats.significance import holm
from lape_bench.report.system_pair import find_pair
from lape_bench.results.load import Results

PREFERRED = "10%"  # the label budget that is shown first if there is a choice


class Neighbor(Frozen):
    """A system next to the one that is placed.

    Attributes:
        system: its name.
        reference: whether its results came with lape_bench.
        side: whether its mean is above or below.
        verdict: the mean over tasks of the score of the placed system minus that of this one; None if they cannot be
            compared.
        problem: why they cannot be compared; empty if they can.
    """

    system: str
    reference: bool
    side: Literal["above", "below"]
    verdict: Verdict | None
    problem: str = ""


class CurvePoint(Frozen):
    """The mean and rank of the placed system with one label budget, among the systems that have the same tasks.

    Systems of one mean share the better place.
    """

    labels: str
    average: float
    average_rank: float | None
    average_rank_interval: tuple[float, float] | None
    place: int
    systems: int


class Standing(Frozen):
    """Where a system stands.

    Attributes:
        system: its name.
        overview: all systems, under the protocol and label budget that the neighbors are compared by.
        neighbors: the nearest system above and the nearest below; one or none at the ends.
        curve: by label budget, from few labels to many, under the same protocol.
        cells: number of the system's cells under every protocol and label budget.
        seconds: of learning, of all these cells together.
    """

    system: str
    overview: Overview
    neighbors: tuple[Neighbor, ...]
    curve: tuple[CurvePoint, ...]
    cells: int
    seconds: float

    @property
    def row(self) -> OverviewSystem:
        """The system's own row of the overview."""
        return next(each for each in self.overview.systems if each.system == self.system)

    def __str__(self) -> str:
        """Return what `bench evaluate` prints."""
        from lape_bench.report.standing_view import as_text  # it imports this module

        return as_text(self)


def standing(
    results: Results, system: str, protocol: str | None = None, labels: str | None = None
) -> Standing:
    """Place a system among all others.

    Args:
        results: of the system and of those that it is compared with.
        system: as the leaderboard names it, or without its settings if it has one variant here.
        protocol: None for `linear`, or the first one that the system has.
        labels: label budget; None for 10 %, or the one nearest to all labels that the system has.

    Raises:
        UserError: there is no such system, or it has no results under the protocol and label budget.
    """
    cells = results.cells.assign(display_name=system_display_names(results.cells))
    name = find_system(cells, system)
    own = cells[cells["display_name"] == name]
    data = "real" if "real" in {*own["data"]} else "synthetic"
    of_data = own[own["data"] == data]
    if protocol is None:
        protocols = [*of_data["protocol"].unique()]
        protocol = "linear" if "linear" in protocols else protocols[0]
    found = {
        overview.labels: overview
        for overview in overviews(results, data=data, protocol=protocol)
        if name in {each.system for each in overview.systems}
    }
    if labels is None and found:
        labels = PREFERRED if PREFERRED in found else max(found, key=budget_order)
    if labels not in found:
        raise UserError(
            f"{name} has no results for {protocol}, {labels}",
            allowed=", ".join(found) or "another protocol",
        )
    return Standing(
        system=name,
        overview=found[labels],
        neighbors=_neighbors(results, name, found[labels]),
        curve=tuple(_curve(name, found)),
        cells=len(own),
        seconds=float(own["seconds"].sum()),
    )


def _curve(name: str, overviews_by_labels: dict[str, Overview]) -> list[CurvePoint]:
    points = []
    for labels in sorted(overviews_by_labels, key=budget_order):
        ranked = _ranked(overviews_by_labels[labels])
        places = rankdata([-with_ties(row.average or 0) for row in ranked], "min")
        for place, row in zip(places.tolist(), ranked, strict=True):
            if row.system == name and row.average is not None:
                points.append(
                    CurvePoint(
                        labels=labels,
                        average=row.average,
                        average_rank=row.average_rank,
                        average_rank_interval=row.average_rank_interval,
                        place=int(place),
                        systems=len(ranked),
                    )
                )
    return points


def _ranked(overview: Overview) -> list[OverviewSystem]:
    """Return the systems with a score on every task, the best mean first."""
    return [each for each in overview.systems if each.average is not None]


def _neighbors(results: Results, name: str, overview: Overview) -> tuple[Neighbor, ...]:
    ranked = _ranked(overview)
    names = [each.system for each in ranked]
    if name not in names:
        return ()
    place = names.index(name)
    sides: list[tuple[Literal["above", "below"], int]] = [
        ("above", place - 1),
        ("below", place + 1),
    ]
    near = [(side, ranked[other]) for side, other in sides if 0 <= other < len(ranked)]
    outcomes = _corrected([_difference(results, name, other.system, overview) for _, other in near])
    return tuple(
        Neighbor(
            system=other.system,
            reference=other.reference,
            side=side,
            verdict=None if isinstance(outcome, str) else outcome,
            problem=outcome if isinstance(outcome, str) else "",
        )
        for (side, other), outcome in zip(near, outcomes, strict=True)
    )


def _difference(results: Results, name: str, other: str, overview: Overview) -> Verdict | str:
    """Compare two systems over the tasks of an overview, or return why they cannot be compared."""
    tasks = [each.task.partition(" [")[0] for each in overview.tasks]
    chosen = (overview.protocol, overview.labels, overview.data)
    try:
        pairs = [find_pair(results, name, other, task, *chosen) for task in tasks]
        if len(pairs) > 1:
            return compare_over_tasks(pairs).verdict
        return verdict(paired_scores(pairs[0]).difference(0, 1))
    except UserError as error:
        return str(error)


def _corrected(outcomes: Sequence[Verdict | str]) -> list[Verdict | str]:
    """Correct the p values of the comparisons by Holm's method."""
    tested = [v.p for v in outcomes if not isinstance(v, str) and v.p is not None]
    if len(tested) < 2:
        return [*outcomes]
    adjusted = iter(holm(np.array(tested)).tolist())
    return [
        v if isinstance(v, str) or v.p is None else v.model_copy(update={"p_holm": next(adjusted)})
        for v in outcomes
    ]
