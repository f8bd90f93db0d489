"""Whole clips through a model: windows in, one row of numbers a clip out."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lape_bench.batches import consecutive_windows, cut, to_device, whole_clips
from lape_bench.learning.encoders import Encoder
from lape_bench.store import Clips
from lape_bench.system import RunContext

SECONDS_A_BATCH = 64.0  # of audio


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
    rows, owners = [], []
    for owner, features in _windows(encoder, clips, window_seconds, context, "embedding"):
        with context.autocast():
            rows.append(encoder(features).float().cpu())
        owners.append(owner)
    owner = torch.cat(owners)
    order = owner.argsort(stable=True)
    return torch.cat(rows)[order], owner[order]


@torch.no_grad()
def class_log_probabilities(
    encoder: Encoder, head: nn.Module, clips: Clips, window_seconds: float, context: RunContext
) -> Tensor:
    """Score whole clips: class log-probabilities of consecutive windows, averaged over each clip.

    Returns:
        Shape (clips, classes), float32, on the CPU; each row is normalised again after averaging.
    """
    encoder.eval()
    head.eval()
    rows, owners = [], []
    for owner, features in _windows(encoder, clips, window_seconds, context, "scoring"):
        with context.autocast():
            embeddings = encoder(features)
        # The head stays in float32: it costs nothing, and rounding would move a probe's decisions.
        rows.append(head(embeddings.float()).log_softmax(dim=1).cpu())
        owners.append(owner)
    return average_by_clip(torch.cat(rows), torch.cat(owners), len(clips)).log_softmax(dim=1)


def average_by_clip(values: Tensor, owner: Tensor, clips: int) -> Tensor:
    """Average rows of shape (windows, n) over the windows of each clip: (clips, n)."""
    total = values.new_zeros(clips, values.shape[1]).index_add_(0, owner, values)
    return total / torch.bincount(owner, minlength=clips)[:, None]


def _windows(
    encoder: Encoder, clips: Clips, window_seconds: float, context: RunContext, title: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield clip indices, shape (batch,), and the features of a window of each."""
    if encoder.whole_clip:
        with context.progress.task(title, len(clips), "clips") as task:
            for indices, waveforms in whole_clips(clips, context.device):
                yield torch.from_numpy(indices), encoder.features(waveforms)
                task.advance(len(indices))
        return
    window = round(window_seconds * clips.rate)
    on_device = to_device(clips, context.device)
    owner, offsets = consecutive_windows(clips.lengths, window)
    size = max(1, int(SECONDS_A_BATCH / window_seconds))
    with context.progress.task(title, len(owner), "windows") as task:
        for batch in torch.split(torch.arange(len(owner)), size):
            waveforms = cut(on_device, owner[batch], offsets[batch], window)
            yield owner[batch], encoder.features(waveforms)
            task.advance(len(batch))
