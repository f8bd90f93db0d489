"""The samples of a store: in 16 bits if that loses nothing, otherwise in float32.

Most published audio is 16-bit and mono. Unless it is resampled, each of its samples is an integer divided by 32,768, so
16 bits give back the same float32 samples in half the space. Resampled, lossy and mixed audio is not rounded: rounding
adds noise that a log-mel spectrogram shows in bands without sound, and it changes predictions.
"""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lape_bench.core.errors import UserError
from lape_bench.core.folder_checksums import ChecksummingWriter, FileChecksums

Samples = NDArray[np.float32]
StoredSamples = NDArray[np.int16] | Samples

INT16_FILE, FLOAT32_FILE = "samples.i16", "samples.f32"
STEP = 2.0**-15  # of 16-bit audio; full scale is 1
SETTING = "LAPE_BENCH_STORE"  # environment variable
BLOCK = 2**18  # samples that are widened at a time


def pack(samples: StoredSamples) -> StoredSamples:
    """Return samples as int16 if `unpack` gives back the same bytes; otherwise the samples themselves.

    Args:
        samples: shape (samples,); of float32, full scale is 1.0.
    """
    if samples.dtype == np.int16:
        return samples
    samples = samples.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):  # samples beyond 16 bits do not come back
        packed = (samples / STEP).astype(np.int16)
    # Bytes are compared, since 0.0 and -0.0 differ.
    same = np.array_equal(unpack(packed).view(np.int32), samples.view(np.int32))
    return packed if same else samples


def unpack(samples: StoredSamples) -> Samples:
    """Return stored samples, shape (samples,), as float32; float32 samples are not copied."""
    if samples.dtype == np.int16:
        return np.multiply(samples, STEP, dtype=np.float32)
    return samples.astype(np.float32, copy=False)


class SampleFile:
    """The file of a store's samples while it is written; use it in a `with` statement.

    It holds int16 until samples are written that need float32. Then the samples so far are widened.

    Args:
        folder: folder of the store.

    Raises:
        UserError: the environment variable has a value that is not allowed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open(FLOAT32_FILE if _only_float32() else INT16_FILE)

    def write(self, samples: StoredSamples) -> None:
        """Append samples of shape (samples,)."""
        if self.name == INT16_FILE and samples.dtype != np.int16:
            self._widen()
        if self.name == FLOAT32_FILE:
            samples = unpack(samples)
        self._writer.write(np.ascontiguousarray(samples).data)
        self.n_samples += len(samples)

    def checksums(self) -> dict[str, FileChecksums]:
        """Return the name of the file, and the checksums of its contents so far."""
        return {self.name: self._writer.checksums()}

    def _open(self, name: str) -> None:
        self.name, self.n_samples = name, 0
        self._file = (self._folder / name).open("wb")
        self._writer = ChecksummingWriter(self._file)

    def _widen(self) -> None:
        self._file.close()
        narrow = self._folder / self.name
        self._open(FLOAT32_FILE)
        with narrow.open("rb") as file:
            while block := file.read(BLOCK * np.dtype(np.int16).itemsize):
                self.write(np.frombuffer(block, np.int16))
        narrow.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def map_samples(folder: Path) -> StoredSamples:
    """Memory-map the samples of a store, read-only."""
    path = folder / INT16_FILE
    if not path.is_file():
        path = folder / FLOAT32_FILE
    kind = np.dtype(np.int16 if path.name == INT16_FILE else np.float32)
    if not path.stat().st_size:  # an empty file cannot be mapped
        return np.empty(0, kind)
    return np.memmap(path, kind, mode="r")


def _only_float32() -> bool:
    value = os.environ.get(SETTING, "auto")
    if value not in ("auto", "float32"):
        raise UserError(
            f"the environment variable {SETTING} is '{value}'",
            allowed="allowed: auto, which stores 16-bit audio in 16 bits, and float32",
        )
    return value == "float32"
