"""Embeddings of clips that a run left in the cache, with the classes of the clips.

This is the only part of the reports that reads tensors and so imports torch.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lape_bench.core.errors import UserError
from lape_bench.data.audio_store import built_rates
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import Manifest, load_manifest
from lape_bench.data.splits import make_split
from lape_bench.learning.training.cached_embeddings import FILE
from lape_bench.learning.training.checkpoints import load_tensors
from lape_bench.learning.training.inference import average_by_clip
from lape_bench.records.record import RunRecord
from lape_bench.runtime import artifacts

KIND = "embeddings"


class Embedded(NamedTuple):
    """Embeddings of the clips of one side by one encoder.

    Attributes:
        embeddings: mean over each clip's windows, shape (clips, features).
        labels: class of each clip, shape (clips,).
        classes: their names.
        about: which clips, and whose encoder.
    """

    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    about: str


class _CachedEmbeddings(NamedTuple):
    folder: Path
    encoder: str
    side: str
    rows: NDArray[np.int64]


def embedded_clips(record: RunRecord) -> Embedded:
    """Find the embeddings by the last encoder that the run used.

    The clips are identified by the hash of their IDs and audio, which must match a side of the cell's split. So a label
    never belongs to another clip.

    Raises:
        UserError: the run cached no embeddings, they are gone, or the task has changed.
    """
    cell, task = record.cell, record.task
    again = f"bench run --system {cell.system_name} --task {cell.task} --protocol linear"
    used = [each.hash for each in record.artifacts if each.kind == KIND]
    if task is None or not used:
        raise UserError(
            f"the run of {cell.title} cached no embeddings",
            next_step=f"make a record of a frozen encoder, such as by '{again}', and name that",
        )
    card = load_card(cell.task)
    manifest = load_manifest(card)
    if manifest.hash != task.manifest_hash:
        raise UserError(
            f"{cell.task} was prepared again after {cell.title} ran, and its manifest has changed",
            next_step=f"run it again: '{again}'",
        )
    split = make_split(manifest, card, cell.fold, cell.seed, cell.budget)
    sides = {
        "labeled train": split.labeled,
        "validation": split.validation,
        "train": split.train,
    }
    cached = list(_cached_embeddings(used, sides, manifest))
    if not cached:
        raise UserError(
            f"the cache no longer holds the embeddings of {cell.title}",
            next_step=f"run it again with --force: '{again} --force'",
        )
    best = max((c for c in cached if c.encoder == cached[-1].encoder), key=lambda c: len(c.rows))
    tensors = load_tensors(best.folder / FILE, torch.device("cpu"))
    by_clip = average_by_clip(tensors["embeddings"], tensors["owner"], len(best.rows))
    number = {label: index for index, label in enumerate(card.classes)}
    labels = np.array([number[label] for label in manifest.clips["label"].iloc[best.rows]])
    about = f"{len(best.rows):,} {best.side} clips"
    if cell.protocol == "finetune":
        about += ", embedded before the labels came in"
    return Embedded(by_clip.numpy(), labels, card.classes, about)


def _cached_embeddings(
    used: list[str], sides: dict[str, NDArray[np.int64]], manifest: Manifest
) -> Iterator[_CachedEmbeddings]:
    """Go through the cached embeddings that are of a side, in the order of their use."""
    keys: dict[str, tuple[str, NDArray[np.int64]]] = {}
    for rate in built_rates(manifest.info.store_key):
        clips = manifest.open_clips(rate)
        keys |= {clips.view(rows).key: (side, rows) for side, rows in sides.items()}
    for name in used:
        folder = artifacts.cache() / KIND / name
        try:
            text = (folder / artifacts.DESCRIPTION).read_text(encoding="utf-8")
        except OSError:
            continue  # pruned
        determined_by = json.loads(text)
        if determined_by["clips"] in keys:
            yield _CachedEmbeddings(
                folder, determined_by["encoder_tensors"], *keys[determined_by["clips"]]
            )
