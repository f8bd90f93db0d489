"""Embeddings of clips by a frozen encoder, computed once and cached."""

import hashlib
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from numbers import Number
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.training.checkpoints import load_tensors, save_tensors
from lape_bench.learning.training.inference import embed
from lape_bench.plugins.single_file import class_code
from lape_bench.runtime.artifacts import stable_name
from lape_bench.system import RunContext

FILE = "embeddings.pt"
# Attributes of a module that are in its state, or are none of its own.
REGISTERED = {"_parameters", "_buffers", "_modules", "training"}
ATTRIBUTE_DEPTH = 4  # such as a module's attribute, a plain object, its attribute, a list
WITHOUT_NUMBERS = {"torch", "torchaudio", "transformers", "lape_bench"}  # draw tensors alone


def cached_embeddings(
    encoder: Encoder,
    clips: Clips,
    window_seconds: float,
    determined_by: Mapping[str, Any],
    context: RunContext,
) -> tuple[Tensor, Tensor]:
    """Embed every window of whole clips, or load their embeddings from the cache.

    Args:
        encoder: on the context's device.
        clips: the clips.
        window_seconds: length of the windows laid over each clip.
        determined_by: further parts of the cache key, such as a kind of pooling that no tensor shows.
        context: device, precision, progress and cache of the run.

    Returns:
        Embeddings and clip index of each window, as of `inference.embed`.
    """

    def compute(folder: Path, inside: RunContext) -> None:
        embeddings, owner = embed(encoder, clips, window_seconds, inside)
        save_tensors(folder / FILE, {"embeddings": embeddings, "owner": owner})

    artifact = context.artifact(
        "embeddings",
        f"{type(encoder).__name__}, {encoder.embedding_size} numbers, {len(clips):,} clips",
        {
            "encoder": stable_name(type(encoder)),
            "encoder_tensors": encoder_checksum(encoder),
            **({"encoder_code": code} if (code := class_code(type(encoder))) else {}),
            "clips": clips.key,
            "window_seconds": None if encoder.whole_clip else window_seconds,
            **({"uses_lengths": True} if encoder.uses_lengths else {}),
            **determined_by,
        },
        compute,
    )
    content = load_tensors(artifact.folder / FILE, torch.device("cpu"))
    return content["embeddings"], content["owner"]


def encoder_checksum(encoder: Encoder) -> str:
    """Return the SHA-256 of an encoder's state, and of the tensors, arrays and, in a plug-in, numbers that it keeps outside of the state.

    Those are buffers that are not saved, and attributes, also of a plug-in's encoder that is not a module. They too may be drawn
    with the run's seed, such as a list of random frequency bins.
    """
    state = encoder.state_dict()
    hidden = dict(_outside_state(encoder, {id(module) for module in encoder.modules()}))
    return tensors_checksum({**state, **({"hidden": hidden} if hidden else {})})


def _outside_state(module: nn.Module, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Yield the tensors, arrays and numbers of a module that are not in its state.

    Args:
        module: with the modules that it registers.
        seen: `id` of these and of other modules that are covered already; those that are found are added.
    """
    state = module.state_dict()
    yield from ((name, buffer) for name, buffer in module.named_buffers() if name not in state)
    for name, part in module.named_modules():
        attributes = {key: value for key, value in vars(part).items() if key not in REGISTERED}
        numbers = type(part).__module__.partition(".")[0] not in WITHOUT_NUMBERS
        yield from _arrays(name, attributes, numbers, ATTRIBUTE_DEPTH, seen)


def _arrays(
    name: str, value: Any, numbers: bool, depth: int, seen: set[int]
) -> Iterator[tuple[str, Any]]:
    """Yield the tensors, numeric arrays and perhaps numbers in an attribute.

    Containers, plain objects, functions and modules that no module registers are searched too.
    """
    if isinstance(value, Tensor):
        if value.layout is torch.strided and not value.is_meta:
            yield name, value
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in "biufc":
            yield name, value
    elif isinstance(value, Number):
        if numbers:
            yield name, value
    elif isinstance(value, nn.Module):
        if id(value) not in seen:
            seen |= {id(module) for module in value.modules()}
            found = [*value.state_dict().items(), *_outside_state(value, seen)]
            yield from ((f"{name}.{key}", part) for key, part in found)
    elif depth and not isinstance(value, type | ModuleType):
        for key, part in _parts(value):
            yield from _arrays(f"{name}.{key}", part, numbers, depth - 1, seen)


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    """Return what a container, a function or a plain object holds, each with a name."""
    if isinstance(value, Mapping):
        return [*value.items()]
    if isinstance(value, list | tuple):
        return enumerate(value)
    if isinstance(value, set | frozenset):
        return enumerate(sorted(value, key=repr))
    if isinstance(value, partial):
        return [("func", value.func), ("args", value.args), ("keywords", value.keywords)]
    if isinstance(value, MethodType):
        return [("func", value.__func__), ("self", value.__self__)]
    if isinstance(value, FunctionType):
        return [*vars(value).items(), *_enclosed(value)]
    slots = {name for base in type(value).__mro__ for name in getattr(base, "__slots__", ())}
    slotted = [(name, getattr(value, name)) for name in sorted(slots) if hasattr(value, name)]
    return [*getattr(value, "__dict__", {}).items(), *slotted]


def _enclosed(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the variables of the functions around a function that it uses."""
    cells = function.__closure__ or ()
    for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
        with suppress(ValueError):  # not filled yet
            yield name, cell.cell_contents


def state_checksum(module: nn.Module) -> str:
    """Return the SHA-256 of a module's state; see `tensors_checksum`."""
    return tensors_checksum(module.state_dict())


def tensors_checksum(state: Mapping[str, Any]) -> str:
    """Return the SHA-256 of names, shapes, types and bytes of tensors, and of other values."""
    sha256 = hashlib.sha256()
    for name, value in _leaves("", state):
        if isinstance(value, Tensor):
            sha256.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            # By bytes: NumPy has no bfloat16.
            sha256.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
        else:
            sha256.update(name.encode() + value)
    return sha256.hexdigest()


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Tensor | bytes]]:
    """Yield the tensors of a nested state, and other values as bytes, with names joined by dots."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from _leaves(f"{name}.{place}", item)
    elif isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, set | frozenset):
        yield name, repr(sorted(map(repr, value))).encode()
    elif isinstance(value, str | int | float | complex | bool | bytes | None):
        yield name, repr(value).encode()
    else:
        yield name, pickle.dumps(value, protocol=4)
