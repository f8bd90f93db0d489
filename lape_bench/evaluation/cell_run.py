"""One run of a cell: train, test, record, and audit if requested."""

import logging
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lape_bench import metrics
from lape_bench.core.paths import staged_folder
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.core.work_folder import checkpoint_folder
from lape_bench.evaluation import cluster_agreement
from lape_bench.evaluation.audit import (
    EPOCH_SCORES,
    EpochScores,
    score_shortcuts,
)
from lape_bench.evaluation.corpus import load_corpus
from lape_bench.evaluation.evaluation_data import EvaluationData
from lape_bench.evaluation.plan import PlannedCell, ResolvedCell
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.train_and_score import Trained, save_model, score, train_or_load
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.records.predictions import write_predictions
from lape_bench.records.record import (
    MODEL,
    WORK,
    RunRecord,
    TaskFacts,
    write_record,
)
from lape_bench.records.system_names import relative_name
from lape_bench.runtime import environment
from lape_bench.runtime.artifacts import ArtifactStore
from lape_bench.runtime.device import stamp
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.system import (
    RunContext,
    System,
    TrainingSummary,
)

logger = logging.getLogger(__name__)


def run_once(
    resolved: ResolvedCell,
    options: RunOptions,
    folder: Path,
    progress: Progress,
    artifact_store: ArtifactStore | None,
) -> RunRecord:
    """Train, test and record a cell, then audit it if requested."""
    system, basis = resolved.system, unfinished_record(resolved.planned)
    context, resumed = _context(resolved, basis, options, folder / WORK, progress, artifact_store)
    with context.stage("audio"):
        data = EvaluationData.open(resolved, progress)
    context.load_corpus = partial(
        load_corpus,
        evaluated=data.held_back(resolved, progress),
        progress=progress,
        planned=resolved.planned.corpora,
    )
    context.resampled_train = data.resampled_train(data.split)
    context.train_groups = data.train_groups(data.split)
    if options.audit:
        context.on_epoch = EpochScores(data.test, context.work_folder / EPOCH_SCORES)
    trained = train_or_load(system, data.training, context)
    for warning in trained.summary.warnings:
        logger.warning(f"{resolved.planned.cell.title}: {warning}")
    with context.stage("test"):
        # The record lists the artifacts of training alone, which count as time of learning.
        scoring = replace(context, artifacts=[], caches_scored_clips=True)
        log_probabilities = score(system, data.test, scoring)
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
            audit = score_shortcuts(resolved, data, context)
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


def _keep_model(system: System, folder: Path) -> None:
    with staged_folder(folder) as staging:
        save_model(system, staging.path)
        shutil.rmtree(folder / MODEL, ignore_errors=True)
        staging.name = MODEL


def _test_results(
    resolved: ResolvedCell,
    data: EvaluationData,
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
        "finished_at": now(),
    }


def _training_facts(
    resolved: ResolvedCell, data: EvaluationData, trained: Trained
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


def _cluster_agreement(summary: TrainingSummary, labels: NDArray[np.int64]) -> dict[str, float]:
    """Compare the clusters of train clips with their true labels, which the system has not seen."""
    if summary.clusters is None:
        return {}
    return cluster_agreement.describe(np.array(summary.clusters), labels)


def unfinished_record(planned: PlannedCell) -> RunRecord:
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


def now() -> str:
    """Return the date and time in UTC, in ISO format."""
    return datetime.now(UTC).isoformat(timespec="seconds")
