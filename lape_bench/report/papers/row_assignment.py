"""Which row of a paper's tables each cell belongs to, and which cells may share a table."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from lape_bench.report.display_names import HASH_CHARACTERS, version_names
from lape_bench.report.formatting import count, join_list, known_count
from lape_bench.report.papers.specification import PaperSpecification, PaperSystem
from lape_bench.results.cells import SYSTEM_VERSION
from lape_bench.results.system_titles import settings_text
from lape_bench.task import TaskCard

PROVENANCE_REMARK = (
    "differ in weights, corpora, plug-in files, or versions of systems that they use"
)
SIZES = ["parameters", "encoder_parameters"]


class _RowMatch(NamedTuple):
    """The row that a cell belongs to, and the settings that it was run with beyond those of the row."""

    label: str
    extra_settings: str


def assign_rows(
    paper: PaperSpecification, cells: pd.DataFrame, cards: Sequence[TaskCard]
) -> tuple[pd.DataFrame, list[str]]:
    """Assign every cell of the suite and protocol to the row that matches most of its settings.

    Returns:
        The cells, with the columns `label` and `extra_settings`, and `system` replaced by the label of their row; and
        the systems that match no row.
    """
    data = {card.reference: card.data for card in cards}
    of_paper = (cells["protocol"] == paper.protocol) & (cells["data"] == cells["task"].map(data))
    cells = cells[of_paper]
    matches = [
        _match(paper, name, json.loads(settings))
        for name, settings in zip(cells["name"], cells["settings"], strict=True)
    ]
    matched = pd.Series([match is not None for match in matches], cells.index, dtype=bool)
    rows = [match for match in matches if match is not None]
    assigned = cells[matched].assign(
        label=[row.label for row in rows],
        extra_settings=[row.extra_settings for row in rows],
        system=[row_label(*row) for row in rows],
    )
    return assigned, list(dict.fromkeys(cells.loc[~matched, "system"]))


def newest_versions(cells: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Keep cells that may share a table: one protocol version, one preparation a task, one version a system, and one
    provenance a row.

    The newest counts: the highest version, and of equal versions the one that was finished last.

    Returns:
        The cells that are kept, and remarks: one that names the others, and one that names systems whose rows rest on
        different things, if there are any.
    """
    if cells.empty:
        return cells, []
    cells = cells.assign(
        version=version_names(cells),
        manifest=cells["manifest_hash"].str[:HASH_CHARACTERS],
        finished=range(len(cells)),
        size=cells["parameters"].map(known_count),
    )
    left_out = []

    def keep(mask: "pd.Series[bool]", by: list[str], template: str) -> None:
        nonlocal cells
        for key, dropped in cells[~mask].groupby(by):
            left_out.append(f"{template.format(*key)} ({count(len(dropped), 'cell')})")
        cells = cells[mask]

    newest_protocol = cells["protocol_version"].max()
    keep(cells["protocol_version"] == newest_protocol, ["protocol_version"], "protocol version {}")
    keep(
        _is_newest(cells, "task", ["card_version", "manifest_hash"]),
        ["task", "card_version", "manifest"],
        "{} of card version {}, manifest {}",
    )
    keep(_is_newest(cells, "name", ["system_version"]), ["name", "version"], "{} version {}")
    # Settings may ask for other weights, another corpus or another teacher, so this is for each row.
    keep(_is_newest(cells, "system", SYSTEM_VERSION), ["name", "version"], "{} version {}")
    sizes = cells[SIZES].fillna(-1)  # cells of unknown size have one size
    by_row = sizes.groupby([cells[name] for name in ("system", "task", "labels")])
    keep(
        (sizes == by_row.transform("last")).all(axis=1),
        ["name", "task", "size"],
        "{} on {} with {} parameters",
    )
    remarks = [f"Left out, for the newest counts: {'; '.join(left_out)}."] if left_out else []
    provenances = cells.groupby("name")["provenance_hash"].nunique()
    if names := [str(name) for name in provenances.index[provenances > 1]]:
        remarks.append(f"Rows of {join_list(names)} {PROVENANCE_REMARK}.")
    return cells, remarks


def _is_newest(cells: pd.DataFrame, by: str, version: list[str]) -> "pd.Series[bool]":
    """Return which cells have the newest version of each group; the first column of a version orders it."""
    newest = cells.sort_values([version[0], "finished"]).groupby(by)[version].transform("last")
    return (cells[version] == newest.loc[cells.index]).all(axis=1)


def row_label(label: str, extra_settings: str) -> str:
    """Return the label of a row; settings beyond its specification are in parentheses."""
    return f"{label} ({extra_settings})" if extra_settings else label


def _match(paper: PaperSpecification, name: str, settings: Mapping[str, Any]) -> _RowMatch | None:
    """Find the row of a cell; a record names only the settings that differ from the system's defaults."""
    known = {**paper.defaults.get(name, {}), **settings}
    fitting = [
        row
        for row in (*paper.systems, *paper.ablated)
        if row.name == name and _has_settings(known, row)
    ]
    if not fitting:
        return None
    best = max(fitting, key=lambda row: len(row.settings))
    extra = {key: value for key, value in settings.items() if key not in best.settings}
    return _RowMatch(best.label, settings_text(extra))


def _has_settings(known: Mapping[str, Any], row: PaperSystem) -> bool:
    return all(key in known and known[key] == value for key, value in row.settings.items())
