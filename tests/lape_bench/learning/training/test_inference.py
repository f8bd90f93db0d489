"""Whole clips through a model, against a loop over clips and their windows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.data.audio_store import Clips
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.base import Encoder
from lape_bench.learning.training import inference
from lape_bench.learning.training.inference import (
    average_by_clip,
    class_log_probabilities,
    embed,
    embedding_bytes,
    log_probabilities_of_embeddings,
)
from lape_bench.system import RunContext

RATE, WINDOW = 100, 50
WINDOW_SECONDS = WINDOW / RATE
LENGTHS = [50, 120, 20, 54, 300, 50, 56, 1]
CLASSES = 3


class Pooled(Encoder):
    """Some numbers of a waveform, and batch norm and dropout, which must be off in scoring."""

    sample_rate = RATE
    embedding_size = 4

    def __init__(self, whole_clip: bool = False) -> None:
        super().__init__()
        self.whole_clip = whole_clip
        self.seen: list[int] = []
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)

    def features(self, waveforms: Tensor) -> Tensor:
        self.seen += [waveforms.shape[1]] * len(waveforms)
        early = waveforms[:, : (waveforms.shape[1] + 1) // 2]
        return torch.stack(
            [waveforms.amax(1), waveforms.sum(1), waveforms.square().mean(1), early.sum(1)], dim=1
        )

    def forward(self, features: Tensor) -> Tensor:
        embeddings: Tensor = self.drop(self.norm(features))
        return embeddings


@pytest.fixture
def clips() -> Clips:
    random = np.random.default_rng(0)
    waveforms = [random.normal(0, 1, length).astype(np.float32) for length in LENGTHS]
    return Clips.pack([f"clip {length}" for length in range(len(LENGTHS))], waveforms, RATE)


def model(whole_clip: bool = False) -> tuple[Pooled, nn.Linear]:
    """Return an encoder and a head that were left in training mode."""
    torch.manual_seed(0)
    encoder, head = Pooled(whole_clip), nn.Linear(4, CLASSES)
    encoder(torch.randn(64, 4) * 3 + 1)
    return encoder.train(), head.train()


def windows_by_hand(clip: np.ndarray) -> list[np.ndarray]:
    """Windows of a clip as the protocol lays them, short clips padded in the middle."""
    length = len(clip)
    if length < WINDOW:
        before = -((length - WINDOW) // 2)
        return [np.pad(clip, (before, WINDOW - length - before))]
    count = max(1, length // WINDOW + (length % WINDOW > WINDOW / 10))
    if count == 1:
        offsets = [(length - WINDOW) // 2]
    else:
        offsets = [n * (length - WINDOW) // (count - 1) for n in range(count)]
    return [clip[offset : offset + WINDOW] for offset in offsets]


def embedding_by_hand(encoder: Pooled, waveform: np.ndarray) -> np.ndarray:
    x = waveform.astype(np.float64)
    values = [x.max(), x.sum(), (x**2).mean(), x[: (len(x) + 1) // 2].sum()]
    mean, variance = (
        t.double().numpy() for t in (encoder.norm.running_mean, encoder.norm.running_var)
    )
    return (np.array(values) - mean) / np.sqrt(variance + encoder.norm.eps)


def scores_by_hand(encoder: Pooled, head: nn.Linear, clips: Clips) -> Tensor:
    weight, bias = (t.detach().double().numpy() for t in (head.weight, head.bias))
    rows = []
    for index in range(len(clips)):
        parts = [clips[index]] if encoder.whole_clip else windows_by_hand(clips[index])
        by_window = []
        for part in parts:
            z = weight @ embedding_by_hand(encoder, part) + bias
            by_window.append(z - np.log(np.exp(z).sum()))
        row = np.mean(by_window, axis=0)
        rows.append(row - np.log(np.exp(row).sum()))
    return torch.from_numpy(np.stack(rows))


def score(encoder: Encoder, head: nn.Module, clips: Clips, context: RunContext) -> Tensor:
    return class_log_probabilities(encoder, head, clips, WINDOW_SECONDS, context)


@pytest.mark.parametrize("whole_clip", [False, True], ids=["windows", "whole clips"])
@pytest.mark.parametrize("seconds_a_batch", [0.1, 1.0, 64.0])
def test_scores_agree_with_a_loop_over_clips_and_their_windows(
    clips: Clips,
    context: RunContext,
    monkeypatch: pytest.MonkeyPatch,
    whole_clip: bool,
    seconds_a_batch: float,
) -> None:
    monkeypatch.setattr(inference, "SECONDS_A_BATCH", seconds_a_batch)
    encoder, head = model(whole_clip)
    expected = scores_by_hand(encoder, head, clips)
    found = score(encoder, head, clips, context)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    assert_close(found.exp().sum(dim=1), torch.ones(len(clips)))


def test_averaging_log_probabilities_is_not_averaging_probabilities(
    clips: Clips, context: RunContext
) -> None:
    encoder, head = model()
    long = clips.select([4])
    by_window = [
        torch.from_numpy(embedding_by_hand(encoder, part)).float()
        for part in windows_by_hand(long[0])
    ]
    probabilities = torch.stack([head(z).softmax(0) for z in by_window]).mean(0)
    found = score(encoder, head, long, context)[0].exp()
    assert (found - probabilities).abs().max() > 0.01


@pytest.mark.parametrize("whole_clip", [False, True], ids=["windows", "whole clips"])
def test_a_score_does_not_depend_on_the_order_of_clips_nor_on_their_company(
    clips: Clips, context: RunContext, whole_clip: bool
) -> None:
    encoder, head = model(whole_clip)
    expected = score(encoder, head, clips, context)
    order = [3, 7, 0, 2, 6, 1, 5, 4]
    assert_close(score(encoder, head, clips.select(order), context), expected[order])
    for index in range(len(clips)):
        alone = score(encoder, head, clips.select([index]), context)
        assert_close(alone, expected[index : index + 1])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_audio_ntt_scores_a_clip_alone_as_in_company(context: RunContext, precision: str) -> None:
    context = replace(context, precision=precision)
    random = np.random.default_rng(0)
    waveforms = [random.normal(0, 0.1, n).astype(np.float32) for n in (9_000, 2_000, 4_800, 4_800)]
    clips = Clips.pack(list("abcd"), waveforms, 16_000)
    torch.manual_seed(0)
    encoder, head = AudioNTT(8), nn.Linear(8, CLASSES)
    together = class_log_probabilities(encoder, head, clips, 0.3, context)
    assert together.dtype == torch.float32
    for index in range(len(clips)):
        alone = class_log_probabilities(encoder, head, clips.select([index]), 0.3, context)
        tolerance = 1e-5 if precision == "float32" else 2e-2
        assert_close(alone[0], together[index], rtol=0, atol=tolerance)


@pytest.mark.parametrize("whole_clip", [False, True], ids=["windows", "whole clips"])
@pytest.mark.parametrize("seconds_a_batch", [0.5, 64.0])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_scores_of_embeddings_are_those_of_the_clips_to_the_byte(
    context: RunContext,
    monkeypatch: pytest.MonkeyPatch,
    whole_clip: bool,
    seconds_a_batch: float,
    precision: str,
) -> None:
    monkeypatch.setattr(inference, "SECONDS_A_BATCH", seconds_a_batch)
    context = replace(context, precision=precision)
    random = np.random.default_rng(0)
    lengths = (9_000, 2_000, 4_800, 4_800, 7_000)
    waveforms = [random.normal(0, 0.1, length).astype(np.float32) for length in lengths]
    clips = Clips.pack(list("abcde"), waveforms, 16_000)
    torch.manual_seed(0)
    encoder, head = AudioNTT(8), nn.Linear(8, CLASSES)
    encoder.whole_clip = whole_clip
    expected = class_log_probabilities(encoder, head, clips, 0.3, context)
    embeddings, _ = embed(encoder, clips, 0.3, context)
    assert embedding_bytes(encoder, clips, 0.3) == embeddings.nbytes
    found = log_probabilities_of_embeddings(encoder, head, embeddings, clips, 0.3, context)
    assert torch.equal(found, expected)


def test_the_head_computes_in_float32_under_bf16(clips: Clips, context: RunContext) -> None:
    class Watched(nn.Linear):
        def forward(self, embeddings: Tensor) -> Tensor:
            scores = super().forward(embeddings)
            assert (embeddings.dtype, scores.dtype) == (torch.float32, torch.float32)
            return scores

    encoder, _ = model()
    score(encoder, Watched(4, CLASSES), clips, replace(context, precision="bf16"))


def test_scoring_leaves_weights_statistics_and_randomness_alone(
    clips: Clips, context: RunContext
) -> None:
    encoder, head = model()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    state = torch.get_rng_state()
    score(encoder, head, clips, context)
    assert_close(dict(encoder.state_dict()), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_whole_clip_encoder_sees_each_clip_once_at_its_own_length(
    clips: Clips, context: RunContext
) -> None:
    encoder, head = model(whole_clip=True)
    score(encoder, head, clips, context)
    assert sorted(encoder.seen) == sorted(LENGTHS)


class MeanOfRealSamples(Encoder):
    """The mean of the real samples, so that padding would be seen, and how many there are."""

    sample_rate = RATE
    embedding_size = 2
    uses_lengths = True

    def features(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        assert lengths is not None
        places = torch.arange(waveforms.shape[1])
        assert not waveforms[places >= lengths[:, None]].any(), "zeros follow the clip"
        return waveforms

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        assert lengths is not None
        return torch.stack([features.sum(dim=1) / lengths, lengths.float()], dim=1)


@pytest.mark.parametrize("whole_clip", [False, True], ids=["windows", "whole clips"])
def test_an_encoder_that_uses_lengths_is_given_the_real_samples_of_each_window(
    clips: Clips, context: RunContext, whole_clip: bool
) -> None:
    encoder = MeanOfRealSamples()
    encoder.whole_clip = whole_clip
    found, owner = embed(encoder, clips, WINDOW_SECONDS, context)
    expected = []
    for index in range(len(clips)):
        clip = clips[index]
        short = whole_clip or len(clip) < WINDOW
        parts = [clip] if short else windows_by_hand(clip)
        expected += [(float(part.mean(dtype=np.float64)), float(len(part))) for part in parts]
    assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)
    classes = nn.Linear(2, CLASSES)
    scores = class_log_probabilities(encoder, classes, clips, WINDOW_SECONDS, context)
    by_window = classes(torch.tensor(expected)).log_softmax(dim=1)
    averaged = average_by_clip(by_window, owner, len(clips)).log_softmax(dim=1)
    assert_close(scores, averaged.detach(), rtol=1e-4, atol=1e-4)


def test_a_window_encoder_sees_windows_alone(clips: Clips, context: RunContext) -> None:
    encoder, head = model()
    score(encoder, head, clips, context)
    assert encoder.seen == [WINDOW] * sum(len(windows_by_hand(clips[i])) for i in range(len(clips)))


@pytest.mark.parametrize("whole_clip", [False, True], ids=["windows", "whole clips"])
def test_embeddings_come_in_the_order_of_clips_and_windows(
    clips: Clips, context: RunContext, whole_clip: bool
) -> None:
    encoder, _ = model(whole_clip)
    rows, owners = [], []
    for index in range(len(clips)):
        for part in [clips[index]] if whole_clip else windows_by_hand(clips[index]):
            rows.append(embedding_by_hand(encoder, part))
            owners.append(index)
    embeddings, owner = embed(encoder, clips, WINDOW_SECONDS, context)
    assert owner.tolist() == owners
    assert_close(embeddings.double(), torch.from_numpy(np.stack(rows)), rtol=1e-4, atol=1e-4)


def test_the_average_by_clip_agrees_with_numpy_whatever_the_order_of_windows() -> None:
    values = torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    owner = torch.tensor([2, 0, 1, 1, 0, 2, 2, 1, 1])
    expected = np.stack([values.numpy()[owner.numpy() == clip].mean(axis=0) for clip in range(3)])
    assert_close(average_by_clip(values, owner, 3), torch.from_numpy(expected))
