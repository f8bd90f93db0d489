"""Inference on whole clips: embeddings of windows, and class log-probabilities of clips."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from lape_bench.data.audio_store import Clips
from lape_bench.data.streams.streamed_clips import CorpusClips
from lape_bench.learning.encoders.base import Encoder, full_lengths
from lape_bench.learning.training.batches import (
    clips_of_equal_length,
    consecutive_windows,
    cut_windows,
    to_device,
    whole_clip_batches,
)
from lape_bench.system import RunContext

SECONDS_A_BATCH = 64.0  # of audio

WindowBatches = tuple[Tensor, Iterable[tuple[Tensor, Tensor, Tensor]]]
"""The clip index of each window, shape (windows,), and batches: window indices (batch,), waveforms (batch, samples), and the
real samples of each window (batch,)."""


@torch.no_grad()
def embed(
    encoder: Encoder, clips: Clips, window_seconds: float, context: RunContext
) -> tuple[Tensor, Tensor]:
    """Embed every window of whole clips; the encoder is left in evaluation mode.

    Args:
        encoder: on the context's device.
        clips: the clips.
        window_seconds: length of the windows; ignored if the encoder takes whole clips.
        context: device, precision and progress.

    Returns:
        Embeddings, shape (windows, features), float32, on the CPU, and the clip index of each window, shape (windows,), in the
        order of the clips.
    """
    encoder.eval()

    def embedded(features: Tensor, *lengths: Tensor) -> Tensor:
        with context.autocast():
            embeddings: Tensor = encoder(features, *lengths)
        return embeddings.float()

    return _map_windows(encoder, embedded, clips, window_seconds, context, "embedding")


@torch.no_grad()
def class_log_probabilities(
    encoder: Encoder, head: nn.Module, clips: Clips, window_seconds: float, context: RunContext
) -> Tensor:
    """Score whole clips: class log-probabilities of consecutive windows, averaged over each clip.

    Args:
        encoder: on the context's device.
        head: from embeddings to class scores, on the same device.
        clips: the clips.
        window_seconds: length of the windows; ignored if the encoder takes whole clips.
        context: device, precision and progress.

    Returns:
        Shape (clips, classes), float32, on the CPU; each row is normalized again after averaging.
    """
    encoder.eval()
    head.eval()

    def scored(features: Tensor, *lengths: Tensor) -> Tensor:
        with context.autocast():
            embeddings = encoder(features, *lengths)
        # The head stays in float32: it costs little, and rounding would change the decisions of a probe.
        scores: Tensor = head(embeddings.float())
        return scores.log_softmax(dim=1)

    rows, owner = _map_windows(encoder, scored, clips, window_seconds, context, "scoring")
    return average_by_clip(rows, owner, len(clips)).log_softmax(dim=1)


@torch.no_grad()
def log_probabilities_of_embeddings(
    encoder: Encoder,
    head: nn.Module,
    embeddings: Tensor,
    clips: Clips,
    window_seconds: float,
    context: RunContext,
) -> Tensor:
    """Score whole clips by embeddings that `embed` returned: the same bytes as of `class_log_probabilities`.

    The head is given the windows in the same batches, since a product of matrices may round differently in a batch of another size.

    Args:
        encoder: which embedded the clips.
        head: from embeddings to class scores, on the context's device.
        embeddings: of the windows of the clips, shape (windows, features), on the CPU.
        clips: the clips.
        window_seconds: length of the windows; ignored if the encoder takes whole clips.
        context: device.

    Returns:
        Shape (clips, classes), float32, on the CPU.
    """
    head.eval()
    owner, batches = _batches(encoder, clips, window_seconds)
    rows: Tensor | None = None
    for places in batches:
        scores: Tensor = head(embeddings[places].to(context.device)).log_softmax(dim=1).cpu()
        if rows is None:
            rows = scores.new_empty(len(owner), scores.shape[1])
        rows[places] = scores
    assert rows is not None, "there are clips"
    return average_by_clip(rows, owner, len(clips)).log_softmax(dim=1)


def embedding_bytes(encoder: Encoder, clips: Clips, window_seconds: float) -> int:
    """Return the size of the embeddings that `embed` returns, in bytes."""
    return len(_batches(encoder, clips, window_seconds)[0]) * encoder.embedding_size * 4


def fit_normalization(
    encoder: Encoder, clips: CorpusClips, window_seconds: float, context: RunContext
) -> None:
    """Fit the normalization of an encoder's features to windows as it is given them, zero-padded if a clip is shorter.

    BYOL-A's evaluation (arXiv:2103.06695) does so on the train clips of each task.

    Args:
        encoder: on the context's device.
        clips: train clips.
        window_seconds: length of the windows; ignored if the encoder takes whole clips.
        context: device.
    """
    _, batches = _cut(encoder, clips, window_seconds, context)
    encoder.fit_features(waveforms for _, waveforms, _ in batches)


def average_by_clip(values: Tensor, owner: Tensor, clips: int) -> Tensor:
    """Average rows over the windows of each clip.

    Args:
        values: shape (windows, n).
        owner: clip index of each window, shape (windows,).
        clips: number of clips; each has at least one window.

    Returns:
        Shape (clips, n).
    """
    total = values.new_zeros(clips, values.shape[1]).index_add_(0, owner, values)
    return total / torch.bincount(owner, minlength=clips)[:, None]


def _map_windows(
    encoder: Encoder,
    row: Callable[..., Tensor],
    clips: Clips,
    window_seconds: float,
    context: RunContext,
    title: str,
) -> tuple[Tensor, Tensor]:
    """Apply a function from features (batch, ...), and lengths if the encoder uses them, to rows (batch, n) to every window.

    Returns:
        The rows, shape (windows, n), on the CPU, and the clip index of each, shape (windows,), in the clips' order.
    """
    owner, batches = _cut(encoder, clips, window_seconds, context)
    unit = "clips" if encoder.whole_clip else "windows"
    rows: Tensor | None = None
    with context.progress.task(title, len(owner), unit) as task:
        for places, waveforms, lengths in batches:
            known = encoder.length_arguments(lengths)
            output = row(encoder.features(waveforms, *known), *known).cpu()
            if rows is None:
                # Filled in place: a list of batches would need twice the memory when it is concatenated.
                rows = output.new_empty(len(owner), output.shape[1])
            rows[places] = output
            task.advance(len(places))
    assert rows is not None, "there are clips"
    return rows, owner


def _cut(
    encoder: Encoder, clips: CorpusClips, window_seconds: float, context: RunContext
) -> WindowBatches:
    """Return the windows as the encoder is given them: whole clips, or windows of one length."""
    if encoder.whole_clip:
        return _whole(clips, context)
    return _windows(clips, window_seconds, not encoder.uses_lengths, context)


def _batches(
    encoder: Encoder, clips: Clips, window_seconds: float
) -> tuple[Tensor, Iterable[Tensor]]:
    """Return the clip index of each window, shape (windows,), and the window indices of each batch of `_cut`."""
    if encoder.whole_clip:
        return torch.arange(len(clips)), map(torch.from_numpy, clips_of_equal_length(clips.lengths))
    window = round(window_seconds * clips.rate)
    owner, _ = consecutive_windows(clips.lengths, window)
    return owner, _split(len(owner), window_seconds)


def _split(windows: int, window_seconds: float) -> tuple[Tensor, ...]:
    """Divide windows of one length into batches of their indices."""
    return torch.split(torch.arange(windows), max(1, int(SECONDS_A_BATCH / window_seconds)))


def _whole(clips: CorpusClips, context: RunContext) -> WindowBatches:
    """Return each clip as one window."""
    batches = whole_clip_batches(clips, context.device)
    return torch.arange(len(clips)), (
        (torch.from_numpy(places), x, full_lengths(x)) for places, x in batches
    )


def _windows(
    clips: CorpusClips, window_seconds: float, centered: bool, context: RunContext
) -> WindowBatches:
    """Return consecutive windows of one length over each clip; see `consecutive_windows`."""
    window = round(window_seconds * clips.rate)
    owner, offsets = consecutive_windows(clips.lengths, window, centered)
    lengths = torch.from_numpy(clips.lengths)[owner].clamp(max=window)
    on_device, places = to_device(clips, context.device), _split(len(owner), window_seconds)
    return owner, (
        (
            b,
            cut_windows(some, rows, offsets[b], window),
            lengths[b].to(context.device, non_blocking=True),
        )
        for b, (some, rows) in zip(places, on_device.batches(owner[b] for b in places), strict=True)
    )
