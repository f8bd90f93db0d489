"""Whether a student can start from its teacher's weights: the two must be the same encoder on the same features."""

from typing import Any

from torch import Tensor

from lape_bench.core.seeding import Seeds
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.encoders.log_mel import LogMelEncoder
from lape_bench.learning.systems.encoder_system import DOWNSTREAM, EncoderSystem
from lape_bench.runtime.artifacts import stable_name


def architecture_difference(student: EncoderSystem, teacher: EncoderSystem) -> str | None:
    """Return why an encoder cannot take another's weights, or would compute something else with them; None if it can.

    Args:
        student: the system of the encoder that starts from weights.
        teacher: the system of the encoder whose weights they are.
    """
    ours, theirs = student.settings, teacher.settings
    names = type(ours).model_fields.keys() & type(theirs).model_fields.keys() - DOWNSTREAM
    for name in sorted(names):
        if getattr(ours, name) != getattr(theirs, name):
            return (
                f"its {name} is {getattr(ours, name)}, and the teacher's is {getattr(theirs, name)}"
            )
    with Seeds(0, "unfused").globally("architecture"):  # only to compare
        return _encoder_difference(student.build_encoder(), teacher.build_encoder())


def _encoder_difference(student: Encoder, teacher: Encoder) -> str | None:
    """Return the first difference of two encoders in class, tensors or front end."""
    same_kind = isinstance(teacher, type(student)) or isinstance(student, type(teacher))
    if not same_kind and stable_name(type(student)) != stable_name(type(teacher)):
        return f"its encoder is of class {type(student).__name__}, and the teacher's of {type(teacher).__name__}"
    shapes, teacher_shapes = _shapes(student), _shapes(teacher)
    for name in shapes | teacher_shapes:
        if shapes.get(name) != teacher_shapes.get(name):
            return f"its tensor {name} has shape {shapes.get(name)}, and the teacher's has {teacher_shapes.get(name)}"
    if (
        isinstance(student, LogMelEncoder)
        and isinstance(teacher, LogMelEncoder)
        and student.log_mel.config != teacher.log_mel.config
    ):
        return "the two have different settings of log-mels"
    return None


def _shapes(encoder: Encoder) -> dict[str, Any]:
    return {
        name: tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        for name, value in encoder.state_dict().items()
    }
