"""The simplest plug-in: an encoder with a sample rate and an embedding size that turns waveforms into embeddings.

    class MyEncoder(nn.Module):                # or any callable class; only an nn.Module can be fine-tuned
        sample_rate = 16_000                   # Hz
        embedding_size = 128

        def __init__(self, width: int = 64): ...          # keyword arguments with defaults become settings

        def forward(self, waveforms):          # (batch, samples) -> (batch, embedding_size)
            ...

The harness makes a system of it: windows, fine-tuning, probes, k-NN, saving. A class derived from `Encoder`, which has `features` of
its own, is taken as it is.

A clip that is shorter than a window is zero-padded, and such an encoder hears the zeros. One that can leave them out says
`uses_lengths = True` and is called as `forward(waveforms, lengths)`: see `lape_bench.learning.encoders.base`.

A class that reads other files, such as weights that a package brings along, names them in `files`, a tuple of paths: then a record
names them by their SHA-256.

The parameters of an nn.Module are counted. Those of another class, such as one that runs an ONNX file, are unknown unless it says
`n_parameters = 330_000`, on the class or on the object.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn

from lape_bench.core.errors import UserError
from lape_bench.core.paths import require_exists
from lape_bench.learning.encoders.base import (
    Encoder,
    check_embeddings,
    check_sample_rate,
    full_lengths,
    is_positive_integer,
)
from lape_bench.learning.systems.adapter import path_checksum
from lape_bench.learning.systems.constructor_settings import constructor_settings
from lape_bench.learning.systems.encoder_system import (
    PROBE_SMOKE_SETTINGS,
    EncoderConfig,
    EncoderSystem,
    ProbeConfig,
)
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.system import ProtocolName, System

EXPECTED = (
    "a class derived from lape_bench.system.System, or an encoder: a class with embedding_size (and sample_rate, if it "
    "is not 16,000 Hz) that turns waveforms (batch, samples) into embeddings (batch, embedding_size)"
)


_built: WeakValueDictionary[int, nn.Parameter] = WeakValueDictionary()
"""Parameters of encoders that were built and still exist, by `id`."""
_fingerprints: dict[int, int] = {}
"""The sum of the bytes of each of them when it was first seen."""


class _WrappedEncoder(Encoder):
    """A plug-in's encoder as an `Encoder`: its features are the waveforms themselves."""

    kind: ClassVar[type]  # the plug-in's class

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.inner = self.kind(**settings)
        if getattr(self.inner, "files", None) != getattr(self.kind, "files", None):
            raise UserError(
                f"the encoder {_name(self.kind)} sets files in an object",
                allowed="files on the class; a file or folder that a setting names counts by itself",
            )
        self.sample_rate = _sample_rate(self.inner)
        self.embedding_size = _whole(self.inner, "embedding_size")
        self.uses_lengths = _uses_lengths(self.inner)
        self.n_parameters = _stated_parameters(self.inner)

    def features(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        return waveforms

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        shape = (len(features), self.embedding_size)
        known = self.length_arguments(full_lengths(features) if lengths is None else lengths)
        embeddings = check_embeddings(self.inner(features, *known), shape, self.kind.__name__)
        return embeddings.to(features.device)  # an encoder outside of torch computes on the CPU


class _PlugInEncoderSystem(EncoderSystem):
    """The system that the harness makes of a plug-in's encoder."""

    kind: ClassVar[type]  # the plug-in's class
    wrapper: ClassVar[type[_WrappedEncoder]]

    def build_encoder(self) -> Encoder:
        settings = self._own_settings()
        is_encoder = issubclass(self.kind, Encoder)
        encoder: Encoder = self.kind(**settings) if is_encoder else self.wrapper(settings)
        _refuse_trained(encoder, self.kind)
        return encoder

    @cached_property
    def provenance(self) -> dict[str, str]:
        """Return the SHA-256 of each file and folder that the encoder's class, or a setting of it, names."""
        named = {f"setting {name}": _named(value) for name, value in self._own_settings().items()}
        named["files"] = [
            require_exists(Path(path), f"a file of {_name(self.kind)}")
            for path in _files(self.kind)
        ]
        return {
            name: "; ".join(map(path_checksum, places)) for name, places in named.items() if places
        }

    def computes_in_torch(self, encoder: Encoder) -> bool:
        """Return True for a module; another encoder may compute outside of torch."""
        return issubclass(self.kind, nn.Module)

    def count_encoder_parameters(self, encoder: Encoder) -> int | None:
        """Count the parameters of a module; of another encoder, return the number that it states, if any."""
        stated = encoder.n_parameters if isinstance(encoder, _WrappedEncoder) else None
        return super().count_encoder_parameters(encoder) if stated is None else stated

    def _own_settings(self) -> dict[str, Any]:
        own = set(type(self.settings).model_fields) - set(EncoderConfig.model_fields)
        return {name: getattr(self.settings, name) for name in sorted(own)}


def _named(value: Any) -> list[Path]:
    """Return the files and folders that a setting names, in lists and mappings too."""
    if isinstance(value, Mapping):
        value = [*value.values()]
    if isinstance(value, list | tuple):
        return [path for item in value for path in _named(item)]
    if not isinstance(value, str | Path):
        return []
    try:
        path = Path(value).expanduser()
        # The current folder, "" or ".", and its parents are not weights.
        is_place = path.is_file() or (
            path.is_dir() and not Path.cwd().is_relative_to(path.resolve())
        )
    except (
        OSError,
        RuntimeError,
        ValueError,
    ):  # a string that cannot be a path, or "~" of an unknown user
        return []
    return [path] if is_place else []


def load_system(name: str) -> type[System]:
    """Import the class of a system, or make one of an encoder.

    Args:
        name: a registered name, `KIND:ARGUMENT` for a kind of system that takes an argument, or `file.py:Class`.
    """
    return as_system(SYSTEMS.load(name, is_system, EXPECTED))


def load_encoder_system(name: str) -> type[EncoderSystem]:
    """Import the class of a system with an encoder, or make one of an encoder; see `load_system`.

    Raises:
        UserError: there is no such system, or it has no encoder.
    """
    kind = load_system(name)
    if not issubclass(kind, EncoderSystem):
        raise UserError(
            f"the system {name} has no encoder that could embed audio",
            allowed="a class derived from lape_bench.learning.systems.encoder_system.EncoderSystem, or an encoder",
        )
    return kind


def is_system(loaded: Any) -> bool:
    """Return True if a plug-in's object is a system, or an encoder that `as_system` accepts."""
    return isinstance(loaded, type) and (issubclass(loaded, System) or _is_encoder(loaded))


def _is_encoder(kind: type) -> bool:
    module = issubclass(kind, nn.Module)
    called = module or "__call__" in {name for base in kind.__mro__[:-1] for name in vars(base)}
    # An embedding size that depends on a setting is set by __init__ and is not on the class.
    return called and (module or hasattr(kind, "embedding_size") or _sets_embedding_size(kind))


def _sets_embedding_size(kind: type) -> bool:
    """Return True if objects of a class may have an embedding size, even if the class has none."""
    for base in kind.__mro__[:-1]:
        names = {*vars(base).get("__annotations__", ()), *vars(base).get("__slots__", ())}
        for member in vars(base).values():
            code = getattr(member, "__code__", None)
            names |= set(code.co_names if code else ())
        if "embedding_size" in names:
            return True
    return False


def _stated_parameters(encoder: Any) -> int | None:
    """Return the number of parameters that an encoder states, which need not be a module; None if it states none.

    Raises:
        UserError: what it states is not a number of parameters.
    """
    stated = None if isinstance(encoder, nn.Module) else getattr(encoder, "n_parameters", None)
    if stated is None:
        return None
    if isinstance(stated, int) and not isinstance(stated, bool) and stated >= 0:
        return stated
    raise UserError(
        f"n_parameters of the encoder {_name(type(encoder))} is {stated!r}",
        allowed="a whole number, 0 or above",
    )


def as_system(loaded: type) -> type[System]:
    """Return a plug-in's system, or make one of a plug-in's encoder.

    Args:
        loaded: a class that `is_system` accepts.

    Raises:
        UserError: the encoder has an argument without a default or one that cannot be a setting, or its rate, size or version
            is not a whole number, or `uses_lengths` neither True nor False.
    """
    if issubclass(loaded, System):
        return loaded
    trained = issubclass(loaded, nn.Module)
    _uses_lengths(loaded)
    _files(loaded)
    names = {"__module__": loaded.__module__, "__qualname__": loaded.__qualname__}
    wrapper = type(loaded.__name__, (_WrappedEncoder,), names | {"kind": loaded})
    protocols: tuple[ProtocolName, ...] = (
        ("finetune", "linear", "mlp", "knn") if trained else ("linear", "mlp", "knn")
    )
    body = names | {
        "kind": loaded,
        "wrapper": wrapper,
        "Settings": constructor_settings(loaded, EncoderConfig if trained else ProbeConfig),
        "protocols": protocols,
        "version": _whole(loaded, "version", 1),
        "sample_rate": _sample_rate(loaded),
        "smoke_settings": EncoderSystem.smoke_settings if trained else PROBE_SMOKE_SETTINGS,
        "__doc__": loaded.__doc__,
    }
    return type(loaded.__name__, (_PlugInEncoderSystem,), body)


def _whole(kind: Any, name: str, otherwise: int | None = None) -> int:
    """Return a whole number that is an attribute of an encoder or of its class."""
    value: Any = getattr(kind, name, otherwise)
    if not is_positive_integer(value):
        description = (
            "is a property, which no class can be asked"
            if isinstance(value, property)
            else f"is {value!r}"
        )
        raise UserError(
            f"{name} of the encoder {_name(kind)} {description if value is not None else 'is not there'}",
            allowed="a whole number above 0" + (", on the class" if isinstance(kind, type) else ""),
        )
    return int(value)


def _sample_rate(kind: Any) -> int:
    """Return the sample rate of an encoder or of its class, in Hz."""
    rate = _whole(kind, "sample_rate", Encoder.sample_rate)
    check_sample_rate(rate, f"the encoder {_name(kind)}")
    return rate


def _files(kind: type) -> tuple[str | Path, ...]:
    """Return the files that the class of an encoder names."""
    files: Any = getattr(kind, "files", ())
    files = [files] if isinstance(files, str | Path) else files  # ("weights.pt") is not a tuple
    if isinstance(files, list | tuple) and all(isinstance(path, str | Path) for path in files):
        return tuple(files)
    description = "is a property, which no class can be asked"
    raise UserError(
        f"files of the encoder {_name(kind)} {description if isinstance(files, property) else f'is {files!r}'}",
        allowed="a path or a tuple of paths, on the class",
    )


def _refuse_trained(encoder: Encoder, kind: type) -> None:
    """Refuse a new encoder with weights that were trained before, since a cell has to start like one that runs alone.

    Raises:
        UserError: the class keeps the weights, for example in a cached function, and an earlier cell has changed them.
    """
    for parameter in encoder.parameters():
        if nn.parameter.is_lazy(parameter) or parameter.is_meta:  # no weights yet
            continue
        fingerprint = int(parameter.detach().flatten().view(torch.uint8).sum())  # exact
        if _built.get(id(parameter)) is not parameter:
            _built[id(parameter)], _fingerprints[id(parameter)] = parameter, fingerprint
        elif fingerprint != _fingerprints[id(parameter)]:
            raise UserError(
                f"the encoder {_name(kind)} starts with weights that an earlier cell of this process trained",
                next_step="build the weights in __init__, or copy them there by copy.deepcopy",
            )


def _uses_lengths(kind: Any) -> bool:
    """Return what an encoder, or its class, says of lengths."""
    value = getattr(kind, "uses_lengths", Encoder.uses_lengths)
    if not isinstance(value, bool):
        raise UserError(
            f"uses_lengths of the encoder {_name(kind)} is {value!r}",
            allowed="True, if it is called with (waveforms, lengths), or False",
        )
    return value


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else type(kind).__name__
