"""hear:MODULE[@WEIGHTS]: a module that follows the HEAR 2021 API (hearbenchmark.com/hear-api.html), frozen or fine-tuned.

MODULE is imported by Python, from installed packages or from the current folder. WEIGHTS is a file or folder that is passed to
its `load_model`; without it, `load_model` is called without an argument. The model has the attributes `sample_rate` and
`scene_embedding_size`, and `get_scene_embeddings` embeds windows of shape (sounds, samples) within [-1, 1].

A model can be fine-tuned if it is a `torch.nn.Module` and gradients flow back from its embeddings. Other models, such as those
that detach embeddings or return NumPy arrays, are frozen. If a module switches its model to evaluation mode by itself, there is
no dropout in fine-tuning. A model that is not an `nn.Module` computes in the precision and on the device that it was written
for, and the numbers of its parameters and multiply-accumulates are unknown. TensorFlow is not supported. The API has no mask: a clip
that is shorter than a window is zero-padded, and the module cannot tell the padding from silence.

A record holds the SHA-256 of the module's files, of the files that they import from their own folder, of named weights, and of
the tensors of an `nn.Module`. Files that another model reads by itself are not recorded.
"""

import copy
import importlib
import inspect
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from lape_bench.core.errors import FAILURES, UserError, summarize_error
from lape_bench.learning.encoders.base import (
    Encoder,
    check_embeddings,
    check_sample_rate,
    is_positive_integer,
)
from lape_bench.learning.systems.adapter import (
    AdaptedEncoder,
    Adapter,
    code_checksum,
    path_checksum,
)
from lape_bench.learning.systems.encoder_system import EncoderConfig, ProbeConfig
from lape_bench.learning.training.cached_embeddings import state_checksum
from lape_bench.learning.training.finetune import FinetuneConfig

FUNCTIONS = ("load_model", "get_scene_embeddings")
ATTRIBUTES = ("sample_rate", "scene_embedding_size")

_returned: WeakValueDictionary[int, nn.Module] = WeakValueDictionary()
"""Models that `load_model` has returned and that still exist, by `id`."""


class HearConfig(EncoderConfig):
    """Settings of a HEAR module.

    The learning rate suits pre-trained encoders of unknown kinds. There is no random gain by default, because audio beyond
    [-1, 1] would be clipped.
    """

    finetune: FinetuneConfig = Field(
        default_factory=lambda: FinetuneConfig(learning_rates=(1e-4,), gain_db=0.0)
    )


class ModuleReference(NamedTuple):
    """The parts of an argument.

    Attributes:
        module: name of the module.
        weights: file or folder for `load_model`; None if the module has its own.
    """

    module: str
    weights: Path | None

    @classmethod
    def parse(cls, argument: str) -> "ModuleReference":
        """Read MODULE[@WEIGHTS]."""
        module, at, weights = argument.partition("@")
        if at and not weights:
            raise UserError(
                f"hear:{argument} has no weights after '@'",
                next_step=f"add a path, or write hear:{module}",
            )
        if not all(part.isidentifier() for part in module.split(".")):
            raise UserError(
                f"'{module}' in hear:{argument} is not the name of a module",
                allowed="hear:MODULE or hear:MODULE@WEIGHTS, with the module as Python imports it, such as my.module",
            )
        path = Path(weights).expanduser().absolute() if weights else None
        if path is not None and not path.exists():
            raise UserError(
                f"the weights {path} do not exist", next_step="check the path for a typing mistake"
            )
        return cls(module, path)


class ModuleFacts(NamedTuple):
    """Facts about a model, found by loading it.

    Attributes:
        sample_rate: in Hz.
        frozen_because: the reason why it cannot be fine-tuned; empty if it can.
        tensors: SHA-256 of the tensors of an `nn.Module`; empty for other models.
    """

    sample_rate: int
    frozen_because: str
    tensors: str


class HearEncoder(AdaptedEncoder):
    """The model of a HEAR module, with the module's function that embeds windows.

    Args:
        module: a module with `get_scene_embeddings`.
        model: the model that its `load_model` returned.
        trained: whether gradients flow back through the model.
    """

    artifact_name = "hear"

    def __init__(self, module: ModuleType, model: Any, trained: bool) -> None:
        super().__init__()
        self.module, self.model, self.trained = module, model, trained
        self.sample_rate = int(model.sample_rate)
        self.embedding_size = int(model.scene_embedding_size)
        self.loaded = {}

    def features(self, waveforms: Tensor) -> Tensor:
        """Return the waveforms, clipped to the range of the API: resampling may overshoot."""
        return waveforms.clamp(-1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Embed windows, shape (batch, samples), by the module's function; return shape (batch, embedding_size)."""
        # Functions that return NumPy arrays cannot handle bf16.
        enabled = self.trained and torch.is_autocast_enabled(features.device.type)
        with torch.autocast(features.device.type, dtype=torch.bfloat16, enabled=enabled):
            output = self.module.get_scene_embeddings(features, self.model)
        embeddings = output if isinstance(output, Tensor) else torch.from_numpy(np.asarray(output))
        shape = (len(features), self.embedding_size)
        source = f"get_scene_embeddings of {self.module.__name__}"
        return check_embeddings(embeddings, shape, source, "scene_embedding_size").to(
            features.device
        )


class Hear(Adapter):
    """The model of a HEAR module."""

    Settings: ClassVar[type[ProbeConfig]] = HearConfig
    reference: ClassVar[ModuleReference]
    tensors: ClassVar[str]

    @classmethod
    def resolve_argument(cls, argument: str) -> dict[str, Any]:
        """Import the module, load its model, and find out its rate and whether it can be fine-tuned."""
        reference = ModuleReference.parse(argument)
        facts = _facts(reference, str(_trace(reference)))
        body = {
            "reference": reference,
            "sample_rate": facts.sample_rate,
            "tensors": facts.tensors,
        }
        if facts.frozen_because:
            body |= {"protocols": ("linear", "mlp", "knn"), "frozen_because": facts.frozen_because}
        return body

    def read_provenance(self) -> dict[str, str]:
        """Return the SHA-256 of the module's files, of named weights, and of the tensors of an `nn.Module`."""
        return _trace(self.reference) | ({"tensors": self.tensors} if self.tensors else {})

    def build_encoder(self) -> HearEncoder:
        """Load the model again."""
        return _load(self.reference, trained="finetune" in self.protocols)

    def computes_in_torch(self, encoder: Encoder) -> bool:
        """Return True for an `nn.Module`; another model may compute outside of torch."""
        return bool(self.tensors)


def _trace(reference: ModuleReference) -> dict[str, str]:
    provenance = {"module": f"{reference.module}, {_code(reference.module)}"}
    if reference.weights is not None:
        provenance["weights"] = path_checksum(reference.weights)
    return provenance


@cache
def _code(name: str) -> str:
    """Return the SHA-256 of a module's file, or of all files of its package, when it is imported.

    The files that they import from the same folder are listed after it.
    """
    _import(name)
    top_level = sys.modules[name.partition(".")[0]]
    folders = [Path(folder) for folder in getattr(top_level, "__path__", [])]
    file = getattr(top_level, "__file__", None)
    return code_checksum(folders or ([Path(file)] if file else [])) or "of no file"


def _import(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)  # as with `python -m`, but last, so that it hides no package
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(name, "cannot be imported", error) from error
        raise UserError(
            f"there is no module '{name}'",
            next_step="install it, or run bench in the folder that holds it",
        ) from error
    except FAILURES as error:  # a user's module may raise anything
        raise _failed(name, "cannot be imported", error) from error
    lacking = [function for function in FUNCTIONS if not hasattr(module, function)]
    if lacking:
        raise UserError(
            f"the module '{name}' has no {' and no '.join(lacking)}",
            allowed="the HEAR 2021 API: load_model and get_scene_embeddings",
        )
    return module


def _load(reference: ModuleReference, trained: bool) -> HearEncoder:
    module = _import(reference.module)
    try:
        if reference.weights is not None:
            model = module.load_model(str(reference.weights))
        elif _needs_a_path(module.load_model):
            model = module.load_model("")
        else:
            model = module.load_model()
    except FAILURES as error:
        raise _failed(reference.module, "cannot load its model", error) from error
    lacking = [name for name in ATTRIBUTES if not hasattr(model, name)]
    if lacking:
        raise UserError(
            f"the model of '{reference.module}' has no {' and no '.join(lacking)}",
            allowed="sample_rate and scene_embedding_size, by the HEAR 2021 API",
        )
    for name in ATTRIBUTES:
        value = getattr(model, name)
        if not is_positive_integer(value):
            raise UserError(
                f"the model of '{reference.module}' has the {name} {value!r}",
                allowed="a whole number above 0",
            )
    check_sample_rate(int(model.sample_rate), f"the model of '{reference.module}'")
    return HearEncoder(module, _untrained(model, reference.module), trained)


def _untrained(model: Any, module: str) -> Any:
    """Return a model that no other encoder trains. If the module returns one model again and again, this is a copy.

    The first model that a module returns goes to `_facts`, which does not train it, so a copy has untrained weights.
    """
    if not isinstance(model, nn.Module):
        return model
    if _returned.get(id(model)) is not model:
        _returned[id(model)] = model
        return model
    try:
        return copy.deepcopy(model)
    except FAILURES as error:
        raise _failed(
            module, "returns the same model again, which cannot be copied", error
        ) from error


def _needs_a_path(load_model: Any) -> bool:
    parameters = inspect.signature(load_model).parameters.values()
    named = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    return any(
        parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL
        for parameter in named
    )


@cache
def _facts(reference: ModuleReference, trace: str) -> ModuleFacts:
    """Load a model and embed two seconds of noise, once while its files do not change.

    Args:
        reference: the module and its weights.
        trace: the checksums of its files, as text.
    """
    encoder = _load(reference, trained=True)
    noise = 0.1 * torch.randn(2, 2 * encoder.sample_rate)
    try:
        with torch.enable_grad():
            embeddings = encoder.eval()(encoder.features(noise))
    except UserError:
        raise
    except FAILURES as error:
        raise _failed(reference.module, "cannot embed noise", error) from error
    frozen_because = ""
    if not isinstance(encoder.model, nn.Module):
        frozen_because = "its load_model does not return a torch.nn.Module"
    elif not embeddings.requires_grad:
        frozen_because = "no gradient flows back from its embeddings"
    tensors = state_checksum(encoder.model) if isinstance(encoder.model, nn.Module) else ""
    return ModuleFacts(encoder.sample_rate, frozen_because, tensors)


def _failed(module: str, problem: str, error: BaseException) -> UserError:
    return UserError(
        f"the module '{module}' {problem} ({summarize_error(error)})", next_step="fix the module"
    )
