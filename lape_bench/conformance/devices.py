"""Run an encoder on a fake GPU, and find tensors that would not move with it to another device.

The fake GPU is made of torch's fake tensors (`torch.compiler_fake_tensor` in its documentation). They have a shape and a device,
but no numbers. As on a real GPU, operations refuse tensors on two devices. On a machine without a GPU, only this finds a tensor
that is created without a device. torch's "meta" device is public and needs less code. But linear(), embedding() and recurrent
layers accept its tensors together with CPU tensors, and it cannot compute a log-mel spectrogram.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from lape_bench.learning.encoders.base import Encoder

MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))  # torch keeps registered tensors and modules there


class DeviceMismatch(Exception):
    """An operation was given tensors on two devices. The message is torch's."""


class FakeGpuUnsupported(Exception):
    """The encoder cannot run on a fake GPU. It need not be wrong."""


def other_device(device: torch.device) -> torch.device | None:
    """Return a device of another type than the given one, or None if torch finds none."""
    if device.type != "cpu":
        return torch.device("cpu")
    return torch.device("cuda") if torch.cuda.is_available() else None


def devices_differ(error: Exception) -> bool:
    """Return True if an error of torch is about tensors on two devices; its wording varies."""
    return "same device" in str(error)


@torch.no_grad()
def embed_on_fake_gpu(encoder: Encoder, waveforms: Tensor) -> None:
    """Run an encoder as if it and its input were on a GPU. The encoder cannot be used afterwards.

    Args:
        encoder: an encoder on the CPU.
        waveforms: shape (batch, samples), on the CPU.

    Raises:
        DeviceMismatch: a tensor stayed on the CPU or was created there.
        FakeGpuUnsupported: the computation depends on numbers, which fake tensors do not have, or torch cannot fake it.
    """
    try:
        # Imported here, since the module is private: with a version of torch that lacks it, only this check is skipped.
        from torch._subclasses.fake_tensor import FakeTensorMode

        # cuDNN, which recurrent layers would call, looks for a real GPU.
        with FakeTensorMode(allow_non_fake_inputs=True), torch.backends.cudnn.flags(enabled=False):
            _move_to_fake_gpu(encoder)
            embeddings = encoder.eval()(encoder.features(_fake(waveforms)))
    except Exception as error:  # each operation raises a type of its own
        message = str(error).strip().partition("\n")[0]
        if devices_differ(error):
            raise DeviceMismatch(message) from error
        raise FakeGpuUnsupported(f"{type(error).__name__}: {message}") from error
    if embeddings.device.type == "cpu":
        raise DeviceMismatch("the embeddings of waveforms on a GPU are on the CPU")


def _move_to_fake_gpu(encoder: nn.Module) -> None:
    for module in encoder.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(_fake(parameter), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _fake(buffer)


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")


def unregistered_tensors(module: nn.Module) -> list[str]:
    """Return the paths of tensors and modules that a new module keeps in plain attributes, which `to()` does not move."""
    seen = {id(part) for part in (*module.modules(), *module.parameters(), *module.buffers())}
    return [
        f"{path}.{place}".removeprefix(".")
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if name not in MODULE_ATTRIBUTES
        for place in _tensors_within(name, value, seen)
    ]


def _tensors_within(path: str, value: Any, seen: set[int]) -> Iterator[str]:
    """Yield the paths of tensors and modules in lists, dictionaries and plain objects, except those in `seen`."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if value.is_leaf:  # others are computed again, as in weight normalization
            yield path
    elif isinstance(value, nn.Module):
        if next(value.parameters(), next(value.buffers(), None)) is not None:
            yield path
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _tensors_within(f"{path}[{index}]", item, seen)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _tensors_within(f"{path}[{key!r}]", item, seen)
    elif hasattr(value, "__dict__") and not isinstance(value, (type, ModuleType)):
        for name, item in vars(value).items():
            yield from _tensors_within(f"{path}.{name}", item, seen)
