"""Whether an encoder can move to another device, and, on a machine with one device only, to a pretended GPU.

The pretended GPU is torch's fake tensors (`torch.compiler_fake_tensor` in its documentation): they have a shape and a device,
but no numbers. An operation refuses tensors of two devices, as a real GPU would. This is the only check that finds a tensor
made without a device on a machine without a GPU. torch's "meta" device is public and needs less code, but mixes with CPU tensors
in linear(), embedding() and recurrent layers without an error, and cannot run a log-mel spectrogram.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from lape_bench.learning.encoders.base import Encoder

MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))  # where torch keeps what is registered


class DeviceMismatch(Exception):
    """Tensors of two devices met; the message is torch's."""


class CannotPretend(Exception):
    """The encoder cannot run on a pretended GPU, for a reason that need not be a mistake."""


def other_device(device: torch.device) -> torch.device | None:
    """Return a device of another kind than this one, if torch finds one."""
    if device.type != "cpu":
        return torch.device("cpu")
    return torch.device("cuda") if torch.cuda.is_available() else None


def devices_differ(error: Exception) -> bool:
    """Return True if torch complains of tensors on two devices, which it says in several ways."""
    return "same device" in str(error)


@torch.no_grad()
def embed_on_fake_gpu(encoder: Encoder, waveforms: Tensor) -> None:
    """Run an encoder as if it and its input were on a GPU; the encoder cannot be used afterwards.

    Raises:
        DeviceMismatch: a tensor stayed, or was made, on the CPU.
        CannotPretend: what the encoder does depends on numbers, which fake tensors have not, or torch cannot pretend it.
    """
    try:
        # Here, not above: the module is torch's own, and a version without it must only skip this check.
        from torch._subclasses.fake_tensor import FakeTensorMode

        # cuDNN, which recurrent layers would call, looks for a real GPU.
        with FakeTensorMode(allow_non_fake_inputs=True), torch.backends.cudnn.flags(enabled=False):
            _pretend_moved(encoder)
            embeddings = encoder.eval()(encoder.features(_fake(waveforms)))
    except Exception as error:  # every operation has its own
        message = str(error).strip().partition("\n")[0]
        if devices_differ(error):
            raise DeviceMismatch(message) from error
        raise CannotPretend(f"{type(error).__name__}: {message}") from error
    if embeddings.device.type == "cpu":
        raise DeviceMismatch("the embeddings of waveforms on a GPU are on the CPU")


def _pretend_moved(encoder: nn.Module) -> None:
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
    """Name the tensors and modules that a freshly built module keeps as plain attributes, where `to()` does not find them."""
    seen = {id(part) for part in (*module.modules(), *module.parameters(), *module.buffers())}
    return [
        f"{path}.{place}".removeprefix(".")
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if name not in MODULE_ATTRIBUTES
        for place in _tensors_within(name, value, seen)
    ]


def _tensors_within(path: str, value: Any, seen: set[int]) -> Iterator[str]:
    """Walk lists, dictionaries and plain objects; skip what was seen."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if value.is_leaf:  # else it is computed again, as by weight normalization
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
