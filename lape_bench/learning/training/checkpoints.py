"""Files of tensors: written atomically, read without running code, loaded strictly."""

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lape_bench.core.errors import UserError, summarize_error
from lape_bench.core.paths import new_file

NAMED = 3


def save_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors, and plain values around them, to one file, atomically."""
    # Through a file of ours: torch's own writer turns a full disk into a RuntimeError.
    with new_file(path) as temporary, temporary.open("wb") as file:
        torch.save(_intern_keys(dict(content)), file)


def load_tensors(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save_tensors` wrote.

    Raises:
        UserError: the file is missing, damaged, or a pickle that would run code.
    """
    if not path.is_file():
        raise UserError(f"the checkpoint {path} does not exist")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"the checkpoint {path} holds something other than tensors, which could run code; it was not loaded",
            allowed="a file of torch.save that holds tensors and plain values alone",
        ) from error
    except Exception as error:  # torch's readers fail in many ways on a damaged file
        raise UserError(f"the checkpoint {path} is damaged ({summarize_error(error)})") from error
    if not isinstance(content, dict):
        raise UserError(
            f"the checkpoint {path} holds a {type(content).__name__}, not named tensors"
        )
    return content


def load_strictly(module: nn.Module, tensors: object, where: str) -> None:
    """Load tensors into a module that has exactly these tensors.

    Args:
        module: changed in place.
        tensors: a state dict; any other object counts as an empty one.
        where: the source of the tensors, for the error message.

    Raises:
        UserError: a tensor is missing, left over or of another shape; the first few are named.
    """
    own = module.state_dict()
    given = tensors if isinstance(tensors, dict) else {}
    wrong = [f"{name} is missing" for name in own if name not in given]
    wrong += [f"{name} is not part of it" for name in given if name not in own]
    wrong += [
        f"{name} has shape {_shape(given[name])} instead of {_shape(own[name])}"
        for name in own
        if name in given and _shape(given[name]) != _shape(own[name])
    ]
    if wrong:
        more = f", and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise UserError(
            f"{where} does not match the model ({', '.join(wrong[:NAMED])}{more})",
            next_step="load it with the settings it was saved with",
        )
    module.load_state_dict(given)


def _intern_keys(value: Any) -> Any:
    """Make equal keys one object, so that equal content has equal bytes: pickle refers to an object that it has seen."""
    if isinstance(value, dict):
        return {
            sys.intern(key) if isinstance(key, str) else key: _intern_keys(item)
            for key, item in value.items()
        }
    return [_intern_keys(item) for item in value] if type(value) is list else value


def _shape(value: object) -> tuple[int, ...] | str:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else "none"
