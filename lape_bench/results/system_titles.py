"""What each system is called in reports: its label, or its name and the settings that differ from its defaults."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from lape_bench.core.errors import UserError
from lape_bench.core.regular_files import read_regular
from lape_bench.records.record import (
    LABEL,
    MOST_BYTES,
    RECORD,
    Cell,
    read_record,
    record_folders,
)
from lape_bench.records.system_names import short_name

VARIANT = ["name", "settings"]  # cells that agree in these are of one system
VERSIONED = [*VARIANT, "system_version", "provenance_hash"]
HASH_CHARACTERS = 6  # of settings that no title tells apart


def system_title(name: str, settings: Mapping[str, Any]) -> str:
    """Write a system's name with its flattened settings, such as `unfused (clusters=8)`."""
    return f"{name} ({settings_text(settings)})" if settings else name


def settings_text(settings: Mapping[str, Any]) -> str:
    """Write flattened settings as one line, such as `clusters=8, teacher.corpus=a,b`; paths without their folders."""
    return ", ".join(f"{key}={_setting_text(value)}" for key, value in settings.items())


def _setting_text(value: Any) -> str:
    """Write a setting as on the command line."""
    if isinstance(value, list | tuple):
        return ",".join(map(_setting_text, value))
    return short_name(value) if isinstance(value, str) else str(value)


def with_titles(cells: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Set the column `system` to the title of each cell's system, so that no two systems share one.

    A label counts for all cells of a system; of several labels, that of the last cell counts. If two systems have one
    label, neither gets it. A label is left out, too, if it is the name of another system that has cells here.

    Args:
        cells: the last one is the newest; with the columns `VERSIONED` and `label`.

    Returns:
        The cells, and a line for each label that was left out.
    """
    known = cells[[*VERSIONED, "label"]].drop_duplicates(keep="last")
    variants: dict[tuple[Any, ...], str] = {}
    for row in known.itertuples(index=False, name=None):
        variants[row[:-1]] = row[-1] or variants.get(row[:-1], "")
    owners: dict[str, set[tuple[str, str]]] = {}
    for key, label in variants.items():
        owners.setdefault(label or _own_title(key), set()).add(key[:2])
    names = {name for name, *_ in variants}
    titles, problems = {}, []
    for key, label in variants.items():
        own = _own_title(key)
        is_name_of_another = label in names and label != key[0]
        if label and (len(owners[label]) > 1 or is_name_of_another):
            problems.append(f"the label '{label}' is left out for {own}: another system has it too")
            label = ""
        titles[key] = label or own
    titles = _told_apart(titles)
    keys = cells[VERSIONED].itertuples(index=False, name=None)
    return cells.assign(system=pd.Series([titles[key] for key in keys], cells.index, str)), sorted(
        {*problems}
    )


def _own_title(key: tuple[Any, ...]) -> str:
    return system_title(key[0], json.loads(key[1]))


def _told_apart(titles: dict[tuple[Any, ...], str]) -> dict[tuple[Any, ...], str]:
    """Add a hash of the settings to the title of systems whose settings differ in the folders of paths alone."""
    owners: dict[str, set[tuple[str, str]]] = {}
    for key, title in titles.items():
        owners.setdefault(title, set()).add(key[:2])
    return {
        key: f"{title} [settings {_hash(key[1])}]" if len(owners[title]) > 1 else title
        for key, title in titles.items()
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_CHARACTERS]


def check_label(label: str, systems: int) -> None:
    """Refuse a label that no record may hold, or that is given to several systems.

    Raises:
        UserError: see above.
    """
    if not re.fullmatch(LABEL, label):
        raise UserError(
            f"the label is '{label[:70]}'",
            allowed="1 to 60 letters, digits, spaces and . + - _ @, with a letter, a digit or a sign at both ends",
        )
    if systems > 1:
        raise UserError(
            f"the label '{label}' is given to {systems} systems, and would merge them",
            next_step="run each system by itself, with a label of its own",
        )


def refuse_taken_label(out: Path, cell: Cell, label: str) -> None:
    """Refuse a label by which records in a folder call another system than that of a cell.

    Raises:
        UserError: see above; it names the other system.
    """
    quoted = json.dumps(label, ensure_ascii=False).encode()
    for folder in record_folders(out)[0] if out.is_dir() else []:
        try:
            if quoted not in read_regular(folder / RECORD, MOST_BYTES):
                continue
            other = read_record(folder).cell
        except (OSError, UserError):
            continue
        if other.label == label and _variant(other) != _variant(cell):
            raise UserError(
                f"{out} holds records of {system_title(other.system_name, other.settings)} with the label '{label}'",
                next_step="choose another label, or another folder by --out",
            )


def _variant(cell: Cell) -> tuple[str, str]:
    return cell.system_name, json.dumps(cell.settings, sort_keys=True)
