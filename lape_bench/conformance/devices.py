"""Whether an encoder can move to another device: tried on one where there is one, and on a stand-in where there is none.

The stand-in is torch's fake tensors (`torch.compiler_fake_tensor` in its documentation): they have a shape and a device,
here a GPU that need not exist, and no numbers; an operation refuses tensors of two devices as the real one would.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from lape_bench.learning.encoders.base import Encoder

OF_MODULES = frozenset(vars(nn.Module()))  # where torch keeps what is registered


class LeftBehind(Exception):
    """Tensors of two devices met; the message is torch's."""


class CannotTell(Exception):
    """The stand-in cannot go through this encoder, for a reason that need not be a mistake."""


def other_device(device: torch.device) -> torch.device | None:
    """Return a device of another kind than this one, if torch finds one."""
    if device.type != "cpu":
        return torch.device("cpu")
    return torch.device("cuda") if torch.cuda.is_available() else None


def devices_differ(error: Exception) -> bool:
    """Tell whether torch complains of tensors on two devices, which it says in several ways."""
    return "same device" in str(error)


@torch.no_grad()
def embed_on_stand_in(encoder: Encoder, waveforms: Tensor) -> None:
    """Go through an encoder as if it and its input had been moved to a GPU; the encoder is of no use afterwards.

    Raises:
        LeftBehind: something stayed, or was made, on the CPU.
        CannotTell: what the encoder does depends on numbers, which fake tensors have not, or torch cannot pretend it.
    """
    try:
        # cuDNN, which recurrent layers would call, looks for a real GPU.
        with FakeTensorMode(allow_non_fake_inputs=True), torch.backends.cudnn.flags(enabled=False):
            _pretend_moved(encoder)
            embeddings = encoder.eval()(encoder.features(_fake(waveforms)))
    except Exception as error:  # every operation has its own
        said = str(error).strip().partition("\n")[0]
        if devices_differ(error):
            raise LeftBehind(said) from error
        raise CannotTell(f"{type(error).__name__}: {said}") from error
    if embeddings.device.type == "cpu":
        raise LeftBehind("the embeddings of waveforms on a GPU are on the CPU")


def _pretend_moved(module: nn.Module) -> None:
    for each in module.modules():
        for name, parameter in each._parameters.items():
            if parameter is not None:
                each._parameters[name] = nn.Parameter(_fake(parameter), parameter.requires_grad)
        for name, buffer in each._buffers.items():
            if buffer is not None:
                each._buffers[name] = _fake(buffer)


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")


def unregistered(module: nn.Module) -> list[str]:
    """Name the tensors and modules that a freshly built module holds as plain attributes, out of sight of torch."""
    seen = {id(each) for each in (*module.modules(), *module.parameters(), *module.buffers())}
    return [
        f"{path}.{where}".removeprefix(".")
        for path, each in module.named_modules()
        for name, value in vars(each).items()
        if name not in OF_MODULES
        for where in _within(name, value, seen)
    ]


def _within(path: str, value: Any, seen: set[int]) -> Iterator[str]:
    """Walk lists, dictionaries and plain objects; what was seen is passed by."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if value.is_leaf:  # else it is computed anew, as by weight normalization
            yield path
    elif isinstance(value, nn.Module):
        if next(value.parameters(), next(value.buffers(), None)) is not None:
            yield path
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from _within(f"{path}[{index}]", each, seen)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from _within(f"{path}[{key!r}]", each, seen)
    elif hasattr(value, "__dict__") and not isinstance(value, (type, ModuleType)):
        for name, each in vars(value).items():
            yield from _within(f"{path}.{name}", each, seen)
