"""The unlabeled audio that an upstream learns from: train clips of tasks, and folders of recordings.

What validates or tests the task under evaluation is refused, by the hash of its decoded samples.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lape_bench.core.errors import UserError, nearest
from lape_bench.core.paths import home, write_text
from lape_bench.core.progress import Progress
from lape_bench.data import audio_store
from lape_bench.data.audio import SUFFIXES
from lape_bench.data.audio_store import Clips, Recording, open_store
from lape_bench.data.catalog import load_card, task_names
from lape_bench.data.manifest import Manifest
from lape_bench.data.prepare import ensure_prepared
from lape_bench.system import TARGET_AUDIO

logger = logging.getLogger(__name__)

NAMED = 3


@dataclass(frozen=True)
class Evaluation:
    """The cell that an upstream is learned for.

    Attributes:
        manifest: of the task.
        held: rows of the manifest that validate or test.
    """

    manifest: Manifest
    held: NDArray[np.int64]


def open_manifest(manifest: Manifest, rate: int, progress: Progress) -> Clips:
    """Open a manifest's clips at a rate in Hz, in the manifest's order."""
    with progress.task(f"decoding {manifest.reference}", len(manifest), "clips") as task:
        return manifest.open_clips(rate, task.advance)


def load_corpus(
    entries: Sequence[str],
    train: Clips | None,
    evaluation: Evaluation | None,
    rate: int,
    progress: Progress,
) -> Clips:
    """Return the clips of all entries, at a rate in Hz.

    Of a task with official sides train is taken, of one with folds everything: no fold tests while another
    task is evaluated. Of the task under evaluation the cell's own train split is taken, which `prepare` has kept
    free of audio that stands on another side.

    Args:
        entries: "target", names of tasks, or folders, of which every audio file is taken.
        train: the train split of the task under evaluation.
        evaluation: what must not be learned from; none where nothing is evaluated.
        rate: of the clips.
        progress: told of decoding, and of files that were left out.

    Raises:
        UserError: an entry is neither a task nor a folder, is not prepared, holds no audio, or holds a clip that
            validates or tests the task under evaluation.
    """
    own = evaluation.manifest.reference if evaluation else None
    names = [own if entry == TARGET_AUDIO and own else entry for entry in entries]
    parts = []
    for entry in names:
        if entry in (TARGET_AUDIO, own):
            if train is None:
                raise UserError(
                    f"the corpus names '{TARGET_AUDIO}', the train audio of the task under evaluation, and no "
                    "task is evaluated here",
                    allowed="names of tasks, or folders of audio",
                )
            parts.append(train)
            continue
        clips, contents = _of_task(entry, rate, progress) or _of_folder(entry, rate, progress)
        if evaluation is not None:
            _refuse_held(entry, contents, evaluation)
        parts.append(clips)
    if not parts:
        raise UserError("the corpus is empty", allowed="names of tasks, or folders of audio")
    return parts[0] if len(parts) == 1 else Clips.join(names, parts)


def _of_task(entry: str, rate: int, progress: Progress) -> tuple[Clips, list[str]] | None:
    if entry.partition("@")[0] not in task_names():
        return None
    card = load_card(entry)
    manifest = ensure_prepared(card, progress)
    rows = np.arange(len(manifest))
    if not card.split.folds:
        rows = np.flatnonzero(manifest.clips["split"] == "train")
    clips = open_manifest(manifest, rate, progress).select(rows)
    return clips, manifest.clips["content"].iloc[rows].tolist()


def _of_folder(entry: str, rate: int, progress: Progress) -> tuple[Clips, list[str]]:
    """Open every audio file below a folder, decoded once for as long as no file changes."""
    root = Path(entry).expanduser().absolute()
    if not entry.strip() or not root.is_dir():  # an empty path would be the current folder
        hint = nearest(entry, task_names())
        raise UserError(
            f"the corpus names '{entry}', which is neither a task nor a folder"
            + (f": {hint}" if hint else ""),
            next_step="'bench tasks' lists the tasks; a folder is given by its path",
        )
    paths = [path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES]
    if not paths:
        raise UserError(f"the folder {root} holds no audio", allowed=", ".join(sorted(SUFFIXES)))
    # By id, as `usable` lists them again: paths sort otherwise where a folder and a file begin alike.
    recordings = sorted(Recording(path.relative_to(root).as_posix(), path) for path in paths)
    state = [(r.clip_id, r.path.stat().st_size, r.path.stat().st_mtime_ns) for r in recordings]
    name = hashlib.sha256(json.dumps([str(root), state]).encode()).hexdigest()[:32]
    listing = home() / "corpora" / f"{name}.json"
    if not listing.is_file():
        with progress.task(f"decoding {root.name}", len(recordings), "clips") as task:
            key, facts = audio_store.build(recordings, rate, task.advance)
        pairs = list(zip(recordings, facts, strict=True))
        contents = {each.clip_id: fact.content for each, fact in pairs if not fact.problem}
        left_out = {str(each.path): fact.problem for each, fact in pairs if fact.problem}
        if not contents:
            raise UserError(f"no audio file below {root} can be read")
        known = {"key": key, "contents": contents, "left_out": left_out}
        write_text(listing, json.dumps(known))
    known = json.loads(listing.read_text(encoding="utf-8"))
    if known["left_out"]:
        some = [f"{path} ({why})" for path, why in list(known["left_out"].items())[:NAMED]]
        logger.warning(
            f"left out of the corpus {root}: {len(known['left_out'])} files, such as {', '.join(some)}"
        )

    def usable() -> list[Recording]:
        contents = known["contents"]
        return [Recording(i, root / i, contents[i]) for i in sorted(contents)]

    clips = open_store(known["key"], rate, usable)
    return clips.select(np.arange(len(clips))), list(known["contents"].values())


def _refuse_held(entry: str, contents: Sequence[str], evaluation: Evaluation) -> None:
    table = evaluation.manifest.clips.iloc[evaluation.held]
    seen = set(contents)
    found = [
        i for i, content in zip(table["clip_id"], table["content"], strict=True) if content in seen
    ]
    if found:
        own = evaluation.manifest.reference
        raise UserError(
            f"the corpus entry '{entry}' holds {len(found)} clips that validate or test {own}: "
            f"{', '.join(found[:NAMED])}{', ...' if len(found) > NAMED else ''}",
            next_step=f"leave the entry out, or name '{own}', of which the train split alone is taken",
        )
