"""Adapters: systems for encoders that were made elsewhere, one for whatever their name's argument names.

`hear:my_module` is the class registered as `hear`, bound to the argument `my_module`. A record says what the argument
stood for: weights on disk by their SHA-256, code by its own, a published model by its revision.
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
    EncoderConfig,
    EncoderSystem,
    PretrainedEncoder,
)
from lape_bench.plugins.local_imports import imported_files
from lape_bench.system import RunContext, TrainingSummary

NAMED = 3


class LoadedConfig(EncoderConfig):
    """Settings of an encoder whose tensors come from a file of someone else's."""

    allow_missing: tuple[str, ...] = Field(
        (),
        description="tensors of the encoder that the file may lack, by name; they start from random values",
    )


class AdaptedEncoder(Encoder):
    """An encoder made elsewhere.

    Attributes:
        loaded: how many of its tensors were found, and the like, for the record.
    """

    loaded: dict[str, float]


class Adapter(EncoderSystem):
    """A system for each argument that it can be given.

    Attributes:
        argument: what stands behind the colon of the name; set by `from_argument`.
    """

    # So few steps need a higher rate than a whole fine-tuning.
    smoke_settings: ClassVar[dict[str, Any]] = {
        "finetune": {"epochs": 6, "min_steps": 1, "batch_size": 16, "learning_rate": 1e-3}
    }
    argument: ClassVar[str]

    @classmethod
    def from_argument(cls, argument: str) -> type[Self]:
        """Return the system of one argument.

        Raises:
            UserError: it names nothing that can be found, or something that is no encoder.
        """
        # What is looked at to find out may draw; the run's own weights are drawn again.
        with Seeds(0, "adapter").globally(argument):
            found = cls.resolve_argument(argument)
        body = {"argument": argument, "__module__": cls.__module__, "__doc__": cls.__doc__}
        return type(cls.__name__, (cls,), body | found)

    @classmethod
    @abstractmethod
    def resolve_argument(cls, argument: str) -> dict[str, Any]:
        """Find what an argument names, and return the class attributes that depend on it."""

    @abstractmethod
    def build_encoder(self) -> AdaptedEncoder:
        """Return the encoder as it was made elsewhere."""

    @abstractmethod
    def read_provenance(self) -> dict[str, str]:
        """Return what the argument stands for at this moment."""

    @cached_property
    def provenance(self) -> dict[str, str]:
        """Return what the argument stood for when it was first asked."""
        return self.read_provenance()

    def prepare_encoder(self, train: Clips, context: RunContext) -> PretrainedEncoder:
        """Load the encoder, and note what was found of it."""
        learned = super().prepare_encoder(train, context)
        assert isinstance(learned.encoder, AdaptedEncoder)
        return replace(learned, summary=TrainingSummary(diagnosis=dict(learned.encoder.loaded)))


def refuse_missing(missing: Iterable[str], allowed: Sequence[str], where: str) -> None:
    """Insist that nothing of an encoder is missing but what a setting names.

    Args:
        missing: names of tensors that were not found.
        allowed: the setting `allow_missing`.
        where: what they are missing from.

    Raises:
        UserError: more is missing; the first few are named.
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
    """Return the name of a file, or of a folder, and the SHA-256 of what it holds.

    Args:
        path: must exist.
        patterns: which files of a folder count; by default all, also those of folders below.
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
    """Return fingerprints of a module's file, or of the folders of its package, and of each file that they import beside them."""
    beside = [
        file
        for place in places
        for file in imported_files(
            place.rglob("*.py") if place.is_dir() else [place], place.parent, sys.path
        )
    ]
    return "; ".join(map(path_checksum, [*places, *beside]))


def _sha256(path: Path) -> str:
    """Hash a file once for as long as it does not change: a grid asks for it in every cell."""
    facts = path.stat()
    return _known_sha256(path.resolve(), facts.st_size, facts.st_mtime_ns)


@cache
def _known_sha256(path: Path, size: int, modified_ns: int) -> str:
    return sha256(path)
