"""Settings of UnFuSeD, with those of its teacher and its student."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lape_bench.core.config import merge, validate
from lape_bench.core.errors import UserError
from lape_bench.learning.systems.audio_ntt_system import AudioNTTSystem
from lape_bench.learning.systems.encoder_system import DOWNSTREAM, EncoderSystem
from lape_bench.learning.systems.plain_encoder import load_encoder_system
from lape_bench.learning.systems.pretrained_system import UpstreamSystem
from lape_bench.learning.systems.spectrogram_system import (
    SpectrogramConfig,
    SpectrogramFinetuneConfig,
)
from lape_bench.learning.training.finetune import FinetuneConfig

from .distill import DistillConfig
from .pseudo_labels import PseudoLabelConfig

AUDIO_NTT = "audio-ntt"  # the student of the paper


class UnfusedConfig(PseudoLabelConfig, SpectrogramConfig):
    """The four stages."""

    teacher: str = Field(
        "delores-m",
        description="stage 1: a system with an encoder (an upstream is pre-trained first), checkpoint:FILE, hf:NAME, "
        "torchaudio:BUNDLE, hear:MODULE, or file.py:Class",
    )
    teacher_settings: dict[str, Any] = Field(
        default_factory=dict, description="settings of the teacher that differ from its defaults"
    )
    student: str = Field(
        AUDIO_NTT,
        description="audio-ntt, or a system whose encoder can be trained: mast, a plug-in, file.py:Class",
    )
    student_settings: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of the student that differ from its defaults, if it is not audio-ntt",
    )
    student_width: int = Field(
        2048, ge=8, description="d, the embedding size of the student, if it is audio-ntt"
    )
    student_start: Literal["random", "teacher"] = Field(
        "random",
        description="the student's weights before stage 3: those it is built with, or those of a teacher of the same architecture",
    )
    downstream_encoder: Literal["student", "teacher"] = Field(
        "student",
        description="the encoder that is fine-tuned or probed with the labels; teacher skips stages 2 and 3",
    )
    distill: DistillConfig = Field(default_factory=DistillConfig)

    @model_validator(mode="before")
    @classmethod
    def _fill_in_defaults(cls, values: Any) -> Any:
        """Fill in the defaults of teacher and student, so that a record holds every setting.

        The defaults of `finetune` are those of the encoder that is fine-tuned.
        """
        if not isinstance(values, Mapping):
            return values
        teacher = values.get("teacher", cls.model_fields["teacher"].default)
        student = values.get("student", AUDIO_NTT)
        filled = dict(values)
        if isinstance(teacher, str):  # other types are refused by the field
            filled |= _resolved("teacher_settings", load_encoder_system(teacher), teacher, values)
        if isinstance(student, str) and student != AUDIO_NTT:
            filled |= _resolved("student_settings", load_student(student), student, values)
        if values.get("downstream_encoder") == "teacher" and isinstance(teacher, str):
            filled |= _finetune_of(load_encoder_system(teacher), values)
        elif isinstance(student, str):
            filled |= _finetune_of(load_student(student), values)
        return filled

    @model_validator(mode="after")
    def _sizes_are_those_of_the_student(self) -> Self:
        if self.student == AUDIO_NTT and self.student_settings:
            raise ValueError(f"student_settings do not apply to {AUDIO_NTT}: set student_width")
        if (
            self.student != AUDIO_NTT
            and self.student_width != type(self).model_fields["student_width"].default
        ):
            raise ValueError(
                f"student_width applies only to {AUDIO_NTT}, and the student is {self.student}: set student_settings"
            )
        return self


def _resolved(
    field: str, kind: type[EncoderSystem], name: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of teacher or student with all defaults, under the name of their field."""
    given = values.get(field, {})
    if not isinstance(given, Mapping):
        return {}  # refused by the field's own type
    stray = sorted(DOWNSTREAM & set(given))
    if stray:
        raise ValueError(
            f"{field}.{stray[0]} would do nothing: stages 1 to 3 see no label. Set {stray[0]} itself"
        )
    settings = validate(given, kind.Settings, where=f"{field} of {name}")
    return {field: settings.model_dump(mode="json", exclude=DOWNSTREAM)}


def _finetune_of(kind: type[EncoderSystem], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of fine-tuning, with the defaults of the system whose encoder is fine-tuned."""
    given, field = values.get("finetune", {}), kind.Settings.model_fields.get("finetune")
    default = field.get_default(call_default_factory=True) if field else None
    if not isinstance(given, Mapping) or not isinstance(default, FinetuneConfig):
        return {}  # settings that are already complete, or an encoder that is only probed
    known = set(SpectrogramFinetuneConfig.model_fields)
    return {"finetune": merge(default.model_dump(include=known), given)}


def load_student(name: str) -> type[EncoderSystem]:
    """Import the system whose encoder becomes the student.

    Raises:
        UserError: the system is unknown, its encoder cannot be trained, or it pre-trains its encoder itself.
    """
    if name == AUDIO_NTT:
        return AudioNTTSystem
    kind = load_encoder_system(name)
    if "finetune" not in kind.protocols:
        because = f" ({kind.frozen_because})" if kind.frozen_because else ""
        raise UserError(
            f"the encoder of {name} cannot be trained{because}, so it cannot be a student",
            next_step=f"name it as the teacher, or take student={AUDIO_NTT}",
        )
    if issubclass(kind, UpstreamSystem) or issubclass(kind.Settings, UnfusedConfig):
        raise UserError(
            f"{name} pre-trains its encoder itself, but a student is trained on the teacher's clusters",
            allowed=f"{AUDIO_NTT}, mast, or another system whose encoder is not pre-trained first",
        )
    return kind
