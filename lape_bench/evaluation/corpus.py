"""The corpus: unlabeled audio for pre-training, from train clips of tasks, folders of recordings, and shards.

Validation and test clips of the task under evaluation are refused. They are recognized by the hash of their decoded
samples; see `current_contents` for tasks that another decoder prepared. The loader that a system gets holds only these hashes: no
manifest, no label, no audio of the task.
"""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lape_bench.core.errors import DamagedFile, UserError, did_you_mean
from lape_bench.core.paths import home, sha256
from lape_bench.core.progress import Progress
from lape_bench.core.sealed_json import read_sealed_json, write_sealed_json
from lape_bench.data import audio_store
from lape_bench.data.audio import SUFFIXES
from lape_bench.data.audio_files import files_below, is_audio, warn_of_passed_over
from lape_bench.data.audio_store import Clips, open_store
from lape_bench.data.catalog import load_card, task_names
from lape_bench.data.clip_names import printable
from lape_bench.data.current_contents import current_contents
from lape_bench.data.decoding.version import decoder_version
from lape_bench.data.manifest import Manifest
from lape_bench.data.prepare import ensure_prepared
from lape_bench.data.recording import FileVersion, Recording
from lape_bench.data.splits import shuffled
from lape_bench.data.streams.find_shards import SHARD_SUFFIXES, find_shards
from lape_bench.data.streams.shard_index import ShardIndex, open_index
from lape_bench.data.streams.streamed_clips import CorpusClips, StreamedClips
from lape_bench.system import TARGET_AUDIO

logger = logging.getLogger(__name__)

NAMED = 3
ALLOWED = "names of tasks, folders of audio, or shards (.tar, .parquet)"


@dataclass(frozen=True)
class EvaluatedTask:
    """The task of the cell that needs the upstream, as far as a system may know it.

    Attributes:
        reference: the name of the task, such as "fsdd-digits@official".
        held_out: hashes of the decoded samples of all validation and test clips, which no upstream may use.
    """

    reference: str
    held_out: frozenset[str]

    @classmethod
    def from_manifest(
        cls, manifest: Manifest, rows: NDArray[np.int64], progress: Progress
    ) -> "EvaluatedTask":
        """Describe a prepared task, given the rows of its validation and test clips.

        Raises:
            UserError: see `current_contents`.
        """
        contents = current_contents(manifest, progress)
        return cls(manifest.reference, frozenset(contents[row] for row in rows))


def load_corpus(
    entries: Sequence[str],
    train: Clips | None,
    rate: int,
    evaluated: EvaluatedTask | None,
    progress: Progress,
    planned: Mapping[str, str] | None = None,
) -> CorpusClips:
    """Return the clips of all entries as a system gets them, with numbers instead of names.

    See `open_corpus` for the other arguments and errors.

    Args:
        planned: the state of each entry that the system names in `System.corpus`, as `corpus_state` returned it when the
            cell was planned; None: any entry in any state.

    Raises:
        UserError: an entry is not named there, or its audio has changed since, so that the identity of the cell does not
            depend on its audio.
    """
    own = (TARGET_AUDIO, evaluated.reference if evaluated else None)
    for entry in entries:
        if planned is not None and entry not in (*own, *planned):
            raise UserError(
                f"the system learns from the corpus entry '{entry}', which its property `corpus` does not name",
                allowed=f"it may learn from {', '.join((TARGET_AUDIO, *planned))}",
                next_step="return the entry from System.corpus, so that a record holds the state of its audio",
            )
    clips = open_corpus(entries, train, rate, evaluated, progress, planned or {})
    return clips.numbered() if isinstance(clips, Clips) else clips


def open_corpus(
    entries: Sequence[str],
    train: Clips | None,
    rate: int,
    evaluated: EvaluatedTask | None,
    progress: Progress,
    planned: Mapping[str, str] = MappingProxyType({}),
) -> CorpusClips:
    """Return the clips of all entries with their names, at a rate in Hz.

    Tasks and folders are decoded once into the store. Shards are streamed: their clips are decoded when a training needs
    them, and the corpus is then a `StreamedClips`.

    A task with an official split gives its train split. A task with folds gives all clips, since none of its folds is
    tested while another task is evaluated. The task under evaluation gives the train split of the cell; `prepare` has
    removed audio that is also on another side.

    Args:
        entries: "target", names of tasks, folders or shards. Every audio file of a folder is used; `find_shards` names shards.
        train: the train split of the task under evaluation.
        rate: of the clips in Hz, that of `train` too.
        evaluated: the task whose held-out clips are refused; None if no task is evaluated.
        progress: shows decoding, and files that were left out.
        planned: the states that entries must have; see `corpus_state`.

    Raises:
        UserError: an entry is neither a task nor a folder nor shards, is not prepared, holds no audio, holds a validation
            or test clip of the task under evaluation, or has another state than planned.
    """
    own = evaluated.reference if evaluated else None
    names = [own if entry == TARGET_AUDIO and own else entry for entry in entries]
    parts: list[CorpusClips] = []
    for entry in names:
        if entry in (TARGET_AUDIO, own):
            if train is None:
                raise UserError(
                    f"the corpus names '{TARGET_AUDIO}', the train audio of the task under evaluation, and no "
                    "task is evaluated here",
                    allowed=ALLOWED,
                )
            parts.append(train)
            continue
        clips, state = _open_entry(entry, rate, evaluated, progress)
        if planned.get(entry, state) != state:
            raise UserError(
                f"the audio of the corpus entry '{entry}' has changed since the cell was planned",
                next_step="run the same command again",
            )
        parts.append(clips)
    if not parts:
        raise UserError("the corpus is empty", allowed=ALLOWED)
    if len(parts) == 1:
        return parts[0]
    decoded = [part for part in parts if isinstance(part, Clips)]
    if len(decoded) == len(parts):
        return Clips.join(names, decoded)
    return StreamedClips.join(names, parts)


def _open_entry(
    entry: str, rate: int, evaluated: EvaluatedTask | None, progress: Progress
) -> tuple[CorpusClips, str]:
    """Open a task, shards or a folder; return the clips and the state of their audio."""
    if entry.partition("@")[0] in task_names():
        return _task_clips(entry, rate, evaluated, progress)
    index = _shard_index(entry, progress)
    if index is None:
        return _folder_clips(entry, rate, evaluated, progress)
    if evaluated is not None:
        _refuse(entry, index.clips_among(evaluated.held_out), evaluated)
    return StreamedClips.of(index, rate), index.state


def _shard_index(entry: str, progress: Progress) -> ShardIndex | None:
    """List the clips of the shards that an entry names; None if it is a folder of audio, or nothing."""
    shards = find_shards(entry)
    if shards is None:
        return None
    index = open_index(shards, progress)
    if index.n_left_out:
        logger.warning(
            f"left out of the corpus {entry}: {index.n_left_out} files, such as {', '.join(index.examples)}"
        )
    return index


def _task_clips(
    entry: str, rate: int, evaluated: EvaluatedTask | None, progress: Progress
) -> tuple[Clips, str]:
    """Open the clips of a task that others may learn from."""
    card = load_card(entry)
    manifest = ensure_prepared(card, progress)
    rows = np.arange(len(manifest))
    if not card.split.folds:
        rows = np.flatnonzero(manifest.clips["split"] == "train")
    rows = shuffled(rows, manifest)  # as the train split of a cell
    clips = manifest.open_clips(rate, progress).select(rows)
    if evaluated is not None:
        contents = current_contents(manifest, progress)
        _refuse_held_out_clips(entry, clips.ids, [contents[row] for row in rows], evaluated)
    return clips, manifest.hash


def _folder_clips(
    entry: str, rate: int, evaluated: EvaluatedTask | None, progress: Progress
) -> tuple[Clips, str]:
    """Open every audio file below a folder. Files are decoded again only if a file changes."""
    root, recordings = _audio_files(entry)
    warn_of_passed_over(root)
    state = _folder_state(root, recordings, progress)
    name = hashlib.sha256(json.dumps([str(root), state, decoder_version()]).encode())
    index_file = home() / "corpora" / f"{name.hexdigest()[:32]}.json"
    try:
        index = read_sealed_json(index_file)
    except (OSError, DamagedFile):  # none yet, or damaged
        index = _decode_folder(root, recordings, rate, progress)
        if _folder_state(root, recordings, progress) != state:
            raise UserError(
                f"the folder {root} has changed while its audio was decoded",
                next_step="run the same command again",
            ) from None
        write_sealed_json(index_file, index)
    contents, left_out = index["contents"], index["left_out"]
    if left_out:
        examples = [
            f"{printable(path)} ({problem})" for path, problem in list(left_out.items())[:NAMED]
        ]
        logger.warning(
            f"left out of the corpus {root}: {len(left_out)} files, such as {', '.join(examples)}"
        )

    def recordings_again() -> list[Recording]:
        return [Recording(i, root / i, contents[i]) for i in sorted(contents)]

    clips = open_store(index["key"], rate, recordings_again)
    if evaluated is not None:
        _refuse_held_out_clips(entry, clips.ids, list(contents.values()), evaluated)
    return clips.select(np.arange(len(clips))), state


def corpus_state(entries: Sequence[str], evaluated_task: str, progress: Progress) -> dict[str, str]:
    """Hash the audio of corpus entries. Shards are listed for this, others are not decoded.

    Args:
        entries: as for `load_corpus`.
        evaluated_task: reference of the task under evaluation, whose manifest identifies its audio.
        progress: shows the folders that are hashed.

    Returns:
        For each entry but the task under evaluation: the hash of the task's manifest, or of the names and contents of
        the audio files of the folder or the shards.

    Raises:
        UserError: an entry is neither a task nor a folder nor shards, is not prepared, or holds no audio.
    """
    states = {}
    for entry in entries:
        if entry in (TARGET_AUDIO, evaluated_task):
            continue
        if entry.partition("@")[0] in task_names():
            states[entry] = ensure_prepared(load_card(entry), progress).hash
        elif (index := _shard_index(entry, progress)) is not None:
            states[entry] = index.state
        else:
            states[entry] = _folder_state(*_audio_files(entry), progress)
    return states


def _audio_files(entry: str) -> tuple[Path, list[Recording]]:
    """Return the folder that an entry of a corpus names, and the audio files below it, sorted by clip ID."""
    root = Path(entry).expanduser().absolute()
    if not entry.strip() or not root.is_dir():  # an empty path would be the current folder
        hint = did_you_mean(entry, task_names())
        raise UserError(
            f"the corpus names '{entry}', which is neither a task nor a folder nor a shard"
            + (f": {hint}" if hint else ""),
            allowed=ALLOWED,
            next_step="'bench tasks' lists the tasks; folders and shards are given by their paths",
        )
    named = [path for path in files_below(root) if is_audio(path)]
    paths = [path for path in named if path.is_file()]
    if len(paths) < len(named):  # links that lead nowhere, named pipes
        example = printable(next(path for path in named if not path.is_file()))
        logger.warning(
            f"left out of the corpus {root}: {len(named) - len(paths)} that are not files, such as {example}"
        )
    if not paths:
        raise UserError(
            f"the folder {root} holds no audio",
            allowed=", ".join([*sorted(SUFFIXES), *SHARD_SUFFIXES]),
        )
    # By id, as `recordings_again` lists them: paths sort otherwise if a folder and a file begin alike.
    return root, sorted(Recording(path.relative_to(root).as_posix(), path) for path in paths)


def _folder_state(root: Path, recordings: Sequence[Recording], progress: Progress) -> str:
    """Hash the names and contents of the audio files in a folder. A file is read again only if it has changed."""
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:32]
    file = home() / "corpora" / f"{name}.hashes.json"
    try:
        before = read_sealed_json(file)
    except (OSError, DamagedFile):  # none yet, or damaged
        before = {}
    now: dict[str, list[Any]] = {}
    with progress.task(f"hashing {root.name}", len(recordings), "files") as task:
        for recording in recordings:
            version = [*(FileVersion.of(recording.path) or ())]  # empty if the file is gone
            known = before.get(recording.clip_id) if version else None
            digest = known[-1] if known and known[:-1] == version else _content(recording.path)
            now[recording.clip_id] = [*version, digest]
            task.advance()
    if now != before:
        write_sealed_json(file, now)
    contents = {clip_id: values[-1] for clip_id, values in now.items()}
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _content(path: Path) -> str:
    try:
        return sha256(path)
    except OSError:  # the clip is left out of the corpus, by name
        return "unreadable"


def _decode_folder(
    root: Path, recordings: Sequence[Recording], rate: int, progress: Progress
) -> dict[str, Any]:
    """Decode the recordings of a folder into the store.

    Returns:
        "key" of the store; "contents", the hash of each clip's samples by its id; "left_out", why a file cannot be used,
        by its path.
    """
    with progress.task(f"decoding {root.name}", len(recordings), "clips") as task:
        key, facts = audio_store.build_store(recordings, rate, task.advance, name=str(root))
    pairs = list(zip(recordings, facts, strict=True))
    contents = {r.clip_id: fact.content for r, fact in pairs if not fact.problem}
    if not contents:
        raise UserError(f"no audio file below {root} can be read")
    left_out = {str(r.path): fact.problem for r, fact in pairs if fact.problem}
    return {"key": key, "contents": contents, "left_out": left_out}


def _refuse_held_out_clips(
    entry: str, clip_ids: Sequence[str], contents: Sequence[str], evaluated: EvaluatedTask
) -> None:
    """Raise a `UserError` if an entry holds the audio of a validation or test clip."""
    pairs = zip(clip_ids, contents, strict=True)
    _refuse(entry, [clip for clip, content in pairs if content in evaluated.held_out], evaluated)


def _refuse(entry: str, clip_ids: Sequence[str], evaluated: EvaluatedTask) -> None:
    """Raise a `UserError` that names clips which a corpus may not hold, if there are any."""
    if refused := sorted(clip_ids):
        own = evaluated.reference
        raise UserError(
            f"the corpus entry '{entry}' holds {len(refused)} validation or test clips of {own}: "
            f"{', '.join(refused[:NAMED])}{', ...' if len(refused) > NAMED else ''}",
            next_step=f"leave the entry out, or name '{own}', whose train split is used",
        )
