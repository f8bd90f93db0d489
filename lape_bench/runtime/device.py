"""Device, precision and number of threads, chosen once at the command line and passed down."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from lape_bench.core.config import Config
from lape_bench.core.errors import UserError, unknown
from lape_bench.runtime import cpu_cores, environment, malloc

Precision = Literal["float32", "bf16"]

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bf16")


class Compute(Config):
    """The device, precision and number of CPU threads that the user asked for.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "float32" or "bf16".
        threads: number of CPU threads; None is one per core.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None

    def shared(self, processes: int) -> "Compute":
        """Return the settings of each of several processes, which share the cores unless the user sets the threads."""
        threads = self.threads or max(1, cpu_cores.available() // processes)
        return self.model_copy(update={"threads": threads})

    def resolve(self) -> tuple[torch.device, Precision]:
        """Find the device and precision on this machine, and set the number of threads. On a CPU, also keep freed
        memory.

        Raises:
            UserError: a name is unknown, the number of threads is below 1, or this machine lacks the device.
        """
        if self.threads is not None and self.threads < 1:
            raise UserError(f"the number of threads is {self.threads}", allowed="1 or more")
        # A container may have fewer cores than torch counts.
        torch.set_num_threads(self.threads or min(torch.get_num_threads(), cpu_cores.available()))
        device = _device(self.device)
        if device.type == "cpu":
            malloc.keep_freed_memory()
        else:
            _repeat_exactly()
        if self.precision not in PRECISIONS:
            raise unknown("precision", self.precision, PRECISIONS)
        if self.precision == "auto":
            return device, "bf16" if _gains_from_bf16(device) else "float32"
        return device, "bf16" if self.precision == "bf16" else "float32"


@contextmanager
def torch_settings_restored() -> Iterator[None]:
    """Restore the settings of torch after the block, so that `resolve` does not affect the caller's own code."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.allow_tf32 = tf32


def stamp(device: torch.device, precision: Precision) -> dict[str, str]:
    """Return device, precision, threads, versions and commit. Only checkpoints with an equal stamp are resumed."""
    compute = {
        "device": str(device),
        "precision": precision,
        "threads": str(torch.get_num_threads()),
    }
    return compute | environment.describe()


def _device(name: str) -> torch.device:
    kind, colon, number = name.partition(":")
    if kind not in DEVICES or (colon and not (kind == "cuda" and number.isdecimal())):
        raise unknown("device", name, (*DEVICES, "cuda:N"))
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and int(number or 0) < torch.cuda.device_count(),
    }
    if kind == "auto":
        return torch.device(next(kind for kind in ("cuda", "cpu") if present[kind]))
    if not present[kind]:
        raise UserError(
            f"this machine has no device '{name}' that torch can use",
            allowed=f"here: auto, {', '.join(kind for kind, is_here in present.items() if is_here)}",
        )
    return torch.device(name)


def _repeat_exactly() -> None:
    """Make CUDA deterministic, and compute float32 in float32 instead of TF32."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA is first used
    # Only a warning, since a plug-in may need an operation that is not deterministic.
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode also fills new tensors, which takes time and only helps debugging.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # made at import
    torch.backends.cudnn.allow_tf32 = False


def _gains_from_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return False
