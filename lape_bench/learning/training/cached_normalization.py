"""Normalization statistics of log-mels, fitted once for a task's train clips and cached."""

from pathlib import Path

import torch
from torch import Tensor

from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.encoders.log_mel import LogMel, LogMelEncoder
from lape_bench.learning.training.cached_embeddings import state_checksum
from lape_bench.learning.training.checkpoints import load_tensors, save_tensors
from lape_bench.learning.training.inference import fit_normalization
from lape_bench.records.record import PROTOCOL_VERSION
from lape_bench.system import RunContext

FILE = "normalization.pt"


@torch.no_grad()
def cached_normalization(
    encoder: Encoder, clips: Clips, window_seconds: float, context: RunContext
) -> None:
    """Fit the normalization of an encoder's features as `fit_normalization` does, or load it from the cache.

    The statistics of log-mels depend on the front end and the clips, and not on weights, seed, labels or protocol. So all
    systems with the same front end share them. If an encoder fits its features in a way of its own, they are fitted again.

    Args:
        encoder: on the context's device.
        clips: train clips.
        window_seconds: length of the windows; ignored if the encoder takes whole clips.
        context: device and cache of the run.
    """
    log_mel = _fitted_log_mel(encoder)
    if log_mel is None:
        fit_normalization(encoder, clips, window_seconds, context)
        return

    def compute(folder: Path, inside: RunContext) -> None:
        fit_normalization(encoder, clips, window_seconds, inside)
        save_tensors(folder / FILE, _statistics(log_mel))

    artifact = context.artifact(
        "normalization",
        f"log-mels of {len(clips):,} clips",
        {
            "log_mel": log_mel.config.model_dump(mode="json"),
            "filters": state_checksum(log_mel.mel),
            "clips": clips.key,
            "window_seconds": None if encoder.whole_clip else window_seconds,
            "uses_lengths": encoder.uses_lengths,
            "protocol_version": PROTOCOL_VERSION,
        },
        compute,
    )
    content = load_tensors(artifact.folder / FILE, context.device)
    for name, tensor in _statistics(log_mel).items():
        tensor.copy_(content[name])


def _fitted_log_mel(encoder: Encoder) -> LogMel | None:
    """Return the front end if its statistics are all that `fit_features` fits."""
    if (
        isinstance(encoder, LogMelEncoder)
        and type(encoder).fit_features is LogMelEncoder.fit_features
        and type(encoder.log_mel) is LogMel
    ):
        return encoder.log_mel
    return None


def _statistics(log_mel: LogMel) -> dict[str, Tensor]:
    return {"mean": log_mel.mean, "std": log_mel.std}
