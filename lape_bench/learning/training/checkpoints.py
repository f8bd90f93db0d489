"""Files of tensors: written atomically with a checksum, read without running code, loaded strictly.

A file of `torch.save` is a ZIP archive. The checksum of everything before it is the archive's comment, so that torch reads
the file as it does any other.
"""

import hashlib
import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from lape_bench.core.errors import (
    DamagedFile,
    UserError,
    explain_write_errors,
    summarize_error,
)
from lape_bench.core.paths import new_file

NAMED = 3
SEAL = b"lape_bench sha256:"
SEAL_BYTES = len(SEAL) + 64  # with 64 hexadecimal digits


def save_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors, and plain values around them, to one file with a checksum, atomically."""
    # Explained inside, where a full disk is still full: torch turns it into a RuntimeError.
    with new_file(path) as temporary, explain_write_errors(path), temporary.open("w+b") as file:
        torch.save(_intern_keys(dict(content)), file)
        file.seek(-2, os.SEEK_END)  # the length of the archive's comment, which ends the file
        file.write(SEAL_BYTES.to_bytes(2, "little"))
        file.write(SEAL + _digest(file, file.tell()))


def load_tensors(path: Path, device: torch.device, has_checksum: bool = True) -> dict[str, Any]:
    """Read a file of tensors.

    Args:
        path: the file.
        device: where the tensors are put.
        has_checksum: whether `save_tensors` wrote the file. A file from elsewhere may have no checksum; one that it
            has is compared all the same.

    Raises:
        UserError: the file is missing, damaged, or a pickle that would run code.
    """
    if not path.is_file():
        raise UserError(f"the checkpoint {path} does not exist")
    with path.open("rb") as file:
        intact = _is_intact(file)
    if not (intact if has_checksum else intact is not False):
        raise DamagedFile(f"the checkpoint {path} is damaged: its checksum does not match")
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


def _is_intact(file: BinaryIO) -> bool | None:
    """Compare a file with the checksum at its end; None if it has none."""
    end = file.seek(0, os.SEEK_END) - SEAL_BYTES
    if end < 0:
        return None
    file.seek(end)
    seal = file.read()
    return seal == SEAL + _digest(file, end) if seal.startswith(SEAL) else None


def _digest(file: BinaryIO, size: int) -> bytes:
    """Hash the first bytes of a file, and leave the position behind them."""
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(min(size, 2**20)):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest().encode()


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
