"""Cells: planned, run, resumed, scored and recorded.

`run_cell` is a function of plain data (a `Cell` and `RunOptions`), so another process or machine can call it.
"""

import hashlib
import json
import logging
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray

from lape_bench import metrics
from lape_bench.core.config import Config, validate
from lape_bench.core.errors import FAILURES, UserError, in_a_line, unknown, writing
from lape_bench.core.paths import checkpoint_folder, staged_folder, write_text
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import Manifest, load_manifest
from lape_bench.data.prepare import ensure_prepared
from lape_bench.data.splits import Split, make_split, random_like
from lape_bench.evaluation import cluster_agreement
from lape_bench.evaluation.audit import EpochsOnTest, one_random_crop
from lape_bench.evaluation.corpus import Evaluation, load_corpus, open_manifest
from lape_bench.learning.systems.plain_encoder import EXPECTED, is_system, system_of
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.records.predictions import read_predictions, write_predictions
from lape_bench.records.record import (
    ERROR,
    LOCK,
    PROTOCOL_VERSION,
    RECORD,
    WORK,
    ArtifactUse,
    Cell,
    ProtocolName,
    RunRecord,
    StageCost,
    TaskFacts,
    cell_folder,
    identity,
    read_record,
    write_record,
)
from lape_bench.runtime import environment
from lape_bench.runtime.artifacts import ArtifactStore
from lape_bench.runtime.device import Compute, stamp
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.system import (
    LabeledClips,
    RunContext,
    System,
    TargetTask,
    TrainingData,
    TrainingSummary,
)
from lape_bench.task import TaskCard

logger = logging.getLogger(__name__)

MODEL = "model"


class RunOptions(Config):
    """How cells are run; none of it is part of a cell.

    Attributes:
        out: folder of the records.
        compute: device, precision, threads.
        force: run again what is finished.
        audit: also note what published shortcuts would have reported.
        keep_model: leave the trained model beside the record.
        checkpoint_seconds: how far apart checkpoints are, at least.
    """

    out: Path = Path("results")
    compute: Compute = Compute()
    force: bool = False
    audit: bool = False
    keep_model: bool = False
    checkpoint_seconds: float = 10.0


@dataclass(frozen=True)
class Job:
    """A cell with everything it names resolved and checked."""

    cell: Cell
    card: TaskCard
    manifest: Manifest
    system: System
    identity: str

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting of the system, resolved, as plain data."""
        settings: dict[str, Any] = self.system.settings.model_dump(mode="json")
        return settings

    @property
    def split(self) -> Split:
        """Who is trained, selected and tested on."""
        cell = self.cell
        return make_split(
            self.manifest,
            self.card,
            cell.fold,
            cell.seed,
            cell.label_fraction,
            self.system.uses_validation,
        )

    @property
    def shared_artifacts(self) -> tuple[str, ...]:
        """Names of what is made on the way that other cells need too."""
        cell = self.cell
        holds_out = self.system.uses_validation or cell.label_fraction < 1
        train = partial(_train_name, cell.task, self.manifest.hash, cell.fold, cell.seed, holds_out)
        made = self.system.shared_artifacts(cell, train)
        return tuple(json.dumps(each, sort_keys=True) for each in made)


@lru_cache(maxsize=4096)
def _train_name(task: str, manifest_hash: str, fold: int, seed: int, holds_out: bool) -> str:
    """Name the train audio of cells by the clips that it is of."""
    card = load_card(task)
    rows = make_split(load_manifest(card), card, fold, seed, uses_validation=holds_out).train
    return hashlib.sha256(manifest_hash.encode() + rows.tobytes()).hexdigest()


def load_system(name: str) -> type[System]:
    """Import the class of a system, or make one of an encoder.

    Args:
        name: a registered name, `KIND:ARGUMENT` for a kind of system that takes an argument, or `file.py:Class`.
    """
    return system_of(SYSTEMS.load(name, is_system, EXPECTED))


def resolve(cell: Cell, progress: Progress) -> Job:
    """Find and check everything a cell names.

    Raises:
        UserError: unknown task, system or setting; a protocol that the system does not have; a task that is
            not prepared; a fold that the task does not have.
    """
    card = load_card(cell.task)
    kind = load_system(cell.system)
    if cell.protocol not in kind.protocols:
        raise _no_protocol(cell.system, kind, cell.protocol)
    card.check_fold(cell.fold)
    settings = validate(cell.settings, kind.Settings, where=f"settings of {cell.system}")
    target = TargetTask(
        classes=card.classes, window_seconds=card.window_seconds, metric=card.metric
    )
    system = kind(settings, target, cell.protocol)
    manifest = ensure_prepared(card, progress)
    name = identity(
        {
            "cell": cell.model_dump(mode="json", exclude={"settings"}),
            "settings": settings.model_dump(mode="json"),
            "system_version": kind.version,
            **({"system_versions": system.system_versions} if system.system_versions else {}),
            **({"provenance": system.provenance} if system.provenance else {}),
            **SYSTEMS.provenance(cell.system),
            "card_version": card.version,
            # A user edits an own card more often than its version.
            **({"target": [card.window_seconds, card.metric]} if card.state else {}),
            # 1 could leave classes of such a card without a clip in validation.
            **({"hold_out": 2} if card.state and card.group else {}),
            "manifest": manifest.hash,
            "protocol_version": PROTOCOL_VERSION,
        }
    )
    return Job(cell, card, manifest, system, name)


def plan(
    systems: Sequence[tuple[str, dict[str, Any]]],
    tasks: Sequence[str],
    protocols: Sequence[str] = (),
    label_fractions: Sequence[float] = (1.0,),
    seeds: int = 1,
    fold: int | None = None,
) -> list[Cell]:
    """Expand a grid into cells.

    Args:
        systems: names, each with the settings that differ from its defaults.
        tasks: names, or name@variant.
        protocols: what to run; none for each system's own. A system skips those it does not have, unless it
            has none of them.
        label_fractions: shares of the labels.
        seeds: how many, from 0.
        fold: the one fold to run; none for all.
    """
    cells = []
    for name, settings in systems:
        kind = load_system(name)
        own = kind.protocols
        wanted = [own[0]] if not protocols else [p for p in own if p in protocols]
        if not wanted:
            raise _no_protocol(name, kind, ", ".join(protocols))
        for task in tasks:
            card = load_card(task)
            if fold is not None:
                card.check_fold(fold)
            folds = card.folds if fold is None else (fold,)
            cells += [
                Cell(
                    system=name,
                    settings=settings,
                    task=card.reference,
                    protocol=protocol,
                    label_fraction=fraction,
                    seed=seed,
                    fold=number,
                )
                for protocol in wanted
                for fraction in label_fractions
                for seed in range(seeds)
                for number in folds
            ]
    return cells


def _no_protocol(name: str, kind: type[System], asked: str) -> UserError:
    because = f" ({kind.frozen_because})" if kind.frozen_because else ""
    return UserError(
        f"the system '{name}' has no protocol '{asked}'{because}",
        allowed=f"it has {', '.join(kind.protocols)}",
    )


def check_protocols(protocols: Sequence[str]) -> None:
    """Refuse a protocol that no system could have."""
    for protocol in protocols:
        if protocol not in get_args(ProtocolName):
            raise unknown("protocol", protocol, get_args(ProtocolName))


def finished_record(job: Job, options: RunOptions) -> RunRecord | None:
    """Return the record of a cell that needs no further run under these options."""
    folder = cell_folder(options.out, job.cell, job.identity)
    record = _intact_record(folder, job)
    if record is None:
        return None
    lacks_audit = options.audit and record.audit is None
    lacks_model = options.keep_model and not (folder / MODEL).is_dir()
    return None if lacks_audit or lacks_model else record


def _intact_record(folder: Path, job: Job) -> RunRecord | None:
    """Return the record of a finished run of this very cell, if it and its predictions are whole."""
    if not (folder / RECORD).is_file():
        return None
    try:
        record = read_record(folder)
        if record.status != "finished" or record.identity != job.identity:
            return None
        read_predictions(folder, record)
    except UserError:
        return None  # damaged: it is run again
    return record


def run_cell(
    cell: Cell, options: RunOptions, progress: Progress, artifact_store: ArtifactStore | None = None
) -> RunRecord:
    """Run one cell, or return its record if it is finished; a failure is recorded too.

    Args:
        cell: what to run.
        options: how.
        progress: told of what happens.
        depot: where machines that share no cache leave artifacts for each other, if they do not.

    Raises:
        UserError: the cell cannot be run at all (see `resolve`), this machine lacks the device, or results
            cannot be written.
    """
    job = resolve(cell, progress)
    options.compute.resolve()
    folder = cell_folder(options.out, cell, job.identity)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # A second process on the same cell waits here and then finds it finished.
        with FileLock(folder / LOCK):
            if options.force:
                (folder / RECORD).unlink(missing_ok=True)
                for stale in (WORK, MODEL):
                    shutil.rmtree(folder / stale, ignore_errors=True)
            done = finished_record(job, options)
            if done is not None:
                logger.debug(f"finished before: {cell.title}")
                shutil.rmtree(folder / WORK, ignore_errors=True)  # of an audit that was killed
                return done
            return _run_and_record(job, options, folder, progress, artifact_store)


def record_failure(cell: Cell, options: RunOptions, reason: str) -> RunRecord:
    """Record that a cell failed in a process that could not do so itself."""
    job = resolve(cell, Progress(quiet=True))
    return _failed(job, cell_folder(options.out, cell, job.identity), reason)


def _failed(job: Job, folder: Path, reason: str) -> RunRecord:
    """Write a failed record, unless that would replace a finished one."""
    record = _basis(job).model_copy(update={"error": reason, "finished_at": _now()})
    if _intact_record(folder, job) is None:
        write_record(folder, record)
    return record


def _basis(job: Job) -> RunRecord:
    name = job.cell.system
    return RunRecord(
        cell=job.cell,
        identity=job.identity,
        settings=job.settings,
        system_version=job.system.version,
        provenance=SYSTEMS.provenance(name) | job.system.provenance,
        status="failed",
        environment=environment.describe() | {"system_package": SYSTEMS.origin(name)},
    )


def _run_and_record(
    job: Job,
    options: RunOptions,
    folder: Path,
    progress: Progress,
    artifact_store: ArtifactStore | None,
) -> RunRecord:
    try:
        record = _run(job, options, folder, progress, artifact_store)
    except FAILURES as error:  # whatever a system raises, the record says so and other cells go on
        write_text(folder / ERROR, traceback.format_exc())
        return _failed(job, folder, in_a_line(error))
    (folder / ERROR).unlink(missing_ok=True)
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return record


def _run(
    job: Job,
    options: RunOptions,
    folder: Path,
    progress: Progress,
    artifact_store: ArtifactStore | None,
) -> RunRecord:
    cell, card, basis = job.cell, job.card, _basis(job)
    device, precision = options.compute.resolve()
    seeds = Seeds(cell.seed, "run")
    split = job.split
    here = stamp(device, precision)
    work = folder / WORK
    resumed = checkpoint_folder(
        work, {**here, **basis.environment, **basis.provenance, "audit": options.audit}
    )
    context = RunContext(
        device,
        precision,
        seeds,
        progress,
        work,
        StageProfiler(device),
        options.checkpoint_seconds,
        artifact_store=artifact_store,
        stamp=here,
    )
    if not SYSTEMS.has_source(
        cell.system
    ):  # another class of that name must not find what it makes
        context.cache = work / "artifacts"
    rate = job.system.sample_rate
    labels = _labels(job.manifest, card)
    with context.stage("audio"):
        clips = open_manifest(job.manifest, rate, progress)
        data = _training_data(clips, labels, split)
        test, truth = clips.select(split.test), labels[split.test]
    context.corpus = partial(
        load_corpus,
        evaluation=Evaluation(job.manifest, np.concatenate([split.validation, split.test])),
        rate=rate,
        progress=progress,
    )
    listener = None
    if options.audit:
        listener = EpochsOnTest(test, truth, card.metric, work / "epochs_on_test.json")
        context.on_epoch = listener
    trained = _trained(job.system, data, context)
    with context.stage("test"):
        log_probabilities = _scored(job.system, test, context)
    if options.keep_model:
        with staged_folder(folder) as staging:
            job.system.save(staging.path)
            shutil.rmtree(folder / MODEL, ignore_errors=True)
            staging.name = MODEL
    prediction_hash = write_predictions(
        folder, list(test.ids), truth, log_probabilities, card.classes
    )
    sides = {"train": split.train, "labeled": split.labeled, "validation": split.validation}
    record = basis.model_copy(
        update={
            "status": "finished",
            "task": TaskFacts(
                name=card.name,
                variant=card.variant,
                card_version=card.version,
                data=card.data,
                manifest_hash=job.manifest.hash,
                classes=card.classes,
                metric=card.metric,
                folds=card.split.folds or 1,
                clips={name: len(side) for name, side in sides.items()} | {"test": len(test)},
                skipped=len(job.manifest.info.skipped),
            ),
            "metrics": metrics.score(log_probabilities, truth),
            "predictions_sha256": prediction_hash,
            "selection": trained.summary.selection,
            "validation": trained.summary.validation,
            "validation_origin": split.validation_origin,
            "curves": trained.summary.curves,
            "diagnosis": trained.summary.diagnosis
            | _held_against(trained.summary, labels[split.train]),
            "parameters": job.system.count_parameters(),
            "macs_per_second": job.system.count_macs(),
            "stages": tuple(context.profiler.costs),
            "resumed": resumed,
            "artifacts": trained.artifacts,
            "environment": basis.environment
            | {
                "device": torch.cuda.get_device_name(device)
                if device.type == "cuda"
                else device.type,
                "precision": precision,
                "threads": str(torch.get_num_threads()),
            },
            "finished_at": _now(),
        }
    )
    write_record(folder, record)
    if listener is not None:  # after the honest figure is safe, whatever becomes of the audit
        context.on_epoch = None
        with context.stage("audit"):
            audit = _audit(job, listener, clips, labels, split, context)
        stages = tuple(context.profiler.costs)
        record = record.model_copy(update={"audit": audit, "stages": stages})
        write_record(folder, record)
    return record


class _Trained(Config):
    """What is kept of a finished training until its cell is finished too."""

    summary: TrainingSummary
    stages: tuple[StageCost, ...]
    artifacts: tuple[ArtifactUse, ...]


def _trained(system: System, data: TrainingData, context: RunContext) -> _Trained:
    """Train, or take up a model whose training an earlier, killed run had finished."""
    model, path = context.work / MODEL, context.work / "trained.json"
    if path.is_file():
        system.load(model, context)
        trained = _Trained.model_validate_json(path.read_text(encoding="utf-8"))
        context.profiler.costs += trained.stages
        return trained
    before = len(context.profiler.costs)
    with context.stage("train"):
        summary = system.train(data, context)
    model.mkdir(exist_ok=True)
    system.save(model)
    trained = _Trained(
        summary=summary,
        stages=tuple(context.profiler.costs[before:]),
        artifacts=tuple(
            ArtifactUse(
                kind=each.kind,
                hash=each.hash,
                sha256=each.made.sha256,
                seconds=each.made.seconds,
                found=not each.computed,
                waited=each.waited,
            )
            for each in context.artifacts
        ),
    )
    write_text(path, trained.model_dump_json())
    return trained


def _scored(system: System, clips: Clips, context: RunContext) -> NDArray[np.float32]:
    """Score clips and hold the system to its promise."""
    scores = system.score(clips, context)
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
    job: Job,
    listener: EpochsOnTest,
    clips: Clips,
    labels: NDArray[np.int64],
    split: Split,
    context: RunContext,
) -> dict[str, dict[str, float]]:
    """Score the shortcuts; the last one trains again, on a random split of the same sizes."""
    found = {}
    best = listener.best()
    if best is not None:
        found["best_epoch_on_test"] = best
    crops = one_random_crop(listener.test, job.card.window_seconds, context.seeds)
    found["one_random_crop"] = metrics.score(_scored(job.system, crops, context), listener.labels)
    names = job.manifest.clips["label"].to_numpy(object)
    dealt = random_like(split, names, context.seeds.numpy("random split"))
    again = type(job.system)(job.system.settings, job.system.target, job.system.protocol)
    work = context.work / "random-split"
    work.mkdir(exist_ok=True)
    aside = replace(context, work=work, profiler=StageProfiler(context.device), artifacts=[])
    _trained(again, _training_data(clips, labels, dealt), aside)
    scores = _scored(again, clips.select(dealt.test), aside)
    found["random_split"] = metrics.score(scores, labels[dealt.test])
    return found


def _held_against(summary: TrainingSummary, labels: NDArray[np.int64]) -> dict[str, float]:
    """Compare the clusters of train clips with their true labels, which the system has not seen."""
    if summary.clusters is None:
        return {}
    return cluster_agreement.describe(np.array(summary.clusters), labels)


def _labels(manifest: Manifest, card: TaskCard) -> NDArray[np.int64]:
    number = {label: index for index, label in enumerate(card.classes)}
    return np.array([number[label] for label in manifest.clips["label"]], np.int64)


def _training_data(clips: Clips, labels: NDArray[np.int64], split: Split) -> TrainingData:
    def side(indices: NDArray[np.int64]) -> LabeledClips:
        return LabeledClips(clips.select(indices), torch.from_numpy(labels[indices]))

    labeled = side(split.labeled)
    same = len(split.labeled) == len(split.train)
    return TrainingData(
        train=labeled.clips if same else clips.select(split.train),
        labeled=labeled,
        validation=side(split.validation) if len(split.validation) else None,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
