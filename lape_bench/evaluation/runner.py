"""Run, resume, score and record cells.

`run_planned_cell` is a function of plain data (a `PlannedCell` and `RunOptions`), so another process or machine can call it.
"""

import logging
import os
import shutil
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from lape_bench import metrics
from lape_bench.core.config import Config
from lape_bench.core.errors import (
    FAILURES,
    DamagedFile,
    UserError,
    explain_write_errors,
    summarize_error,
)
from lape_bench.core.folder_checksums import find_damage, write_checksums
from lape_bench.core.paths import staged_folder, write_text
from lape_bench.core.progress import Progress
from lape_bench.core.sealed_json import read_sealed_json, write_sealed_json
from lape_bench.core.seeding import Seeds
from lape_bench.core.work_folder import checkpoint_folder, was_resumed
from lape_bench.data.audio_store import Clips
from lape_bench.data.manifest import Manifest
from lape_bench.data.splits import Split, random_like
from lape_bench.evaluation import cluster_agreement
from lape_bench.evaluation.audit import EpochScores, best_epoch, one_random_crop
from lape_bench.evaluation.corpus import EvaluatedTask, load_corpus
from lape_bench.evaluation.plan import PlannedCell, ResolvedCell, resolve
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.records.predictions import read_predictions, write_predictions
from lape_bench.records.record import (
    ERROR,
    LOCK,
    MODEL,
    RECORD,
    WORK,
    ArtifactUse,
    Cell,
    RunRecord,
    StageCost,
    TaskFacts,
    cell_folder,
    read_record,
    write_record,
)
from lape_bench.records.system_names import relative_name
from lape_bench.runtime import environment
from lape_bench.runtime.artifacts import ArtifactStore
from lape_bench.runtime.device import Compute, stamp
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.system import (
    LabeledClips,
    RunContext,
    System,
    TrainingData,
    TrainingSummary,
)
from lape_bench.task import TaskCard

logger = logging.getLogger(__name__)

EPOCH_SCORES = "epoch-scores"  # in the work folder


class RunOptions(Config):
    """Options for running cells. They are not part of a cell.

    Attributes:
        out: folder of the records.
        compute: device, precision, threads.
        force: run finished cells again.
        audit: also record what published shortcuts would have reported.
        keep_model: keep the trained model beside the record.
        checkpoint_seconds: shortest time between two checkpoints.
    """

    out: Path = Path("results")
    compute: Compute = Compute()
    force: bool = False
    audit: bool = False
    keep_model: bool = False
    checkpoint_seconds: float = 10.0


def finished_record(planned: PlannedCell, options: RunOptions) -> RunRecord | None:
    """Return the record of a cell if these options require no further run."""
    folder = cell_folder(options.out, planned.cell, planned.identity)
    record = _intact_record(folder, planned)
    if record is None or options.force:
        return None
    lacks_audit = options.audit and record.audit is None
    lacks_model = options.keep_model and find_damage(folder / MODEL, remember=True) != ""
    return None if lacks_audit or lacks_model else record


def with_label(planned: PlannedCell, options: RunOptions, record: RunRecord) -> RunRecord:
    """Return a finished record under the label that its cell has now; the file is written again if that is new."""
    label = planned.cell.label
    if not label or label == record.cell.label:
        return record
    record = record.model_copy(update={"cell": record.cell.model_copy(update={"label": label})})
    folder = cell_folder(options.out, planned.cell, planned.identity)
    with explain_write_errors(folder):
        write_record(folder, record)
    return record


def _intact_record(folder: Path, planned: PlannedCell) -> RunRecord | None:
    """Return the record of a finished run of the same cell, if the record and its predictions are intact."""
    if not (folder / RECORD).is_file():
        return None
    try:
        record = read_record(folder)
        if record.status != "finished" or record.identity != planned.identity:
            return None
        read_predictions(folder, record)
    except UserError:
        return None  # damaged: the cell runs again
    return record


def run_cell(
    cell: Cell, options: RunOptions, progress: Progress, artifact_store: ArtifactStore | None = None
) -> RunRecord:
    """Resolve and run a cell, or return its record if it is finished. A failure is recorded too.

    Args:
        cell: the cell.
        options: how to run it.
        progress: shows what happens.
        artifact_store: exchanges artifacts with machines that have another cache.

    Raises:
        UserError: the cell cannot run (see `plan.resolve`), this machine lacks the device, or results cannot be
            written.
    """
    return _find_or_run(resolve(cell, progress), options, progress, artifact_store)


def run_planned_cell(
    planned: PlannedCell,
    options: RunOptions,
    progress: Progress,
    artifact_store: ArtifactStore | None = None,
) -> RunRecord:
    """Run a cell that was planned earlier, perhaps by another process or machine; see `run_cell`.

    Raises:
        UserError: as `run_cell`; or data, code or settings have changed since the cell was planned, or are
            different on this machine.
    """
    resolved = resolve(planned.cell, progress)
    if resolved.planned.identity != planned.identity:
        raise UserError(
            f"{planned.cell.title} is another cell here than when it was planned: {_difference(planned, resolved.planned)}",
            next_step="run the same command again; on a cluster, prepare the task from the same source on every machine",
        )
    return _find_or_run(resolved, options, progress, artifact_store)


def _difference(before: PlannedCell, now: PlannedCell) -> str:
    """Return a message that names a part of the identity that has changed."""
    if before.manifest_hash != now.manifest_hash:
        return f"the prepared data of '{now.cell.task}' differ"
    if before.settings != now.settings:
        return f"default settings of '{now.cell.system}' differ"
    if before.system_version != now.system_version:
        return f"'{now.cell.system}' has version {now.system_version}, not {before.system_version}"
    if before.provenance != now.provenance:
        return f"the files of '{now.cell.system}' differ"
    for entry, state in now.corpora.items():
        if before.corpora.get(entry) != state:
            return f"the corpus '{entry}' holds other audio"
    return "the task's card or a version differs"


def _find_or_run(
    resolved: ResolvedCell,
    options: RunOptions,
    progress: Progress,
    artifact_store: ArtifactStore | None,
) -> RunRecord:
    """Return the record of a cell, after running it if necessary."""
    options.compute.resolve()
    planned = resolved.planned
    folder = cell_folder(options.out, planned.cell, planned.identity)
    finished = finished_record(planned, options)
    if finished is not None and not os.access(folder, os.W_OK):
        return finished  # if no lock can be written, no cell can run
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # A second process on the same cell waits here and then finds it finished.
        with FileLock(folder / LOCK):
            if options.force:
                (folder / RECORD).unlink(missing_ok=True)
                for stale in (WORK, MODEL):
                    shutil.rmtree(folder / stale, ignore_errors=True)
            finished = finished_record(planned, options)
            if finished is not None:
                logger.debug(f"finished before: {planned.cell.title}")
                shutil.rmtree(folder / WORK, ignore_errors=True)  # left by a killed audit
                return with_label(planned, options, finished)
            return _run_and_record(resolved, options, folder, progress, artifact_store)


def record_failure(planned: PlannedCell, options: RunOptions, reason: str) -> RunRecord:
    """Record that a cell failed in a process that could not do so itself."""
    return _failed(planned, cell_folder(options.out, planned.cell, planned.identity), reason)


def _failed(planned: PlannedCell, folder: Path, reason: str) -> RunRecord:
    """Write a failed record, unless that would replace a finished one."""
    record = _unfinished_record(planned).model_copy(update={"error": reason, "finished_at": _now()})
    if _intact_record(folder, planned) is None:
        write_record(folder, record)
    return record


def _unfinished_record(planned: PlannedCell) -> RunRecord:
    """Return the part of a record that is known before the run; its status is "failed"."""
    system = relative_name(planned.cell.system, Path.cwd())
    return RunRecord(
        cell=planned.cell.model_copy(update={"system": system}),
        identity=planned.identity,
        settings=dict(planned.settings),
        system_version=planned.system_version,
        system_versions=dict(planned.system_versions),
        provenance=dict(planned.provenance),
        corpora=dict(planned.corpora),
        status="failed",
        environment=environment.describe()
        | {"system_package": SYSTEMS.origin(planned.cell.system)},
    )


def _run_and_record(
    resolved: ResolvedCell,
    options: RunOptions,
    folder: Path,
    progress: Progress,
    artifact_store: ArtifactStore | None,
) -> RunRecord:
    run = partial(_run, resolved, options, folder, progress, artifact_store)
    try:
        try:
            record = run()
        except FAILURES as error:
            if not _may_come_of_leftovers(error, folder / WORK):
                raise
            title = resolved.planned.cell.title
            logger.warning(
                f"{title}: starting again without the checkpoints of an earlier run: {summarize_error(error)}"
            )
            shutil.rmtree(folder / WORK, ignore_errors=True)
            record = run()
    except FAILURES as error:  # any error of a system is recorded, and other cells continue
        write_text(folder / ERROR, traceback.format_exc())
        return _failed(resolved.planned, folder, summarize_error(error))
    (folder / ERROR).unlink(missing_ok=True)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return record


def _may_come_of_leftovers(error: BaseException, work: Path) -> bool:
    """Return True if a run may have failed because of damaged files of an earlier run.

    Files of the harness have checksums. Files of a plug-in may have none, and must not make every later run fail.
    """
    if isinstance(error, DamagedFile):
        return True
    lacks_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return was_resumed(work) and not isinstance(error, UserError) and not lacks_memory


def _run(
    resolved: ResolvedCell,
    options: RunOptions,
    folder: Path,
    progress: Progress,
    artifact_store: ArtifactStore | None,
) -> RunRecord:
    """Train, test and record a cell, then audit it if requested."""
    system, basis = resolved.system, _unfinished_record(resolved.planned)
    context, resumed = _context(resolved, basis, options, folder / WORK, progress, artifact_store)
    with context.stage("audio"):
        data = _EvaluationData.open(resolved, progress)
    context.load_corpus = partial(
        load_corpus,
        evaluated=data.held_back(resolved, progress),
        progress=progress,
        declared=resolved.system.corpus,
    )
    context.resampled_train = data.resampled_train(data.split)
    context.train_groups = data.train_groups(data.split)
    if options.audit:
        context.on_epoch = EpochScores(data.test, context.work_folder / EPOCH_SCORES)
    trained = _trained(system, data.training, context)
    for warning in trained.summary.warnings:
        logger.warning(f"{resolved.planned.cell.title}: {warning}")
    with context.stage("test"):
        # The record lists the artifacts of training alone, which count as time of learning.
        scoring = replace(context, artifacts=[], caches_scored_clips=True)
        log_probabilities = _scored(system, data.test, scoring)
    if options.keep_model:
        _keep_model(system, folder)
    record = basis.model_copy(
        update={
            **_test_results(resolved, data, log_probabilities, folder),
            **_training_facts(resolved, data, trained),
            "stages": tuple(context.profiler.costs),
            "resumed": resumed,
            "environment": basis.environment
            | _compute_environment(context.device, context.precision),
        }
    )
    write_record(folder, record)
    if options.audit:  # the real score is already recorded if the audit fails
        context.on_epoch = None
        with context.stage("audit"):
            audit = _audit(resolved, data, context)
        stages = tuple(context.profiler.costs)
        record = record.model_copy(update={"audit": audit, "stages": stages})
        write_record(folder, record)
    return record


def _context(
    resolved: ResolvedCell,
    basis: RunRecord,
    options: RunOptions,
    work: Path,
    progress: Progress,
    artifact_store: ArtifactStore | None,
) -> tuple[RunContext, int]:
    """Return the context of a run, and how often the run was resumed after a kill."""
    device, precision = options.compute.resolve()
    stamp_here = stamp(device, precision)
    conditions = {
        **stamp_here,
        **basis.environment,
        **basis.provenance,
        "corpora": basis.corpora,
        "audit": options.audit,
    }
    resumed = checkpoint_folder(work, conditions)
    context = RunContext(
        device,
        precision,
        Seeds(resolved.planned.cell.seed, "run"),
        progress,
        work,
        StageProfiler(device),
        options.checkpoint_seconds,
        artifact_store=artifact_store,
        checkpoint_stamp=stamp_here,
    )
    if not SYSTEMS.has_source(resolved.planned.cell.system):
        # Another class of the same name must not find its artifacts.
        context.artifact_folder = work / "artifacts"
    return context, resumed


@dataclass(frozen=True)
class _EvaluationData:
    """The clips of the evaluated task, by side of the cell's split.

    Attributes:
        clips: all of them, in the manifest's order.
        labels: index of the class of each, shape (clips,).
        groups: number of the group of each, shape (clips,).
        resampled: all of them at the further rates of the system, by the rate in Hz.
        split: rows of the sides.
        training: what the system may learn from.
        test: what it is scored on.
        test_labels: their classes.
    """

    clips: Clips
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]
    resampled: Mapping[int, Clips]
    split: Split
    training: TrainingData
    test: Clips
    test_labels: NDArray[np.int64]

    @classmethod
    def open(cls, resolved: ResolvedCell, progress: Progress) -> "_EvaluationData":
        split, labels = resolved.split, _labels(resolved.manifest, resolved.card)
        groups, system = _groups(resolved.manifest), resolved.system
        clips = resolved.manifest.open_clips(system.sample_rate, progress)
        resampled = {
            rate: resolved.manifest.open_clips(rate, progress) for rate in system.further_rates
        }
        training = _training_data(clips, labels, groups, split)
        test = clips.select(split.test)
        return cls(clips, labels, groups, resampled, split, training, test, labels[split.test])

    def held_back(self, resolved: ResolvedCell, progress: Progress) -> EvaluatedTask:
        """Return the clips that no corpus may contain: those of validation and test."""
        manifest = resolved.manifest
        if not resolved.planned.corpora:  # no audio but that of the task is learned from
            return EvaluatedTask(manifest.reference, frozenset())
        rows = np.concatenate([self.split.validation, self.split.test])
        return EvaluatedTask.from_manifest(manifest, rows, progress)

    def resampled_train(self, split: Split) -> dict[int, Clips]:
        """Return the train audio of a split at the further rates, under numbers and in the order of `TrainingData.train`."""
        return {
            rate: clips.select(_train_rows(split)).numbered()
            for rate, clips in self.resampled.items()
        }

    def train_groups(self, split: Split) -> Tensor | None:
        """Return the groups of the train clips of a split, in the order of `TrainingData.train`; see `RunContext`."""
        # In the random order of the clips. Those of the manifest follow the names of clips, which often reveal their classes.
        groups, names = pd.factorize(self.groups[_train_rows(split)])
        return torch.from_numpy(groups) if len(names) < len(groups) else None


def _keep_model(system: System, folder: Path) -> None:
    with staged_folder(folder) as staging:
        _save(system, staging.path)
        shutil.rmtree(folder / MODEL, ignore_errors=True)
        staging.name = MODEL


def _save(system: System, folder: Path) -> None:
    """Let a system write its model to a folder, and add checksums."""
    with explain_write_errors(folder):  # here, where a full disk is still full
        system.save(folder)
        write_checksums(folder)


def _test_results(
    resolved: ResolvedCell,
    data: _EvaluationData,
    log_probabilities: NDArray[np.float32],
    folder: Path,
) -> dict[str, Any]:
    """Write the predictions, and return the fields of the record about the test."""
    card, manifest, split = resolved.card, resolved.manifest, data.split
    order = np.argsort(split.test)  # that of the manifest
    predictions_hash = write_predictions(
        folder,
        [data.test.ids[place] for place in order],
        data.test_labels[order],
        log_probabilities[order],
        card.classes,
        *manifest.groups_and_folds(split.test[order]),
    )
    sides = {
        "train": split.train,
        "labeled": split.labeled,
        "validation": split.validation,
        "test": split.test,
    }
    task = TaskFacts(
        name=card.name,
        variant=card.variant,
        card_version=card.version,
        data=card.data,
        manifest_hash=manifest.hash,
        classes=card.classes,
        metric=card.metric,
        folds=card.split.folds or 1,
        clips={name: len(side) for name, side in sides.items()},
        skipped=len(manifest.info.skipped),
        window_seconds=card.window_seconds,
        level_dbfs=card.level_dbfs,
    )
    return {
        "status": "finished",
        "task": task,
        "metrics": metrics.score(log_probabilities, data.test_labels),
        "predictions_sha256": predictions_hash,
        "finished_at": _now(),
    }


def _training_facts(
    resolved: ResolvedCell, data: _EvaluationData, trained: "_Trained"
) -> dict[str, Any]:
    """Return the fields of the record about the training and the size of the system."""
    summary, system = trained.summary, resolved.system
    train_labels = data.labels[data.split.train]
    return {
        "selection": summary.selection,
        "labels_for_training": len(data.split.labeled),
        "labels_for_selection": summary.selection_clips,
        "warnings": summary.warnings,
        "validation": summary.validation,
        "validation_origin": data.split.validation_origin,
        "curves": summary.curves,
        "diagnosis": summary.diagnosis | _cluster_agreement(summary, train_labels),
        "parameters": system.count_parameters(),
        "macs_per_second": system.count_macs(),
        "artifacts": trained.artifacts,
    }


def _compute_environment(device: torch.device, precision: str) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "precision": precision, "threads": str(torch.get_num_threads())}


class _Trained(Config):
    """The result of a finished training, kept until its cell is finished."""

    summary: TrainingSummary
    stages: tuple[StageCost, ...]
    artifacts: tuple[ArtifactUse, ...]


def _trained(system: System, data: TrainingData, context: RunContext) -> _Trained:
    """Train a system, or load the model if an earlier, killed run had finished training.

    Raises:
        DamagedFile: the files of that run are damaged.
    """
    model, path = context.work_folder / MODEL, context.work_folder / "trained.json"
    if path.is_file():
        trained = _Trained.model_validate(read_sealed_json(path))
        if damage := find_damage(model):
            raise DamagedFile(damage)
        system.load(model, context)
        context.profiler.costs += trained.stages
        return trained
    before = len(context.profiler.costs)
    with context.stage("train"):
        summary = system.train(data, context)
    model.mkdir(exist_ok=True)
    _save(system, model)
    trained = _Trained(
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


def _scored(system: System, clips: Clips, context: RunContext) -> NDArray[np.float32]:
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


def _audit(
    resolved: ResolvedCell, data: _EvaluationData, context: RunContext
) -> dict[str, dict[str, float]]:
    """Score the shortcuts. The last one trains again, on a random split of the same size."""
    system, scores = resolved.system, {}
    best = best_epoch(context.work_folder / EPOCH_SCORES, data.test_labels, resolved.card.metric)
    if best is not None:
        scores["best_epoch_on_test"] = best
    crops = one_random_crop(data.test, resolved.card.window_seconds, context.seeds)
    scores["one_random_crop"] = metrics.score(_scored(system, crops, context), data.test_labels)
    names = resolved.manifest.clips["label"].to_numpy(object)
    split = random_like(data.split, names, context.seeds.numpy("random split"))
    untrained = type(system)(system.settings, system.target, system.protocol)
    work = context.work_folder / "random-split"
    work.mkdir(exist_ok=True)
    own_context = replace(
        context,
        work_folder=work,
        profiler=StageProfiler(context.device),
        artifacts=[],
        resampled_train=data.resampled_train(split),
        train_groups=data.train_groups(split),
    )
    _trained(untrained, _training_data(data.clips, data.labels, data.groups, split), own_context)
    log_probabilities = _scored(untrained, data.clips.select(split.test), own_context)
    scores["random_split"] = metrics.score(log_probabilities, data.labels[split.test])
    return scores


def _cluster_agreement(summary: TrainingSummary, labels: NDArray[np.int64]) -> dict[str, float]:
    """Compare the clusters of train clips with their true labels, which the system has not seen."""
    if summary.clusters is None:
        return {}
    return cluster_agreement.describe(np.array(summary.clusters), labels)


def _labels(manifest: Manifest, card: TaskCard) -> NDArray[np.int64]:
    number = {label: index for index, label in enumerate(card.classes)}
    return np.array([number[label] for label in manifest.clips["label"]], np.int64)


def _groups(manifest: Manifest) -> NDArray[np.int64]:
    """Return the number of each clip's group. A clip without a group gets its own number."""
    names = manifest.clips["group"].fillna("clip " + manifest.clips["clip_id"])
    numbers: NDArray[np.int64] = pd.factorize(names)[0].astype(np.int64)
    return numbers


def _training_data(
    clips: Clips, labels: NDArray[np.int64], groups: NDArray[np.int64], split: Split
) -> TrainingData:
    """Return the training data with numbers as IDs, since the names of unlabeled clips may reveal their class."""

    def side(indices: NDArray[np.int64], numbers: NDArray[np.int64]) -> LabeledClips:
        own = clips.select(indices).numbered(numbers)
        codes = np.unique(groups[indices], return_inverse=True)[1]
        return LabeledClips(own, torch.from_numpy(labels[indices]), torch.from_numpy(codes))

    place = np.empty(len(clips), np.int64)
    place[split.train] = np.arange(len(split.train))
    labeled = side(split.labeled, place[split.labeled])
    rows = _train_rows(split)
    return TrainingData(
        train=labeled.clips if rows is split.labeled else clips.select(rows).numbered(),
        labeled=labeled,
        validation=side(split.validation, np.arange(len(split.validation)))
        if len(split.validation)
        else None,
    )


def _train_rows(split: Split) -> NDArray[np.int64]:
    """Return the rows of the train split in the order in which a system gets them."""
    return split.labeled if len(split.labeled) == len(split.train) else split.train


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
