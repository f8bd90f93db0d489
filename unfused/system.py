"""UnFuSeD: a teacher's clusters of the train audio become the pseudo-labels of a new student (arXiv:2303.05668).

1. A teacher is an encoder: one that is pre-trained here, as in the paper, or one that was trained elsewhere.
2. Its embeddings of the train audio are clustered; the clusters are the pseudo-labels.
3. A student with random weights learns the pseudo-labels by self-distillation.
4. The student's heads are dropped, and its encoder is fine-tuned or probed with the labels.

Stages 1 to 3 use the audio of the whole train split and no label. The teacher gets that audio at its own sample rate, in the
task's windows, and only its embeddings are used, so that it need not be a PyTorch module. For example,

    bench run --system unfused --set teacher=examples/speech_embedding.py:SpeechEmbedding --task fsdd-digits

distills a published encoder of speech into AudioNTT. With `teacher=unfused` a student becomes the teacher of a second round.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lape_bench.core.config import merge
from lape_bench.core.errors import UserError
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.systems.encoder_system import (
    DOWNSTREAM,
    EncoderSystem,
    PretrainedEncoder,
    ProbeConfig,
    largest_count,
)
from lape_bench.learning.systems.plain_encoder import load_encoder_system
from lape_bench.learning.systems.spectrogram_system import SpectrogramSystem
from lape_bench.learning.training.cached_embeddings import state_checksum, tensors_checksum
from lape_bench.learning.training.cached_normalization import cached_normalization
from lape_bench.learning.training.checkpoints import load_strictly, load_tensors, save_tensors
from lape_bench.learning.training.inference import average_by_clip, fit_normalization
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.runtime.artifacts import Artifact
from lape_bench.system import Cell, ProtocolName, RunContext, TargetTask, TrainingSummary

from . import distill as stage_3
from .architecture import architecture_difference
from .config import AUDIO_NTT, UnfusedConfig, load_student
from .distill import PAPER, DistillConfig
from .pseudo_labels import PseudoLabelConfig, pseudo_labels
from .student import Student

logger = logging.getLogger(__name__)

PSEUDO_LABELS, STUDENT = "pseudo_labels.pt", "student.pt"
# Chosen on validation; see results/boards/stronger.md.
CENTERED = {"clusters": 32, "components": 32, "center_groups": True}


def _smoke_settings(kind: type[EncoderSystem]) -> dict[str, Any]:
    smoke = kind.with_smoke_settings({})
    return {name: value for name, value in smoke.items() if name not in DOWNSTREAM}


class Unfused(SpectrogramSystem):
    """A student with random weights, taught by a teacher's clusters.

    Attributes:
        teacher: the system of the teacher, untrained.
        student: the system of the student, untrained.
    """

    version = 4  # 3 normalized log-mels with the statistics of whole, unpadded clips
    Settings: ClassVar[type[ProbeConfig]] = UnfusedConfig
    smoke_settings: ClassVar[dict[str, Any]] = SpectrogramSystem.smoke_settings | {
        "clusters": 8,
        "distill": {"epochs": 1, "min_steps": 1, "batch_size": 16},
    }
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"distill": PAPER},
        "centered": CENTERED | {"distill": {"label_smoothing": 0.2}},
        "two-rounds": CENTERED | {"teacher": "unfused", "teacher_settings": CENTERED},
    }

    def __init__(self, settings: Any, target: TargetTask, protocol: ProtocolName) -> None:
        super().__init__(settings, target, protocol)
        kind = load_encoder_system(settings.teacher)
        if settings.downstream_encoder == "teacher":
            teacher_protocol = protocol
        else:  # only its embeddings are used
            teacher_protocol = "finetune" if "finetune" in kind.protocols else kind.protocols[0]
        teacher_settings = kind.Settings.model_validate(settings.teacher_settings)
        self.teacher = kind(teacher_settings, target, teacher_protocol)
        kind = load_student(settings.student)
        given = (
            {"width": settings.student_width}
            if settings.student == AUDIO_NTT
            else settings.student_settings
        )
        self.student = kind(kind.Settings.model_validate(given), target, "finetune")
        self._require_downstream_encoder_fits()
        if settings.student_start == "teacher":
            self._require_same_architecture()

    @property
    def downstream(self) -> EncoderSystem:
        """The system whose encoder is fine-tuned or probed with the labels."""
        return self.student if self.settings.downstream_encoder == "student" else self.teacher

    def _require_downstream_encoder_fits(self) -> None:
        """Refuse an encoder for stage 4 that works at another sample rate, or cannot be used by the protocol."""
        role, system = self.settings.downstream_encoder, self.downstream
        name = getattr(self.settings, role)
        if system.sample_rate != self.sample_rate:
            raise UserError(
                f"the {role} {name} has a sample rate of {system.sample_rate:,} Hz, but unfused fine-tunes and probes at "
                f"{self.sample_rate:,} Hz",
                allowed=f"a teacher of any rate, and a downstream encoder of {self.sample_rate:,} Hz",
                next_step=f"run it by itself: --system {name}",
            )
        if self.protocol not in system.protocols:
            because = f" ({system.frozen_because})" if system.frozen_because else ""
            raise UserError(
                f"downstream_encoder is {role}, and {name} has no protocol '{self.protocol}'{because}",
                allowed=f"it has {', '.join(system.protocols)}",
            )

    def _require_same_architecture(self) -> None:
        """Refuse a student that cannot start from its teacher's weights."""
        settings = self.settings
        if difference := architecture_difference(self.student, self.teacher):
            raise UserError(
                f"student_start is teacher, and the student {settings.student} cannot start from the weights of the teacher "
                f"{settings.teacher}: {difference}",
                next_step="make student and teacher the same encoder, such as --set student_width=WIDTH or --set student=NAME, "
                "or let the student start from random",
            )

    @classmethod
    def with_smoke_settings(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings on top of smoke settings, which include those of teacher and student."""
        teacher = given.get("teacher", cls.Settings.model_fields["teacher"].default)
        student = given.get("student", AUDIO_NTT)
        of_student = (
            {"student_width": 128}
            if student == AUDIO_NTT
            else {"student_settings": _smoke_settings(load_student(student))}
        )
        of_teacher = {"teacher_settings": _smoke_settings(load_encoder_system(teacher))}
        return merge({**cls.smoke_settings, **of_teacher, **of_student}, given)

    @property
    def system_versions(self) -> dict[str, int]:
        """Return the versions of the teacher's system, of the systems it is built on, and of a student other than AudioNTT."""
        versions = {self.settings.teacher: self.teacher.version} | self.teacher.system_versions
        if self.settings.student != AUDIO_NTT:
            versions[self.settings.student] = self.student.version
        return versions

    @property
    def provenance(self) -> dict[str, str]:
        """Return the provenance of teacher and student, such as the SHA-256 of weights or of a plug-in's file."""
        roles = {"teacher": self.teacher}
        if self.settings.student != AUDIO_NTT:
            roles["student"] = self.student
        return {
            f"{role} {name}": value
            for role, system in roles.items()
            for name, value in (
                SYSTEMS.provenance(getattr(self.settings, role)) | system.provenance
            ).items()
        }

    @property
    def corpus(self) -> tuple[str, ...]:
        """Return the corpus entries that the teacher is pre-trained on; empty if it is not pre-trained here."""
        return self.teacher.corpus

    @property
    def further_rates(self) -> tuple[int, ...]:
        """Return the sample rates in Hz of the teacher, and of its own teacher, that differ from this system's."""
        rates = {self.teacher.sample_rate, *self.teacher.further_rates} - {self.sample_rate}
        return tuple(sorted(rates))

    def shared_artifacts(self, cell: Cell, train: Callable[[], str]) -> tuple[Any, ...]:
        """Return the keys of the teacher and, unless stages 2 and 3 are skipped, of the student."""
        keys = self.teacher.shared_artifacts(cell, train)
        if self.settings.downstream_encoder == "student":
            settings = self.settings.model_dump(mode="json", exclude=DOWNSTREAM)
            keys = (*keys, {"student": settings, "train": train(), "seed": cell.seed})
        return (*super().shared_artifacts(cell, train), *keys)

    def build_encoder(self) -> Encoder:
        """Return a new encoder of the architecture that stage 4 uses: the student's or the teacher's."""
        return self.downstream.build_encoder()

    def build_views(self, shape: tuple[int, ...], clips: int) -> nn.Module | None:
        """Return the augmentation of the downstream encoder's own system, or None if `finetune.augment` is false."""
        return self.downstream.build_views(shape, clips) if self.settings.finetune.augment else None

    def computes_in_torch(self, encoder: Encoder) -> bool:
        """Return what the downstream encoder's own system does."""
        return self.downstream.computes_in_torch(encoder)

    def count_encoder_parameters(self, encoder: Encoder) -> int | None:
        """Count the parameters of the downstream encoder, as its own system does."""
        return self.downstream.count_encoder_parameters(encoder)

    def prepare_encoder(self, train: Clips, context: RunContext) -> PretrainedEncoder:
        """Run stages 1 to 3, and return the student's encoder, or the teacher's if stages 2 and 3 are skipped."""
        teacher_clips = context.train_at(self.teacher.sample_rate, train)
        teacher = self.teacher.prepare_encoder(teacher_clips, context)
        self.teacher.check_sample_rate(teacher.encoder)
        if self.settings.downstream_encoder == "teacher":
            return teacher
        labels, origin = self._pseudo_labels(teacher.encoder, teacher_clips, context)
        student, training = self._student(teacher.encoder, labels, origin, train, context)
        cached_normalization(student.encoder, train, self.target.window_seconds, context)
        sizes = torch.bincount(labels, minlength=self.settings.clusters)
        n_teacher = self.teacher.count_encoder_parameters(teacher.encoder)
        n_student = sum(parameter.numel() for parameter in student.parameters())
        # If the teacher is itself a student, its curves have the same stage.
        curves = {
            f"{stage} of the teacher" if stage == stage_3.STAGE else stage: curve
            for stage, curve in teacher.summary.curves.items()
        }
        summary = TrainingSummary(
            curves=curves | {stage_3.STAGE: tuple(training["curve"])},
            clusters=tuple(labels.tolist()),
            diagnosis={
                **{f"teacher_{name}": value for name, value in teacher.summary.diagnosis.items()},
                "cluster_sizes": tuple(sorted(sizes.tolist(), reverse=True)),
                "student_agreement": training["agreement"],
                # The parameters of some teachers are unknown, such as those of an ONNX file.
                **({} if n_teacher is None else {"teacher_parameters": float(n_teacher)}),
            },
        )
        n_parameters = largest_count(teacher.n_parameters, n_teacher, n_student)
        return PretrainedEncoder(student.encoder, summary, n_parameters)

    def _pseudo_labels(
        self, teacher: Encoder, train: Clips, context: RunContext
    ) -> tuple[Tensor, Artifact]:
        """Stage 2: return the cluster of each train clip, shape (clips,), and its artifact.

        Args:
            teacher: an encoder of the teacher's system.
            train: the train clips at the teacher's sample rate.
            context: the context of the run.
        """
        config: PseudoLabelConfig = self.settings
        given = context.train_groups
        groups = None if given is None else given.numpy()
        # In float32: whitening would scale the rounding errors of bf16 up to unit variance.
        float32 = replace(context, precision="float32")
        with context.stage("embeddings"):
            embeddings, owner = self.teacher.embed_windows(teacher, train, float32)

        def compute(folder: Path, inside: RunContext) -> None:
            with inside.stage("pseudo-labels"):
                by_clip = average_by_clip(embeddings, owner, len(train)).numpy()
                clusters = pseudo_labels(by_clip, groups, config, inside.seeds.numpy("clusters"))
            save_tensors(folder / PSEUDO_LABELS, {"clusters": torch.from_numpy(clusters)})

        artifact = context.artifact(
            "pseudo-labels",
            f"{config.clusters} clusters of {len(train):,} clips, seed {context.seeds.seed}",
            {
                "embeddings": tensors_checksum({"embeddings": embeddings, "owner": owner}),
                "clips": train.key,
                "groups": tensors_checksum({"groups": given}) if config.center_groups else None,
                "settings": config.model_dump(include=set(PseudoLabelConfig.model_fields)),
                "numpy": version("numpy"),
                "scikit-learn": version("scikit-learn"),
                "system_version": self.version,
                "seed": context.seeds.seed,
            },
            compute,
        )
        content = load_tensors(artifact.folder / PSEUDO_LABELS, torch.device("cpu"))
        labels: Tensor = content["clusters"]
        return labels, artifact

    def _student(
        self,
        teacher: Encoder,
        labels: Tensor,
        origin: Artifact,
        train: Clips,
        context: RunContext,
    ) -> tuple[Student, dict[str, Any]]:
        """Stage 3: return the student, and a mapping with its learning curve and agreement with the pseudo-labels."""
        settings = self.settings
        from_teacher = settings.student_start == "teacher"
        seeds = context.seeds.within(stage_3.STAGE)
        student = self._new_student(seeds)
        artifact = context.artifact(
            "student",
            f"{settings.student}, d = {student.encoder.embedding_size}, {settings.clusters} clusters, "
            f"seed {context.seeds.seed}",
            {
                "pseudo_labels": origin.metadata.sha256,
                "teacher": state_checksum(teacher) if from_teacher else None,
                "clips": train.key,
                "student": settings.student,
                "student_identity": self.student.encoder_identity,
                "settings": settings.distill.model_dump(mode="json"),
                "system_version": self.version,
                "seed": context.seeds.seed,
            },
            lambda folder, inside: self._train_student(
                folder, teacher, labels, train, replace(inside, seeds=seeds)
            ),
        )
        content = load_tensors(artifact.folder / STUDENT, context.device)
        student = student.to(context.device)
        load_strictly(student, content["student"], f"the student in {artifact.folder}")
        return student, content

    def _new_student(self, seeds: Seeds) -> Student:
        """Return a new student. Its encoder has random weights, unless its system loads weights."""
        settings = self.settings
        with seeds.globally("initial weights"):
            encoder = self.student.build_encoder()
            self.student.check_sample_rate(encoder)
            return Student(encoder, settings.clusters, settings.distill.shallow_heads)

    def _train_student(
        self,
        folder: Path,
        teacher: Encoder,
        labels: Tensor,
        train: Clips,
        context: RunContext,
    ) -> None:
        """Distill a new student, and write it to the folder with its learning curve and agreement."""
        config: DistillConfig = self.settings.distill
        with context.stage(stage_3.STAGE):
            student = self._new_student(context.seeds).to(context.device)
            encoder = student.encoder
            if config.shallow_heads and not len(student.shallow):
                logger.info(
                    f"the student {self.settings.student} returns no block outputs, so it learns without shallow heads"
                )
            if self.settings.student_start == "teacher":
                encoder.load_state_dict(teacher.state_dict())
            else:
                fit_normalization(encoder, train, config.window_seconds, context)
            views = self.student.build_views(
                encoder.feature_shape(config.window_seconds), len(train)
            )
            if views is not None:
                views = views.to(context.device)
            curve = stage_3.distill(student, views, train, labels, config, context)
            agreement = stage_3.agreement(student, train, labels, config.window_seconds, context)
        content = {"student": student.state_dict(), "curve": list(curve), "agreement": agreement}
        save_tensors(folder / STUDENT, content)
