"""UnFuSeD: a teacher's clusters of the train audio become the pseudo-labels of a new student (arXiv:2303.05668).

1. A teacher, any upstream system, is pre-trained.
2. Its embeddings of the train audio are clustered; the clusters are the pseudo-labels.
3. A student with random weights learns the pseudo-labels by self-distillation.
4. The student's heads are dropped, and its encoder is fine-tuned or probed with the labels.

Stages 1 to 3 use the audio of the whole train split and no label.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lape_bench.core.config import merge, validate
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.systems.audio_ntt_system import AudioNTTUpstream
from lape_bench.learning.systems.encoder_system import DOWNSTREAM, PretrainedEncoder, ProbeConfig
from lape_bench.learning.systems.pretrained_system import PretrainedUpstream, load_upstream
from lape_bench.learning.systems.spectrogram_system import SpectrogramConfig, SpectrogramSystem
from lape_bench.learning.training.cached_embeddings import cached_embeddings
from lape_bench.learning.training.checkpoints import load_strictly, load_tensors, save_tensors
from lape_bench.learning.training.inference import average_by_clip, fit_normalization
from lape_bench.learning.training.pretrain import STAGE as PRETRAINING
from lape_bench.runtime.artifacts import Artifact
from lape_bench.system import Cell, RunContext, TrainingSummary

from . import distill as stage_3
from .distill import DistillConfig
from .pseudo_labels import PseudoLabelConfig, pseudo_labels
from .student import Student

PSEUDO_LABELS, STUDENT = "pseudo_labels.pt", "student.pt"


class UnfusedConfig(PseudoLabelConfig, SpectrogramConfig):
    """The four stages."""

    teacher: str = Field("delores-m", description="stage 1: an upstream system")
    teacher_settings: dict[str, Any] = Field(
        default_factory=dict, description="what differs from that system's defaults"
    )
    student_width: int = Field(2048, ge=8, description="d of the student's AudioNTT")
    student_start: Literal["random", "teacher"] = Field(
        "random", description="the student's weights before stage 3"
    )
    downstream_encoder: Literal["student", "teacher"] = Field(
        "student",
        description="the encoder that is fine-tuned or probed with the labels; teacher skips stages 2 and 3",
    )
    distill: DistillConfig = Field(default_factory=DistillConfig)

    @model_validator(mode="before")
    @classmethod
    def _resolve_teacher(cls, values: Any) -> Any:
        """Fill in the teacher's defaults, so that a record holds every setting."""
        if not isinstance(values, Mapping):
            return values
        name = values.get("teacher", cls.model_fields["teacher"].default)
        given = values.get("teacher_settings", {})
        if not isinstance(name, str) or not isinstance(given, Mapping):
            return values  # refused by the fields' own types
        kind = load_upstream(name)
        stray = sorted(DOWNSTREAM & set(given))
        if stray:
            raise ValueError(
                f"teacher_settings.{stray[0]} would do nothing: the teacher sees no label. Set {stray[0]} itself"
            )
        settings = validate(given, kind.Settings, where=f"teacher_settings of {name}")
        resolved = settings.model_dump(mode="json", exclude=DOWNSTREAM)
        return {**values, "teacher_settings": resolved}

    @model_validator(mode="after")
    def _a_copy_fits(self) -> Self:
        if self.student_start != "teacher":
            return self
        if not issubclass(load_upstream(self.teacher), AudioNTTUpstream):
            raise ValueError(
                f"student_start is teacher, and the student is an AudioNTT, which {self.teacher} is not: "
                "let it start from random"
            )
        width = self.teacher_settings["width"]
        if width != self.student_width:
            raise ValueError(
                f"student_start is teacher, whose width is {width}, and student_width is {self.student_width}: "
                "make them equal"
            )
        return self


class Unfused(SpectrogramSystem):
    """A student with random weights, taught by a teacher's clusters."""

    version = 4  # 3 normalized log-mels with the statistics of whole, unpadded clips
    Settings: ClassVar[type[ProbeConfig]] = UnfusedConfig
    smoke_settings: ClassVar[dict[str, Any]] = SpectrogramSystem.smoke_settings | {
        "student_width": 128,
        "clusters": 8,
        "distill": {"epochs": 1, "min_steps": 1, "batch_size": 16},
    }

    @classmethod
    def with_smoke_settings(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings on top of smoke settings, which include those of the teacher's system."""
        name = given.get("teacher", cls.Settings.model_fields["teacher"].default)
        teacher = {
            k: v for k, v in load_upstream(name).smoke_settings.items() if k not in DOWNSTREAM
        }
        return merge({**cls.smoke_settings, "teacher_settings": teacher}, given)

    @property
    def system_versions(self) -> dict[str, int]:
        """Return the version of the teacher's system."""
        return {self.settings.teacher: load_upstream(self.settings.teacher).version}

    @property
    def provenance(self) -> dict[str, str]:
        """Return the checksums of the teacher's code if it is a plug-in of a single file."""
        code = load_upstream(self.settings.teacher).plugin_code()
        return {"teacher": "; ".join(code)} if code else {}

    @property
    def corpus(self) -> tuple[str, ...]:
        """Return the entries of the audio that the teacher is pre-trained on."""
        return tuple(self.settings.teacher_settings["corpus"])

    def shared_artifacts(self, cell: Cell, train: Callable[[], str]) -> tuple[Any, ...]:
        """Return the keys of the teacher and, unless stages 2 and 3 are skipped, of the student."""
        kind = load_upstream(self.settings.teacher)
        teacher = kind.planned_artifact_key(
            kind.Settings.model_validate(self.settings.teacher_settings), cell, train
        )
        settings = self.settings.model_dump(mode="json", exclude=DOWNSTREAM)
        student = {"student": settings, "teacher": teacher, "train": train(), "seed": cell.seed}
        keys = (teacher,) if self.settings.downstream_encoder == "teacher" else (teacher, student)
        return (*super().shared_artifacts(cell, train), *keys)

    def build_encoder(self) -> Encoder:
        """Return a new encoder of the architecture that stage 4 uses: the student's or the teacher's."""
        settings = self.settings
        if settings.downstream_encoder == "student":
            return AudioNTT(settings.student_width)
        kind = load_upstream(settings.teacher)
        return kind.new_encoder(kind.Settings.model_validate(settings.teacher_settings))

    def prepare_encoder(self, train: Clips, context: RunContext) -> PretrainedEncoder:
        """Run stages 1 to 3."""
        kind = load_upstream(self.settings.teacher)
        teacher_settings = kind.Settings.model_validate(self.settings.teacher_settings)
        teacher = kind.load_or_pretrain(teacher_settings, train, context)
        window_seconds = self.target.window_seconds
        fit_normalization(teacher.encoder, train, window_seconds, context)
        curves = {PRETRAINING: teacher.curve}
        if self.settings.downstream_encoder == "teacher":
            return PretrainedEncoder(
                teacher.encoder, TrainingSummary(curves=curves), teacher.n_parameters
            )
        labels, origin = self._pseudo_labels(teacher, train, context)
        student, training = self._student(teacher, labels, origin, train, context)
        fit_normalization(student.encoder, train, window_seconds, context)
        sizes = torch.bincount(labels, minlength=self.settings.clusters)
        summary = TrainingSummary(
            curves=curves | {stage_3.STAGE: tuple(training["curve"])},
            clusters=tuple(labels.tolist()),
            diagnosis={
                "cluster_sizes": tuple(sorted(sizes.tolist(), reverse=True)),
                "student_agreement": training["agreement"],
            },
        )
        n_parameters = max(teacher.n_parameters, sum(p.numel() for p in student.parameters()))
        return PretrainedEncoder(student.encoder, summary, n_parameters)

    def _pseudo_labels(
        self, teacher: PretrainedUpstream, train: Clips, context: RunContext
    ) -> tuple[Tensor, Artifact]:
        """Stage 2: return the cluster of each train clip, shape (clips,), and its artifact."""
        config: PseudoLabelConfig = self.settings
        window_seconds = self.target.window_seconds
        # In float32: whitening would scale the rounding errors of bf16 up to unit variance.
        float32 = replace(context, precision="float32")
        with context.stage("embeddings"):
            embeddings, owner = cached_embeddings(
                teacher.encoder, train, window_seconds, {}, float32
            )

        def compute(folder: Path, inside: RunContext) -> None:
            with inside.stage("pseudo-labels"):
                by_clip = average_by_clip(embeddings, owner, len(train)).numpy()
                clusters = pseudo_labels(by_clip, config, inside.seeds.numpy("clusters"))
            save_tensors(folder / PSEUDO_LABELS, {"clusters": torch.from_numpy(clusters)})

        artifact = context.artifact(
            "pseudo-labels",
            f"{config.clusters} clusters of {len(train):,} clips, seed {context.seeds.seed}",
            {
                "teacher": teacher.artifact.metadata.sha256,
                "clips": train.key,
                "window_seconds": window_seconds,
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
        teacher: PretrainedUpstream,
        labels: Tensor,
        origin: Artifact,
        train: Clips,
        context: RunContext,
    ) -> tuple[Student, dict[str, Any]]:
        """Stage 3: return the student, and a mapping with its learning curve and agreement with the pseudo-labels."""
        settings = self.settings
        from_teacher = settings.student_start == "teacher"
        seeds = context.seeds.within(stage_3.STAGE)
        artifact = context.artifact(
            "student",
            f"d = {settings.student_width}, {settings.clusters} clusters, seed {context.seeds.seed}",
            {
                "pseudo_labels": origin.metadata.sha256,
                "teacher": teacher.artifact.metadata.sha256 if from_teacher else None,
                "clips": train.key,
                "student_width": settings.student_width,
                "settings": settings.distill.model_dump(mode="json"),
                "system_version": self.version,
                "seed": context.seeds.seed,
            },
            lambda folder, inside: self._train_student(
                folder, teacher, labels, train, replace(inside, seeds=seeds)
            ),
        )
        content = load_tensors(artifact.folder / STUDENT, context.device)
        student = self._new_student(seeds).to(context.device)
        load_strictly(student, content["student"], f"the student in {artifact.folder}")
        return student, content

    def _new_student(self, seeds: Seeds) -> Student:
        """Return a student with random weights."""
        settings = self.settings
        with seeds.globally("initial weights"):
            encoder = AudioNTT(settings.student_width)
            return Student(encoder, settings.clusters, settings.distill.shallow_heads)

    def _train_student(
        self,
        folder: Path,
        teacher: PretrainedUpstream,
        labels: Tensor,
        train: Clips,
        context: RunContext,
    ) -> None:
        """Distill a new student, and write it to the folder with its learning curve and agreement."""
        config: DistillConfig = self.settings.distill
        with context.stage(stage_3.STAGE):
            student = self._new_student(context.seeds).to(context.device)
            encoder = student.encoder
            if self.settings.student_start == "teacher":
                encoder.load_state_dict(teacher.encoder.state_dict())
            else:
                fit_normalization(encoder, train, config.window_seconds, context)
            n_mels, frames = encoder.feature_shape(config.window_seconds)
            views = Views((n_mels, frames), len(train)).to(context.device)
            curve = stage_3.distill(student, views, train, labels, config, context)
            agreement = stage_3.agreement(student, train, labels, config.window_seconds, context)
        content = {"student": student.state_dict(), "curve": list(curve), "agreement": agreement}
        save_tensors(folder / STUDENT, content)
