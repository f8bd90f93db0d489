"""checkpoint:FILE: an AudioNTT trained by BYOL-A, LAPE or this project, frozen or fine-tuned.

Three layouts are known: BYOL-A's (`features.0`, `features.4`, `features.8`, `fc.0`, `fc.3`), LAPE's, which has three lists of
features (`features_1.0` ...), and our own. On the same log-mels they compute the same function. The tensors may be at
any depth, such as `state_dict` / `module.encoder_q.encoder.features.0.weight`. If a file holds several encoders, such
as a student and its momentum teacher, the setting `prefix` selects one. Every tensor of the encoder must be in the
file, and no others with its prefixes. Tensors outside of the encoder, such as those of heads, are ignored.

The width is read from the tensors, which must be those of an encoder for 64 mel bands. For the two published layouts the log-mels have librosa's
bands. LAPE computes these, and BYOL-A's code says that its published weights were trained on them. Weights that
BYOL-A's code has trained since need torchaudio's bands, `mel_scale=htk`. A file of this project holds the settings of
its front end. Log-mels are normalized with the statistics of the task's train windows, as in BYOL-A's evaluation.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from lape_bench.core.config import validate
from lape_bench.core.errors import UserError
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.log_mel import LogMelConfig
from lape_bench.learning.systems.adapter import (
    AdaptedEncoder,
    Adapter,
    LoadedConfig,
    path_checksum,
    refuse_missing,
)
from lape_bench.learning.systems.audio_ntt_system import AudioNTTSystem
from lape_bench.learning.systems.encoder_system import ProbeConfig
from lape_bench.learning.systems.spectrogram_system import SpectrogramConfig
from lape_bench.learning.training.checkpoints import load_strictly, load_tensors

# The names of our parts in each layout: a convolution and a batch norm in each block, two linear layers after them.
OURS = {
    **{f"blocks.{block}.{part}": f"blocks.{block}.{part}" for block in range(3) for part in (0, 1)},
    **{f"steps.{part}": f"steps.{part}" for part in (0, 3)},
}
_LINEAR = {"steps.0": "fc.0", "steps.3": "fc.3"}
BYOL_A = {
    f"blocks.{block}.{part}": f"features.{4 * block + part}"
    for block in range(3)
    for part in (0, 1)
} | _LINEAR
LAPE = {
    f"blocks.{block}.{part}": f"features_{block + 1}.{part}"
    for block in range(3)
    for part in (0, 1)
} | _LINEAR
LAYOUTS = (BYOL_A, LAPE, OURS)
# What the published code adds to the power before the logarithm.
EPSILON = torch.finfo(torch.float32).eps
STATISTICS = ("log_mel.mean", "log_mel.std")  # replaced by those of the task
FIRST = "blocks.0.0"  # the first convolution of every AudioNTT


class CheckpointConfig(SpectrogramConfig, LoadedConfig):
    """Settings of an AudioNTT from a file."""

    prefix: str | None = Field(
        None,
        description="the part before the names of the encoder's tensors, if the file holds several encoders",
    )
    mel_scale: Literal["slaney", "htk"] | None = Field(
        None,
        description="the mel scale that the encoder was trained with: slaney (librosa) or htk (torchaudio); by default slaney "
        "for the published layouts, and htk for ours",
    )


class CheckpointTensors(NamedTuple):
    """An encoder in a file.

    Attributes:
        prefix: the part before the names of its tensors.
        layout: the file's name of each of our parts.
        tensors: all tensors of the file, by full name.
    """

    prefix: str
    layout: Mapping[str, str]
    tensors: Mapping[str, Tensor]

    def name_in_file(self, name: str) -> str:
        """Return the name in the file, without prefix, for a name of one of our tensors."""
        part, _, last = name.rpartition(".")
        return f"{self.layout.get(part, part)}.{last}"


class CheckpointEncoder(AudioNTT, AdaptedEncoder):
    """AudioNTT with the tensors of a file.

    Args:
        checkpoint: the tensors and their layout.
        log_mel: settings of the front end that it was trained with.
        allowed: names of tensors, as in the file, that may be missing.
        where: the file, named in errors.

    Raises:
        UserError: a tensor is missing, does not fit, or belongs to another network.
    """

    artifact_name = "checkpoint"

    def __init__(
        self,
        checkpoint: CheckpointTensors,
        log_mel: LogMelConfig,
        allowed: tuple[str, ...],
        where: str,
    ) -> None:
        matrix = checkpoint.prefix + checkpoint.name_in_file("steps.0.weight")
        if matrix not in checkpoint.tensors or checkpoint.tensors[matrix].dim() != 2:
            raise UserError(f"{where} has no matrix {matrix}, which gives the encoder's width")
        super().__init__(len(checkpoint.tensors[matrix]), log_mel)
        own = self.state_dict()
        required = {name for name in own if not name.startswith("log_mel.")}
        loaded = {
            name: checkpoint.tensors[checkpoint.prefix + checkpoint.name_in_file(name)]
            for name in required | set(STATISTICS)
            if checkpoint.prefix + checkpoint.name_in_file(name) in checkpoint.tensors
        }
        missing = required - loaded.keys()
        refuse_missing(map(checkpoint.name_in_file, missing), allowed, where)
        self._refuse_left_over(checkpoint, required, where)
        load_strictly(self, own | loaded, where)
        self.loaded = {
            "encoder_tensors": float(len(required)),
            "encoder_tensors_matched": float(len(required - missing)),
            "file_tensors_not_of_encoder": float(len(checkpoint.tensors) - len(loaded)),
        }

    @staticmethod
    def _refuse_left_over(checkpoint: CheckpointTensors, required: set[str], where: str) -> None:
        """Refuse a file with further layers, since the network would lose them."""
        known = {checkpoint.prefix + checkpoint.name_in_file(name) for name in required}
        groups = {
            checkpoint.prefix + part.partition(".")[0] + "." for part in checkpoint.layout.values()
        }
        left_over = sorted(
            name
            for name in checkpoint.tensors
            if name.startswith(tuple(groups)) and name not in known
        )
        if left_over:
            raise UserError(
                f"{where} holds another network: {left_over[0]} is not a tensor of AudioNTT",
                allowed="AudioNTT of BYOL-A v1, LAPE, or this project",
            )


class Checkpoint(Adapter, AudioNTTSystem):
    """AudioNTT from a file."""

    version = 2  # version 1 computed torchaudio's log-mels for published encoders
    Settings: ClassVar[type[ProbeConfig]] = CheckpointConfig
    path: ClassVar[Path]

    @classmethod
    def resolve_argument(cls, argument: str) -> dict[str, Any]:
        """Find the file."""
        path = Path(argument).expanduser().absolute()
        if not path.is_file():
            raise UserError(
                f"there is no file {argument} for checkpoint:{argument}",
                next_step="give the path of a file that torch.save wrote",
            )
        return {"path": path}

    def read_provenance(self) -> dict[str, str]:
        """Return the SHA-256 of the file."""
        return {"weights": path_checksum(self.path)}

    def build_encoder(self) -> CheckpointEncoder:
        """Return AudioNTT with the file's tensors."""
        settings = self.settings
        content = load_tensors(self.path, torch.device("cpu"), has_checksum=False)
        checkpoint = _find(content, settings.prefix, self.path)
        log_mel = _log_mel(checkpoint, content.get("log_mel"), settings.mel_scale)
        return CheckpointEncoder(checkpoint, log_mel, settings.allow_missing, str(self.path))


def _log_mel(checkpoint: CheckpointTensors, saved: Any, mel_scale: str | None) -> LogMelConfig:
    """Return the front end that an encoder was trained with: from our file, from the layout, or from a setting."""
    if checkpoint.layout is not OURS:
        saved = {"mel_scale": "slaney", "log_offset": EPSILON}
    named = {} if mel_scale is None else {"mel_scale": mel_scale}
    known = saved if isinstance(saved, dict) else {}
    return validate(known | named, LogMelConfig, where="the log-mels of the checkpoint")


def _find(content: Mapping[str, Any], prefix: str | None, path: Path) -> CheckpointTensors:
    """Find the encoder in a file.

    Raises:
        UserError: the file holds no encoder, or several and `prefix` selects none of them.
    """
    tensors = dict(_tensors(content))
    candidates = {
        name.removesuffix(ending): layout
        for layout in LAYOUTS
        for ending in [f"{layout[FIRST]}.weight"]
        for name in tensors
        if name == ending or name.endswith(f".{ending}")
    }
    if not candidates:
        first_names = ", ".join(list(tensors)[:3]) or "none"
        raise UserError(
            f"{path} holds no AudioNTT; its first tensors are {first_names}",
            allowed="AudioNTT of BYOL-A v1, LAPE, or this project",
        )
    if prefix is None and len(candidates) == 1:
        prefix = next(iter(candidates))
    if prefix and not prefix.endswith("."):
        prefix += "."
    if prefix not in candidates:
        problem = "several encoders" if prefix is None else f"no encoder with the prefix '{prefix}'"
        raise UserError(
            f"{path} holds {problem}",
            next_step="give one of "
            + ", ".join(f"--set prefix={prefix or repr('')}" for prefix in candidates),
        )
    return CheckpointTensors(prefix, candidates[prefix], tensors)


def _tensors(content: Mapping[Any, Any], before: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested mappings, with names that are joined by dots."""
    for key, value in content.items():
        if isinstance(value, Tensor):
            yield f"{before}{key}", value
        elif isinstance(value, Mapping):
            yield from _tensors(value, f"{before}{key}.")
