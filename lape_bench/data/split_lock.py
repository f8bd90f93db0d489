"""Locks: the split of a task as a text file, so that two laboratories can prove that they used the same split.

The first line holds task, version and manifest hash. The others are CSV: clip_id, label, split, fold. A lock holds no
audio and no path. The license of the data set decides whether its IDs may be published.
"""

import io
import json
from pathlib import Path

import pandas as pd

from lape_bench.core.errors import UserError
from lape_bench.core.regular_files import MOST_TABLE_BYTES, read_text
from lape_bench.data.manifest import Manifest
from lape_bench.data.verify import TaskFinding

COLUMNS = ["clip_id", "label", "split", "fold"]


def as_text(manifest: Manifest) -> str:
    """Write a manifest as a lock."""
    head = {
        "task": manifest.reference,
        "card_version": manifest.info.card_version,
        "manifest": manifest.hash,
    }
    return f"# {json.dumps(head)}\n" + manifest.clips[COLUMNS].to_csv(index=False)


def compare(manifest: Manifest, path: Path) -> TaskFinding:
    """Compare a manifest with a lock.

    Raises:
        UserError: the file is not a lock, or is one of another task or version.
    """
    try:
        head, _, table = read_text(path, MOST_TABLE_BYTES).partition("\n")
        head_values = json.loads(head.removeprefix("#"))
        task, version, digest = (head_values[key] for key in ("task", "card_version", "manifest"))
        locked = pd.read_csv(io.StringIO(table), dtype=str, keep_default_na=False)[COLUMNS]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not the lock of a manifest ({error})",
            next_step=f"write one with 'bench data lock {manifest.reference} --out FILE'",
        ) from error
    if (task, version) != (manifest.reference, manifest.info.card_version):
        raise UserError(
            f"{path} pins {task}, version {version}, not {manifest.reference}, version "
            f"{manifest.info.card_version}"
        )
    what = f"the split that {path.name} pins"
    difference = _difference(manifest, locked)
    if not difference and digest != manifest.hash:
        difference = "same ids, labels and sides, but other audio, groups or classes"
    if difference:
        return TaskFinding(what, False, difference)
    return TaskFinding(what, True, f"{len(locked):,} clips, labels, sides and contents")


def _difference(manifest: Manifest, locked: pd.DataFrame) -> str:
    """Return a message on how the rows differ; empty if they agree."""
    own = pd.read_csv(
        io.StringIO(manifest.clips[COLUMNS].to_csv(index=False)), dtype=str, keep_default_na=False
    )
    both = own.merge(locked, on="clip_id", how="outer", suffixes=("", "_locked"), indicator=True)
    more, fewer = (int((both["_merge"] == side).sum()) for side in ("left_only", "right_only"))
    shared = both[both["_merge"] == "both"]
    moved = shared[
        (
            shared[COLUMNS[1:]].to_numpy()
            != shared[[f"{c}_locked" for c in COLUMNS[1:]]].to_numpy()
        ).any(axis=1)
    ]
    if not more and not fewer and moved.empty:
        return ""
    example = [*moved["clip_id"], *both.loc[both["_merge"] != "both", "clip_id"]][0]
    return f"{more:,} clips more, {fewer:,} fewer, {len(moved):,} with another label or side, such as {example}"
