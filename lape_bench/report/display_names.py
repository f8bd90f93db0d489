"""Names that tell apart what a report may not mix, where those of tasks and systems alone would not."""

from collections.abc import Iterable, Sequence

import pandas as pd

from lape_bench.core.errors import UserError, unknown
from lape_bench.results.load import Preparation

HASH_SHOWN = 6  # characters of a manifest's hash


def preparations(comparable: Iterable[str]) -> dict[str, str]:
    """Name the ways in which one task was prepared and run, by what differs: manifest, card, protocol.

    Args:
        comparable: manifest's hash, version of the card and version of the protocol of each cell.

    Returns:
        A name for each of them; an empty one where there is only one.
    """
    parts = {each: Preparation.of(each) for each in sorted(set(comparable))}
    manifests, cards, protocols = (set(part) for part in zip(*parts.values(), strict=True))
    names = {}
    for each, (manifest, card, protocol) in parts.items():
        told = [
            manifest[:HASH_SHOWN] if len(manifests) > 1 else "",
            f"card {card}" if len(cards) > 1 else "",
            f"protocol {protocol}" if len(protocols) > 1 else "",
        ]
        names[each] = ", ".join(filter(None, told))
    return names


def shown_tasks(frame: pd.DataFrame) -> pd.Series:
    """Name the task of each row of a board or of cells: what is synthetic, and of two preparations which one."""
    synthetic = (frame["data"] == "synthetic").map({True: " [synthetic]", False: ""})
    told = {
        (task, each): f" [{name}]" if name else ""
        for task, rows in frame.groupby("task")["comparable"]
        for each, name in preparations(rows).items()
    }
    keys = zip(frame["task"], frame["comparable"], strict=True)
    return frame["task"] + synthetic + pd.Series([told[key] for key in keys], frame.index, str)


def shown_systems(frame: pd.DataFrame) -> pd.Series:
    """Name the system of each row of a board or of cells, with version and size where there are several."""
    several = frame.groupby("system")["system_version"].transform("nunique") > 1
    version = " [version " + frame["system_version"].astype(str) + "]"
    names = frame["system"] + version.where(several, "")
    place = [frame[key] for key in ("task", "data", "protocol", "label_fraction", "comparable")]
    sizes = frame["parameters"].groupby([*place, names]).transform("nunique") > 1
    size = " [" + frame["parameters"].map("{:,}".format) + " parameters]"
    return names + size.where(sizes, "")


def as_shown(board: pd.DataFrame) -> pd.DataFrame:
    """Name tasks and systems as above, so that names alone tell rows apart."""
    return board.assign(task=shown_tasks(board), system=shown_systems(board))


def find_system(frame: pd.DataFrame, name: str, where: str = "") -> str:
    """Return a system's name as a report shows it.

    Args:
        frame: rows with the shown names in the column `shown`, and those without version and size in `system`.
        name: that, or a part of it: without version and size, or without settings where one variant was run.
        where: on which task, for messages.

    Raises:
        UserError: the name fits none, or several.
    """
    shown = sorted(frame["shown"].unique())
    if name in shown:
        return name
    bare = frame["system"].str.partition(" (")[0]
    variants = sorted(frame["shown"][(frame["system"] == name) | (bare == name)].unique())
    if len(variants) == 1:
        return str(variants[0])
    if variants:
        raise UserError(
            f"'{name}' has {len(variants)} variants{where}",
            allowed="one of " + ", ".join(f"'{variant}'" for variant in variants),
        )
    raise unknown(f"system with results{where}", name, shown)


def chosen_systems(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Keep the rows of some systems, named as `find_system` takes them; of all where none is named."""
    found = [find_system(frame, name) for name in names]
    return frame[frame["shown"].isin(found)] if names else frame
