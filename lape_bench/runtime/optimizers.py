"""Adam, AdamW and SGD of torch, without the wrappers that import torch's compiler.

torch wraps the methods of an optimizer for `torch.compile`, which nothing here uses. The first call imports the compiler, which takes
nearly as long as importing torch. The methods inside the wrappers compute the same.
"""

import inspect
from typing import Any

import torch
from torch.optim import Optimizer


class _WithoutCompiler:
    add_param_group: Any = inspect.unwrap(Optimizer.add_param_group)
    zero_grad: Any = inspect.unwrap(Optimizer.zero_grad)
    state_dict: Any = inspect.unwrap(Optimizer.state_dict)
    load_state_dict: Any = inspect.unwrap(Optimizer.load_state_dict)


def _step(kind: type[Optimizer]) -> Any:
    # The wrapper of this method also turns gradients off.
    return torch.no_grad()(inspect.unwrap(kind.step))


class Adam(_WithoutCompiler, torch.optim.Adam):
    """`torch.optim.Adam`, without importing the compiler."""

    step: Any = _step(torch.optim.Adam)


class AdamW(_WithoutCompiler, torch.optim.AdamW):
    """`torch.optim.AdamW`, without importing the compiler."""

    step: Any = _step(torch.optim.AdamW)


class SGD(_WithoutCompiler, torch.optim.SGD):
    """`torch.optim.SGD`, without importing the compiler."""

    step: Any = _step(torch.optim.SGD)
