"""Adapters: systems for encoders that were trained elsewhere, such as `hear:my_module`.

The part before the colon is the registered class, the part after it an argument that names the encoder. A record says what
the argument stood for: weights and code by their SHA-256, a published model by its revision.
"""

import hashlib
import sys
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field

from lape_bench.core.errors import UserError
from lape_bench.core.paths import sha256
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.systems.encoder_system import (
    PROBE_SMOKE_SETTINGS,
    EncoderConfig,
    EncoderSystem,
    PretrainedEncoder,
)
from lape_bench.plugins.local_imports import imported_files
from lape_bench.system import RunContext, TrainingSummary

NAMED = 3


class LoadedConfig(EncoderConfig):
    """Settings of an encoder whose tensors come from a file."""

    allow_missing: tuple[str, ...] = Field(
        (),
        description="names of tensors that may be missing from the file; they start from random values",
    )


class AdaptedEncoder(Encoder):
    """An encoder that was trained elsewhere.

    Attributes:
        loaded: numbers for the record, such as how many of its tensors were found in the file, by name.
    """

    loaded: dict[str, float]


class Adapter(EncoderSystem):
    """A family of systems, one for each argument.

    A subclass defines `resolve_argument`, `build_encoder` and `read_provenance`.

    Attributes:
        argument: the part of the name after the colon; set by `from_argument`.
    """

    # So few steps need a higher rate than a whole fine-tuning.
    smoke_settings: ClassVar[dict[str, Any]] = {
        "finetune": {"epochs": 6, "min_steps": 1, "batch_size": 16, "learning_rates": [1e-3]},
        **PROBE_SMOKE_SETTINGS,
    }
    argument: ClassVar[str]

    @classmethod
    def from_argument(cls, argument: str) -> type[Self]:
        """Return the system of one argument, a subclass.

        Raises:
            UserError: the argument names nothing that can be found, or something that is not an encoder.
        """
        # Inspecting an encoder may draw random weights; the run draws its own later.
        with Seeds(0, "adapter").globally(argument):
            attributes = cls.resolve_argument(argument)
        body = {"argument": argument, "__module__": cls.__module__, "__doc__": cls.__doc__}
        return type(cls.__name__, (cls,), body | attributes)

    @classmethod
    @abstractmethod
    def resolve_argument(cls, argument: str) -> dict[str, Any]:
        """Find what an argument names.

        Returns:
            Class attributes of the argument's system, such as `sample_rate` and `protocols`.

        Raises:
            UserError: it cannot be found, or is not an encoder.
        """

    @abstractmethod
    def build_encoder(self) -> AdaptedEncoder:
        """Return the encoder with its trained weights."""

    @abstractmethod
    def read_provenance(self) -> dict[str, str]:
        """Return what the argument stands for now, such as the SHA-256 of its weights, by name."""

    @cached_property
    def provenance(self) -> dict[str, str]:
        """Return what the argument stood for when it was first read."""
        return self.read_provenance()

    def prepare_encoder(self, train: Clips, context: RunContext) -> PretrainedEncoder:
        """Load the encoder; the summary says which of its tensors were found."""
        learned = super().prepare_encoder(train, context)
        assert isinstance(learned.encoder, AdaptedEncoder)
        return replace(learned, summary=TrainingSummary(diagnosis=dict(learned.encoder.loaded)))


def refuse_missing(missing: Iterable[str], allowed: Sequence[str], where: str) -> None:
    """Refuse missing tensors of an encoder unless a setting allows them.

    Args:
        missing: names of tensors that were not found.
        allowed: the setting `allow_missing`.
        where: the file or model that lacks them, for the error message.

    Raises:
        UserError: other tensors are missing too; the first few are named.
    """
    wrong = sorted(set(missing) - set(allowed))
    if wrong:
        more = f" and {len(wrong) - NAMED} more" if len(wrong) > NAMED else ""
        raise UserError(
            f"{where} lacks {len(wrong)} of the encoder's tensors: {', '.join(wrong[:NAMED])}{more}",
            next_step="if they may start from random values, name them: "
            f"--set allow_missing=[{','.join(wrong[:NAMED])}{',...' if more else ''}]",
        )


def path_checksum(path: Path, patterns: Sequence[str] = ("**/*",)) -> str:
    """Return the name and the SHA-256 of a file, or of a folder's files with their relative paths.

    Args:
        path: an existing file or folder.
        patterns: glob patterns of the files in a folder that count; by default all, in subfolders too.
    """
    if path.is_file():
        return f"{path.name}, SHA-256 {_sha256(path)}"
    digest = hashlib.sha256()
    files = {
        file
        for pattern in patterns
        for file in path.glob(pattern)
        if file.is_file() and file.parent.name != "__pycache__"
    }
    for file in sorted(files):
        digest.update(f"{file.relative_to(path).as_posix()}\0{_sha256(file)}\0".encode())
    return f"{path.absolute().name}, SHA-256 {digest.hexdigest()}"


def code_checksum(places: Sequence[Path]) -> str:
    """Return the checksums of a module's file, or of its package's folders, and of each file that they import beside them."""
    beside = [
        file
        for place in places
        for file in imported_files(
            place.rglob("*.py") if place.is_dir() else [place], place.parent, sys.path
        )
    ]
    return "; ".join(map(path_checksum, [*places, *beside]))


def _sha256(path: Path) -> str:
    """Hash a file once as long as it does not change: a sweep asks for it in every cell."""
    facts = path.stat()
    return _known_sha256(path.resolve(), facts.st_size, facts.st_mtime_ns)


@cache
def _known_sha256(path: Path, size: int, modified_ns: int) -> str:
    return sha256(path)
