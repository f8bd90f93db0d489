"""Names of tasks and systems in reports: extended by versions, sizes or preparations only if those differ."""

import json
from collections.abc import Sequence

import pandas as pd

from lape_bench.core.errors import UserError, unknown
from lape_bench.data.catalog import load_card
from lape_bench.report.formatting import known_count
from lape_bench.results.cells import PREPARATION, Preparation
from lape_bench.results.system_titles import system_title

HASH_CHARACTERS = 6  # shown of a hash


def preparation_names(rows: pd.DataFrame) -> dict[Preparation, str]:
    """Name each way in which one task was prepared and run, by what differs: manifest, card or protocol version.

    Args:
        rows: of one task, with the columns `PREPARATION`.

    Returns:
        A name for each preparation; an empty one if there is only one.
    """
    several = rows[PREPARATION].nunique() > 1
    names = {}
    for preparation in sorted(_preparations(rows)):
        parts = [
            preparation.manifest_hash[:HASH_CHARACTERS] if several["manifest_hash"] else "",
            f"card {preparation.card_version}" if several["card_version"] else "",
            f"protocol {preparation.protocol_version}" if several["protocol_version"] else "",
        ]
        names[preparation] = ", ".join(filter(None, parts))
    return names


def _preparations(rows: pd.DataFrame) -> set[Preparation]:
    distinct = rows[PREPARATION].drop_duplicates()
    return set(map(Preparation._make, distinct.itertuples(index=False, name=None)))


def task_display_names(rows: pd.DataFrame) -> pd.Series:
    """Name the task of each row of a leaderboard or of cells; synthetic audio, other preparations and metrics are marked."""
    synthetic = (rows["data"] == "synthetic").map({True: " [synthetic]", False: ""})
    prepared = rows[["task", *PREPARATION]].drop_duplicates()
    suffixes = {
        (task, *preparation): f" [{name}]" if name else ""
        for task, of_task in prepared.groupby("task")
        for preparation, name in preparation_names(of_task).items()
    }
    keys = rows[["task", *PREPARATION]].itertuples(index=False, name=None)
    names = rows["task"] + synthetic + pd.Series([suffixes[key] for key in keys], rows.index, str)
    return names + (" [" + rows["metric"] + "]").where(_several(rows["metric"], names), "")


def version_names(rows: pd.DataFrame) -> pd.Series:
    """Write the version of each row's system, with the beginning of its provenance hash if it has one."""
    provenance = "-" + rows["provenance_hash"].str[:HASH_CHARACTERS]
    return rows["system_version"].astype(str) + provenance.where(rows["provenance_hash"] != "", "")


def system_display_names(rows: pd.DataFrame) -> pd.Series:
    """Name the system of each row of a leaderboard or of cells, with version and sizes if there are several."""
    versions = version_names(rows)
    names = rows["system"] + (" [version " + versions + "]").where(
        _several(versions, rows["system"]), ""
    )
    board = [rows[key] for key in ("task", "data", "protocol", "labels", *PREPARATION, "metric")]
    for counts, of_what in (("parameters", ""), ("encoder_parameters", " of the encoder")):
        sizes = rows[counts].map(known_count).astype("str")
        names += (" [" + sizes + f" parameters{of_what}]").where(_several(sizes, *board, names), "")
    return names


def _several(values: pd.Series, *keys: pd.Series) -> pd.Series:
    """Return for each row whether the rows with the same keys have several values."""
    return values.groupby([*keys]).transform("nunique") > 1


def distinguishing_names(cells: pd.DataFrame) -> pd.Series:
    """Name the system of each cell with only the settings in which its variants differ.

    Args:
        cells: with the columns `name`, `label` and `settings`; settings that have their defaults are absent. A label
            stays as it is.

    Returns:
        A name for each cell, such as `unfused (downstream_encoder=teacher)` beside `unfused`.
    """
    settings = cells["settings"].map(json.loads)
    shared: dict[str, dict[str, object]] = {}
    for name, values in zip(cells["name"], settings, strict=True):
        common = shared.setdefault(name, values)
        shared[name] = {
            key: value for key, value in common.items() if key in values and values[key] == value
        }
    names = [
        label
        or system_title(name, {key: v for key, v in values.items() if key not in shared[name]})
        for name, label, values in zip(cells["name"], cells["label"], settings, strict=True)
    ]
    return pd.Series(names, cells.index, str)


def with_display_names(board: pd.DataFrame) -> pd.DataFrame:
    """Replace the names of tasks and systems by their display names, so that names alone tell rows apart."""
    return board.assign(task=task_display_names(board), system=system_display_names(board))


def find_system(rows: pd.DataFrame, name: str, context: str = "") -> str:
    """Return the display name of a system.

    Args:
        rows: with the columns `system` and `display_name`.
        name: a display name, or one without version and size; also without settings if only one variant was run.
        context: such as " on esc10", for messages.

    Raises:
        UserError: no system has the name, or several have.
    """
    known = sorted(rows["display_name"].unique())
    if name in known:
        return name
    without_settings = rows["system"].str.partition(" (")[0]
    matches = (rows["system"] == name) | (without_settings == name)
    variants = sorted(rows["display_name"][matches].unique())
    if len(variants) == 1:
        return str(variants[0])
    if variants:
        raise UserError(
            f"'{name}' has {len(variants)} variants{context}",
            allowed="one of " + ", ".join(f"'{variant}'" for variant in variants),
        )
    raise unknown(f"system with results{context}", name, known)


def select_systems(rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Keep the rows of the named systems, as `find_system` takes them; without names keep all rows."""
    chosen = [find_system(rows, name) for name in names]
    return rows[rows["display_name"].isin(chosen)] if names else rows


def data_set(task: str) -> str:
    """Name the recordings that a task is made of: tasks and variants of one data set have the same name."""
    base = task.partition("@")[0]
    try:
        card = load_card(base)
    except UserError:  # the task of a plug-in that is not installed here
        return base
    if card.recordings is not None:
        return str(card.recordings.folder)
    return card.sources[0].file if card.sources else base


def group_noun(task: str) -> str:
    """Name the groups of a task's clips in the plural, such as "speakers"; "groups" if no card says what they are."""
    try:
        group = load_card(task).group
    except UserError:  # the task of a plug-in that is not installed here
        group = None
    return f"{group or 'group'}s"
