"""Which cells stand in which row of a paper's tables, and which of them may share a table."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from lape_bench.report.display_names import HASH_SHOWN
from lape_bench.report.papers.specification import Paper, PaperSystem
from lape_bench.results.load import Preparation, settings_text
from lape_bench.task import TaskCard


class _Claim(NamedTuple):
    """Whose row a cell belongs in: the number of a description, and what it was run with beyond that."""

    spec: int
    rest: str


def claimed_cells(
    paper: Paper, cells: pd.DataFrame, cards: Sequence[TaskCard]
) -> tuple[pd.DataFrame, list[str]]:
    """Give every cell of the suite and protocol to the row that asks for most of its settings.

    Returns:
        The cells, their `system` replaced by the label of their row, with `label` and `rest`; and systems that
        no row asks for.
    """
    data = {card.reference: card.data for card in cards}
    of_paper = (cells["protocol"] == paper.protocol) & (cells["data"] == cells["task"].map(data))
    cells = cells[of_paper]
    specs = [*paper.systems, *paper.ablated]
    claims = [
        _claim(paper, specs, name, json.loads(settings))
        for name, settings in zip(cells["name"], cells["settings"], strict=True)
    ]
    strangers = [
        system for system, claim in zip(cells["system"], claims, strict=True) if claim is None
    ]
    kept = [claim for claim in claims if claim is not None]
    labels = [specs[claim.spec].label for claim in kept]
    rests = [claim.rest for claim in kept]
    mask = pd.Series([claim is not None for claim in claims], cells.index, dtype=bool)
    claimed = cells[mask].assign(
        label=labels, rest=rests, system=list(map(row_label, labels, rests))
    )
    return claimed, list(dict.fromkeys(strangers))


def newest_cells(cells: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Keep what may share a table: one protocol version, of a task one preparation, of a system one version.

    Of each the newest counts: the highest number, and of equal ones what was finished last.

    Returns:
        The cells that are kept, and a line that names what is not, if anything.
    """
    if cells.empty:
        return cells, []
    parts = list(map(Preparation.of, cells["comparable"]))
    versions = cells["system_version"]
    cells = cells.assign(
        number=versions.str.partition("-")[0].astype(int),
        card=[part.card_version for part in parts],
        rules=[part.protocol_version for part in parts],
        prepared=[part.manifest_hash[:HASH_SHOWN] for part in parts],
        finished=range(len(cells)),
    )
    left_out = []

    def keep(mask: "pd.Series[bool]", by: list[str], named: str) -> None:
        nonlocal cells
        for key, dropped in cells[~mask].groupby(by):
            what = named.format(*key)
            left_out.append(f"{what} ({len(dropped)} cell{'s' if len(dropped) > 1 else ''})")
        cells = cells[mask]

    keep(cells["rules"] == cells["rules"].max(), ["rules"], "protocol version {}")
    prepared = cells.sort_values(["card", "finished"]).groupby("task")["comparable"].last()
    mask = cells["comparable"] == cells["task"].map(prepared)
    keep(mask, ["task", "card", "prepared"], "{} of card version {}, manifest {}")
    newest = cells.sort_values(["number", "finished"]).groupby("name")["system_version"].last()
    mask = cells["system_version"] == cells["name"].map(newest)
    keep(mask, ["name", "system_version"], "{} version {}")
    sizes = cells.groupby(["system", "task", "label_fraction"])[
        ["parameters", "encoder_parameters"]
    ]
    mask = (cells[["parameters", "encoder_parameters"]] == sizes.transform("last")).all(axis=1)
    keep(mask, ["name", "task", "parameters"], "{} on {} with {} parameters")
    return cells, ([f"Left out, for the newest counts: {'; '.join(left_out)}."] if left_out else [])


def row_label(label: str, rest: str) -> str:
    """Return the label of a row whose cells were run with more than its description asks for."""
    return f"{label} ({rest})" if rest else label


def _claim(
    paper: Paper, specs: Sequence[PaperSystem], name: str, settings: Mapping[str, Any]
) -> _Claim | None:
    known = {**paper.defaults.get(name, {}), **settings}
    fitting = [
        number
        for number, spec in enumerate(specs)
        if spec.name == name
        and all(key in known and known[key] == value for key, value in spec.settings.items())
    ]
    if not fitting:
        return None
    best = max(fitting, key=lambda number: len(specs[number].settings))
    rest = {key: value for key, value in settings.items() if key not in specs[best].settings}
    return _Claim(best, settings_text(rest))
