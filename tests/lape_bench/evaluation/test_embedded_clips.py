"""Embeddings that a run left in the cache, each beside the class of its clip."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lape_bench.core.errors import UserError
from lape_bench.core.label_budget import LabelBudget
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import load_manifest
from lape_bench.data.splits import make_split
from lape_bench.evaluation.embedded_clips import embedded_clips
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.training.cached_embeddings import cached_embeddings
from lape_bench.records.record import ArtifactUse, Cell, ParameterCounts, RunRecord, TaskFacts
from lape_bench.runtime import artifacts
from lape_bench.system import RunContext

TASK = "synthetic-sounds"


class Moments(Encoder):
    """Mean, deviation and peak of a whole clip, in float64: a loop over the samples gives the same."""

    sample_rate = 16_000
    embedding_size = 3
    whole_clip = True

    def features(self, waveforms: Tensor) -> Tensor:
        return waveforms

    def forward(self, features: Tensor) -> Tensor:
        parts = [features.mean(dim=1), features.std(dim=1), features.abs().amax(dim=1)]
        return torch.stack(parts, dim=1)


def record_of(context: RunContext, fraction: float = 0.5) -> RunRecord:
    """What a linear evaluation leaves: embeddings of labeled and of validation clips."""
    card = load_card(TASK)
    manifest = load_manifest(card)
    budget = LabelBudget(fraction, validation=True)
    split = make_split(manifest, card, 0, 3, budget)
    clips = manifest.open_clips(16_000)
    for rows in (split.labeled, split.validation):
        cached_embeddings(Moments(), clips.select(rows), 1.0, {}, context)
    return RunRecord(
        cell=Cell(system="s", task=TASK, protocol="linear", labels=str(budget), seed=3),
        identity="0",
        settings={},
        system_version=1,
        status="finished",
        validation_origin=split.validation_origin,
        parameters=ParameterCounts(encoder=0, inference=3, training=3),
        artifacts=tuple(ArtifactUse(kind=a.kind, hash=a.hash) for a in context.artifacts),
        task=TaskFacts(
            name=TASK, variant="", card_version=card.version, data="synthetic", classes=card.classes,
            manifest_hash=manifest.hash, metric="accuracy", folds=1, clips={}, skipped=0,
        ),
    )  # fmt: skip


def test_each_embedding_stands_beside_the_class_of_its_own_clip(
    own_artifacts: Path, context: RunContext
) -> None:
    found = embedded_clips(record_of(context))
    manifest = load_manifest(load_card(TASK))
    clips = manifest.open_clips(16_000)
    # By another route: each row is looked up among all clips by its own moments.
    moments = [
        [c.mean(), c.std(ddof=1), np.abs(c).max()]
        for c in map(clips.__getitem__, range(len(clips)))
    ]
    distances = np.abs(found.embeddings[:, None] - np.array(moments)[None]).max(axis=2)
    assert distances.min(axis=1).max() < 1e-5
    names = manifest.clips["label"].to_numpy()[distances.argmin(axis=1)]
    assert [found.classes[label] for label in found.labels] == names.tolist()
    split = make_split(manifest, load_card(TASK), 0, 3, LabelBudget(0.5))
    assert sorted(distances.argmin(axis=1)) == sorted(split.labeled)
    assert found.about == f"{len(split.labeled)} labeled train clips"


def test_of_a_record_that_was_fine_tuned_it_is_said_when_they_were_embedded(
    own_artifacts: Path, context: RunContext
) -> None:
    record = record_of(context)
    tuned = record.model_copy(
        update={"cell": record.cell.model_copy(update={"protocol": "finetune"})}
    )
    assert embedded_clips(tuned).about.endswith("embedded before the labels came in")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("none", r"cached no embeddings; .*--protocol linear"),
        ("pruned", r"no longer holds the embeddings.*--force"),
        ("other", r"was prepared again"),
    ],
)
def test_what_is_not_there_is_told_with_what_to_run(
    own_artifacts: Path, context: RunContext, what: str, said: str
) -> None:
    record = record_of(context)
    if what == "none":
        record = record.model_copy(update={"artifacts": ()})
    elif what == "pruned":
        shutil.rmtree(artifacts.cache() / "embeddings")
    else:
        assert record.task is not None
        record = record.model_copy(
            update={"task": record.task.model_copy(update={"manifest_hash": "0" * 64})}
        )
    with pytest.raises(UserError, match=said):
        embedded_clips(record)


def test_embeddings_of_other_clips_are_not_taken(own_artifacts: Path, context: RunContext) -> None:
    other = replace(context, artifacts=[])
    record_of(other, fraction=0.25)
    record = record_of(context)
    strange = tuple(ArtifactUse(kind=a.kind, hash=a.hash) for a in other.artifacts[:1])
    with pytest.raises(UserError, match="no longer holds"):
        embedded_clips(record.model_copy(update={"artifacts": strange}))
