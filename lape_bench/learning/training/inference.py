"""Whole clips through a model: windows in, one row of numbers a clip out."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.training.batches import (
    consecutive_windows,
    cut_windows,
    to_device,
    whole_clip_batches,
)
from lape_bench.system import RunContext

SECONDS_A_BATCH = 64.0  # of audio

WindowBatches = tuple[Tensor, Iterable[tuple[Tensor, Tensor]]]
"""The clip index of each window, shape (windows,), and, batch after batch, which windows and their waveforms."""


@torch.no_grad()
def embed(
    encoder: Encoder, clips: Clips, window_seconds: float, context: RunContext
) -> tuple[Tensor, Tensor]:
    """Embed every window of whole clips.

    Returns:
        Embeddings, shape (windows, features), float32, on the CPU, and the clip index of each, shape
        (windows,), in the clips' order.
    """
    encoder.eval()

    def embedded(features: Tensor) -> Tensor:
        with context.autocast():
            embeddings: Tensor = encoder(features)
        return embeddings.float()

    return _map_windows(encoder, embedded, clips, window_seconds, context, "embedding")


@torch.no_grad()
def class_log_probabilities(
    encoder: Encoder, head: nn.Module, clips: Clips, window_seconds: float, context: RunContext
) -> Tensor:
    """Score whole clips: class log-probabilities of consecutive windows, averaged over each clip.

    Returns:
        Shape (clips, classes), float32, on the CPU; each row is normalized again after averaging.
    """
    encoder.eval()
    head.eval()

    def scored(features: Tensor) -> Tensor:
        with context.autocast():
            embeddings = encoder(features)
        # The head stays in float32: it costs nothing, and rounding would move a probe's decisions.
        scores: Tensor = head(embeddings.float())
        return scores.log_softmax(dim=1)

    rows, owner = _map_windows(encoder, scored, clips, window_seconds, context, "scoring")
    return average_by_clip(rows, owner, len(clips)).log_softmax(dim=1)


def average_by_clip(values: Tensor, owner: Tensor, clips: int) -> Tensor:
    """Average rows of shape (windows, n) over the windows of each clip: (clips, n)."""
    total = values.new_zeros(clips, values.shape[1]).index_add_(0, owner, values)
    return total / torch.bincount(owner, minlength=clips)[:, None]


def _map_windows(
    encoder: Encoder,
    row: Callable[[Tensor], Tensor],
    clips: Clips,
    window_seconds: float,
    context: RunContext,
    title: str,
) -> tuple[Tensor, Tensor]:
    """Turn the features of every window, (batch, ...), into rows, (batch, n).

    Returns:
        The rows, shape (windows, n), on the CPU, and the clip index of each, shape (windows,), in the clips' order.
    """
    if encoder.whole_clip:
        (owner, batches), unit = _whole(clips, context), "clips"
    else:
        (owner, batches), unit = _windows(clips, window_seconds, context), "windows"
    rows: Tensor | None = None
    with context.progress.task(title, len(owner), unit) as task:
        for places, waveforms in batches:
            made = row(encoder.features(waveforms)).cpu()
            if (
                rows is None
            ):  # put together at the end, those of a large data set would lie there twice
                rows = made.new_empty(len(owner), made.shape[1])
            rows[places] = made
            task.advance(len(places))
    assert rows is not None, "there are clips"
    return rows, owner


def _whole(clips: Clips, context: RunContext) -> WindowBatches:
    """Take each clip as one window."""
    batches = whole_clip_batches(clips, context.device)
    return torch.arange(len(clips)), ((torch.from_numpy(places), x) for places, x in batches)


def _windows(clips: Clips, window_seconds: float, context: RunContext) -> WindowBatches:
    """Lay windows of one length over each clip."""
    window = round(window_seconds * clips.rate)
    owner, offsets = consecutive_windows(clips.lengths, window)
    on_device = to_device(clips, context.device)
    batches = torch.split(torch.arange(len(owner)), max(1, int(SECONDS_A_BATCH / window_seconds)))
    return owner, ((b, cut_windows(on_device, owner[b], offsets[b], window)) for b in batches)
