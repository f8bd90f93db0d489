"""Train a system once, also over a kill, and score clips with it."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lape_bench.core.config import Config
from lape_bench.core.errors import DamagedFile, UserError, explain_write_errors
from lape_bench.core.folder_checksums import find_damage, write_checksums
from lape_bench.core.sealed_json import read_sealed_json, write_sealed_json
from lape_bench.data.audio_store import Clips
from lape_bench.records.record import MODEL, ArtifactUse, StageCost
from lape_bench.system import RunContext, System, TrainingData, TrainingSummary


class Trained(Config):
    """The result of a finished training, kept until its cell is finished."""

    summary: TrainingSummary
    stages: tuple[StageCost, ...]
    artifacts: tuple[ArtifactUse, ...]


def train_or_load(system: System, data: TrainingData, context: RunContext) -> Trained:
    """Train a system, or load the model if an earlier, killed run had finished training.

    Raises:
        DamagedFile: the files of that run are damaged.
    """
    model, path = context.work_folder / MODEL, context.work_folder / "trained.json"
    if path.is_file():
        trained = Trained.model_validate(read_sealed_json(path))
        if damage := find_damage(model):
            raise DamagedFile(damage)
        system.load(model, context)
        context.profiler.costs += trained.stages
        return trained
    before = len(context.profiler.costs)
    with context.stage("train"):
        summary = system.train(data, context)
    model.mkdir(exist_ok=True)
    save_model(system, model)
    trained = Trained(
        summary=summary,
        stages=tuple(context.profiler.costs[before:]),
        artifacts=tuple(
            ArtifactUse(
                kind=each.kind,
                hash=each.hash,
                sha256=each.metadata.sha256,
                seconds=each.metadata.seconds,
                found=not each.computed,
                waited=each.waited,
            )
            for each in context.artifacts
        ),
    )
    write_sealed_json(path, trained.model_dump(mode="json"))
    return trained


def score(system: System, clips: Clips, context: RunContext) -> NDArray[np.float32]:
    """Score numbered clips, and check the shape and values that the system returns."""
    scores = system.score(clips.numbered(), context)
    shape = (len(clips), len(system.target.classes))
    if tuple(scores.shape) != shape or not torch.isfinite(scores).all():
        raise UserError(
            f"the system scored {len(clips)} clips with a tensor of shape {tuple(scores.shape)}"
            + ("" if torch.isfinite(scores).all() else " that is not finite"),
            allowed=f"finite log-probabilities of shape {shape}",
            next_step="'bench systems check' says more",
        )
    log_probabilities: NDArray[np.float32] = scores.float().cpu().numpy()
    return log_probabilities


def save_model(system: System, folder: Path) -> None:
    """Let a system write its model to a folder, and add checksums."""
    with explain_write_errors(folder):  # here, where a full disk is still full
        system.save(folder)
        write_checksums(folder)
