"""The multiscale transformer against loops and torch's own attention, its grids, and patches that are not seen."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from lape_bench.learning.encoders.log_mel import LogMelConfig
from lape_bench.learning.encoders.multiscale_transformer import (
    Block,
    MultiscaleTransformer,
    MultiscaleTransformerConfig,
    PoolingAttention,
    TokenPooling,
    downsample_mask,
    max_pool_tokens,
    sinusoidal_positions,
)

TINY: dict[str, Any] = {"width": 8, "depths": (1, 2, 1)}


def noise(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def mask(*shape: int, share: float = 0.5, seed: int = 0) -> Tensor:
    """True at random, and in the first place of each row of the batch."""
    kept = torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < share
    kept[:, 0, 0] = True
    return kept


def build(log_mel: LogMelConfig | None = None, **how: Any) -> MultiscaleTransformer:
    torch.manual_seed(0)
    config = MultiscaleTransformerConfig.model_validate(TINY | how)
    encoder = MultiscaleTransformer(config, log_mel)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "norm" in name:  # so that none is 1 or 0
                parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder.double()


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --- size -------------------------------------------------------------------------------------------------


def test_the_defaults_are_a_few_million_parameters_and_256_features() -> None:
    encoder = MultiscaleTransformer()
    assert 1e6 < count(encoder) < 5e6
    assert encoder.embedding_size == 256
    assert encoder.log_mel.config.n_mels == 128


@pytest.mark.parametrize(
    ("depths", "published"),
    [((1, 2, 5, 2), 24.17e6), ((1, 2, 11, 2), 34.87e6), ((2, 3, 16, 3), 51.47e6)],
)
def test_with_the_published_channels_and_blocks_it_is_as_large_as_mvitv2(
    depths: tuple[int, ...], published: float
) -> None:
    width, classifier = 96, 768 * 1000 + 1000
    # Stage by stage: what a first block has beyond the others is its narrower input, and the way around it.
    total = (16 * 16 + 1) * width + 2 * 768
    for stage, depth in enumerate(depths):
        d = width * 2**stage
        own = 2 * d + 4 * 4 * d + (3 * d * d + 3 * d) + (d * d + d) + (8 * d * d + 5 * d)
        pools = 3 * (9 * width + 2 * width)
        total += depth * (own - 4 * 4 * d + 2 * d + pools)
        if stage:
            total += 2 * (d // 2) - 2 * d - 3 * d * (d // 2) + (d // 2) * d + d
    assert total == pytest.approx(published - classifier, rel=0.01)
    small = MultiscaleTransformer(MultiscaleTransformerConfig(width=96, depths=(1, 1)))
    expected = 257 * 96 + 2 * 192
    expected += 2 * 96 + (3 * 96 * 96 + 3 * 96) + (96 * 96 + 96) + 3 * 11 * 96
    expected += 2 * 96 + (8 * 96 * 96 + 5 * 96)
    expected += 2 * 96 + (96 * 192 + 192) + (3 * 96 * 192 + 3 * 192) + (192 * 192 + 192)
    expected += 3 * 11 * 96 + 2 * 192 + (8 * 192 * 192 + 5 * 192)
    assert count(small) == expected


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"depths": (1, 0, 2)}, "every stage needs a block"),
        ({"depths": ()}, "depths"),
        ({"width": 10}, "width"),
        ({"patch": 8, "patch_stride": 10}, "leaves gaps: make it at most as large"),
    ],
    ids=str,
)
def test_sizes_that_cannot_be_are_refused(how: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MultiscaleTransformerConfig.model_validate(how)


# --- grids ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "grids"),
    [
        (101, [(13, 10), (7, 5), (4, 3), (2, 2)]),
        (1, [(13, 1), (7, 1), (4, 1), (2, 1)]),
        (512, [(13, 51), (7, 26), (4, 13), (2, 7)]),
    ],
)
def test_each_stage_halves_the_grid_and_doubles_the_channels(
    frames: int, grids: list[tuple[int, int]]
) -> None:
    encoder = build(depths=(1, 2, 1, 2)).eval()
    found: list[tuple[int, ...]] = []
    keys: list[tuple[int, ...]] = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda *given: found.append(tuple(given[2][0].shape[1:])))
        block.attention.pool_keys.register_forward_hook(
            lambda *given: keys.append(tuple(given[2].shape[2:4]))
        )
    encoder(noise(1, 128, frames))
    stages = (0, 1, 1, 2, 3, 3)
    assert found == [(*grids[stage], 8 * 2**stage) for stage in stages]
    # Of a block's input, keys and values are 4, 2, 2, 1, 1, 1 times coarser; a first block's input is the stage before.
    given = (0, 0, 1, 1, 2, 3)
    strides = (4, 2, 2, 1, 1, 1)
    assert keys == [
        (-(-grids[stage][0] // stride), -(-grids[stage][1] // stride))
        for stage, stride in zip(given, strides, strict=True)
    ]


@pytest.mark.parametrize("frames", [1, 11, 16, 17, 26, 27, 101, 1001])
def test_windows_of_any_length_are_embedded_and_every_band_and_frame_counts(frames: int) -> None:
    encoder = build()
    log_mels = noise(2, 128, frames).requires_grad_()
    rows, columns = encoder.grid(128, frames)
    assert rows == 13
    assert columns == len(
        range(0, max(1, frames - 6), 10)
    )  # a patch more for a frame more than 16, 26, ...
    embeddings = encoder(log_mels)
    assert embeddings.shape == (2, 32)
    embeddings.square().sum().backward()
    assert log_mels.grad is not None
    assert torch.isfinite(log_mels.grad).all()
    assert (log_mels.grad.abs().sum(dim=(0, 1)) > 0).all()
    assert (log_mels.grad.abs().sum(dim=(0, 2)) > 0).all()


def test_what_is_missing_of_the_last_patches_is_the_mean() -> None:
    encoder, log_mels = build(), noise(2, 128, 90)
    assert_close(encoder(log_mels), encoder(F.pad(log_mels, (0, 6, 0, 8))))


def test_patches_of_another_size_make_another_grid() -> None:
    encoder = build(patch=8, patch_stride=8)
    assert encoder.grid(128, 101) == (16, 13)
    assert encoder(noise(1, 128, 101)).shape == (1, 32)


# --- attention --------------------------------------------------------------------------------------------


def normed(x: NDArray[np.float64], norm: nn.LayerNorm) -> NDArray[np.float64]:
    weight, bias = (p.detach().numpy() for p in (norm.weight, norm.bias))
    return (x - x.mean()) / np.sqrt(x.var() + norm.eps) * weight + bias


def pooled_by_hand(
    grid: NDArray[np.float64], pool: TokenPooling, stride: int
) -> dict[tuple[int, int], NDArray[np.float64]]:
    """Slide a depthwise 3 x 3 kernel over a grid of vectors, (rows, columns, channels), and normalize what it gives."""
    kernel = pool.convolution.weight.detach().numpy()[:, 0]  # (channels, 3, 3)
    rows, columns, channels = grid.shape
    found = {}
    for i, j in itertools.product(range(0, rows, stride), range(0, columns, stride)):
        total = np.zeros(channels)
        for down, along in itertools.product((-1, 0, 1), (-1, 0, 1)):
            if 0 <= i + down < rows and 0 <= j + along < columns:
                total += kernel[:, down + 1, along + 1] * grid[i + down, j + along]
        found[i // stride, j // stride] = normed(total, pool.norm)
    return found


def attention_by_hand(
    attention: PoolingAttention, x: NDArray[np.float64], stride: int, keys_stride: int
) -> NDArray[np.float64]:
    """One clip's tokens, (rows, columns, inputs), a head and a query at a time."""
    w, b = (p.detach().numpy() for p in attention.in_projection.parameters())
    w_out, b_out = (p.detach().numpy() for p in attention.out_projection.parameters())
    projected = x @ w.T + b
    outputs = len(w_out)
    size = outputs // attention.heads
    out: dict[tuple[int, int], list[NDArray[np.float64]]] = {}
    for head in range(attention.heads):
        own = slice(head * size, (head + 1) * size)
        parts = [projected[:, :, k * outputs : (k + 1) * outputs][:, :, own] for k in range(3)]
        queries = pooled_by_hand(parts[0], attention.pool_queries, stride)
        keys = pooled_by_hand(parts[1], attention.pool_keys, keys_stride)
        values = pooled_by_hand(parts[2], attention.pool_values, keys_stride)
        for place, query in queries.items():
            weights = np.exp([query @ keys[k] / np.sqrt(size) for k in keys])
            weights /= weights.sum()
            attended = sum(a * values[k] for a, k in zip(weights, keys, strict=True))
            out.setdefault(place, []).append(attended + query)
    rows, columns = max(out)[0] + 1, max(j for _, j in out) + 1
    result = np.stack([np.concatenate(out[i, j]) for i in range(rows) for j in range(columns)])
    return (result @ w_out.T + b_out).reshape(rows, columns, outputs)


def attention(
    inputs: int, outputs: int, heads: int, stride: int, keys_stride: int
) -> PoolingAttention:
    torch.manual_seed(0)
    module = PoolingAttention(inputs, outputs, heads, stride, keys_stride).double()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter))
    return module


@pytest.mark.parametrize(("rows", "columns"), [(5, 3), (4, 1), (1, 1)])
@pytest.mark.parametrize(
    ("stride", "keys_stride", "heads"), [(1, 1, 1), (1, 4, 1), (2, 2, 2), (1, 2, 2), (2, 1, 4)]
)
def test_pooling_attention_agrees_with_a_loop_over_heads_and_queries(
    rows: int, columns: int, stride: int, keys_stride: int, heads: int
) -> None:
    module = attention(6, 8, heads, stride, keys_stride)
    x = noise(2, rows, columns, 6)
    found = module(x)
    for clip, given in zip(found, x, strict=True):
        expected = attention_by_hand(module, given.numpy(), stride, keys_stride)
        assert_close(clip.detach(), torch.from_numpy(expected))


class Unpooled(nn.Module):
    def forward(self, heads: Tensor) -> Tensor:
        return heads.permute(0, 1, 3, 4, 2)


def test_without_pooling_it_is_torchs_multi_head_attention_plus_the_queries() -> None:
    module = attention(8, 8, 2, 1, 1)
    module.pool_queries = module.pool_keys = module.pool_values = Unpooled()
    plain = nn.MultiheadAttention(8, 2, batch_first=True).double()
    plain.in_proj_weight, plain.in_proj_bias = module.in_projection.parameters()
    plain.out_proj.weight, plain.out_proj.bias = module.out_projection.parameters()
    x = noise(3, 2, 5, 8)
    tokens = x.flatten(1, 2)
    attended, _ = plain(tokens, tokens, tokens)
    queries = module.in_projection(tokens)[:, :, :8]
    expected = attended + F.linear(queries, module.out_projection.weight)
    assert_close(module(x).flatten(1, 2), expected)


def test_a_block_adds_attention_and_a_perceptron_to_the_highest_of_its_input() -> None:
    torch.manual_seed(0)
    keeping, halving = Block(8, 8, 2, 1, 1).double(), Block(4, 8, 2, 2, 1).double()
    x = noise(2, 5, 3, 8)
    found, _ = keeping(x)
    between = x + keeping.attention(keeping.attention_norm(x))
    assert_close(found, between + keeping.mlp(between))
    x = noise(2, 5, 3, 4)
    found, _ = halving(x)
    given = halving.attention_norm(x)
    between = max_pool_tokens(halving.wider(given), None, 2) + halving.attention(given)
    assert found.shape == (2, 3, 2, 8)
    assert_close(found, between + halving.mlp(between))


@pytest.mark.parametrize("kept", [None, mask(2, 5, 4, share=0.4)], ids=["all", "some"])
def test_the_highest_is_the_maximum_of_what_is_seen_of_three_by_three(kept: Tensor | None) -> None:
    x = noise(2, 5, 4, 3)
    found = max_pool_tokens(x, kept, 2)
    seen = torch.ones(2, 5, 4, dtype=torch.bool) if kept is None else kept
    assert found.shape == (2, 3, 2, 3)
    assert torch.isfinite(found).all()
    for clip, i, j in itertools.product(range(2), range(3), range(2)):
        around = [
            x[clip, row, column]
            for row in range(max(0, 2 * i - 1), min(5, 2 * i + 2))
            for column in range(max(0, 2 * j - 1), min(4, 2 * j + 2))
            if seen[clip, row, column]
        ]
        if around:
            assert torch.equal(found[clip, i, j], torch.stack(around).amax(dim=0))


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_coarser_token_is_seen_where_any_of_its_square_was(stride: int) -> None:
    kept = mask(3, 5, 7, share=0.2)
    found = downsample_mask(kept, stride)
    assert found is not None
    assert found.shape == (3, -(-5 // stride), -(-7 // stride))
    for clip, i, j in itertools.product(*map(range, found.shape)):
        square = kept[clip, i * stride : (i + 1) * stride, j * stride : (j + 1) * stride]
        assert bool(found[clip, i, j]) == bool(square.any())


# --- patches that are not seen ----------------------------------------------------------------------------


def test_where_every_patch_is_seen_nothing_changes() -> None:
    encoder, log_mels = build(), noise(2, 128, 57)
    kept = torch.ones(2, *encoder.grid(128, 57), dtype=torch.bool)
    assert_close(encoder(log_mels, kept), encoder(log_mels))


def test_what_is_in_a_patch_that_is_not_seen_does_not_matter() -> None:
    encoder, log_mels = build(patch=16, patch_stride=16), noise(2, 128, 64)
    kept = mask(2, 8, 4)
    other = log_mels.clone()
    unseen = ~kept.repeat_interleave(16, dim=1).repeat_interleave(16, dim=2)
    other[unseen] = torch.nan
    expected = encoder(log_mels, kept)
    assert_close(encoder(other, kept), expected)
    other[0, :16, :16] += 1  # of a seen one it does
    assert not torch.allclose(encoder(other, kept)[0], expected[0])


@pytest.mark.parametrize("seen", range(1, 7))
def test_patches_that_are_not_seen_are_as_if_the_window_ended_before_them(seen: int) -> None:
    encoder, log_mels = build(depths=(1, 2, 1, 2)), noise(2, 128, 66)
    kept = torch.zeros(2, *encoder.grid(128, 66), dtype=torch.bool)
    assert kept.shape == (2, 13, 6)
    kept[:, :, :seen] = True
    assert_close(encoder(log_mels, kept), encoder(log_mels[:, :, : 6 + 10 * seen]))


def test_gradients_are_finite_with_a_single_patch_of_a_clip() -> None:
    encoder, log_mels = build(), noise(2, 128, 57)
    kept = torch.zeros(2, *encoder.grid(128, 57), dtype=torch.bool)
    kept[0, 3, 2] = kept[1, 12, 5] = True
    encoder(log_mels, kept).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())


# --- positions --------------------------------------------------------------------------------------------


def test_positions_are_sines_and_cosines_of_the_row_and_of_the_column() -> None:
    found = sinusoidal_positions(3, 5, 16, torch.device("cpu"))
    for i, j in itertools.product(range(3), range(5)):
        expected = [
            wave(place / 10_000 ** (k / 4))
            for place in (i, j)
            for wave in (np.sin, np.cos)
            for k in range(4)
        ]
        assert_close(found[i, j], torch.tensor(expected).float())


def test_a_place_has_the_same_position_in_a_window_of_any_length() -> None:
    device = torch.device("cpu")
    assert torch.equal(
        sinusoidal_positions(13, 101, 32, device)[:, :10], sinusoidal_positions(13, 10, 32, device)
    )
    places = sinusoidal_positions(13, 101, 32, device).flatten(0, 1)
    distance = torch.cdist(places, places) + 9 * torch.eye(len(places))
    assert distance.min() > 0.1  # no two places are alike


@pytest.mark.parametrize("axis", [1, 2], ids=["frequency", "time"])
def test_where_something_sounds_matters(axis: int) -> None:
    # Of whole patches that do not overlap, so that turning them round changes their places alone.
    encoder = build(patch=16, patch_stride=16, depths=(1,))
    log_mels = noise(1, 128, 64)
    for pool in ("pool_queries", "pool_keys", "pool_values"):
        kernel = getattr(encoder.blocks[0].attention, pool).convolution.weight
        with torch.no_grad():
            kernel.zero_()[:, :, 1, 1] = 1  # sees no neighbor, which would tell places too
    encoder.blocks[0].attention.pool_keys.convolution.stride = (1, 1)
    encoder.blocks[0].attention.pool_values.convolution.stride = (1, 1)
    turned = torch.cat(log_mels.split(16, dim=axis)[::-1], dim=axis)
    plain, moved = encoder(log_mels), encoder(turned)
    assert not torch.allclose(plain, moved, atol=1e-3)


# --- an encoder -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_a_clip_does_not_depend_on_the_clips_beside_it_nor_on_the_mode(training: bool) -> None:
    encoder, log_mels = build().train(training), noise(5, 128, 31)
    together = encoder(log_mels)
    assert torch.equal(encoder(log_mels), together)
    assert_close(encoder(log_mels[:1]), together[:1])
    log_mels[1:] *= 50
    assert_close(encoder(log_mels)[:1], together[:1])


def test_features_are_normalized_by_what_was_fitted_and_saved_with_the_encoder() -> None:
    encoder, other = (MultiscaleTransformer(MultiscaleTransformerConfig(**TINY)) for _ in range(2))
    waveforms = 0.1 * noise(4, 4_000).float()
    raw = encoder.features(waveforms)
    assert raw.shape == (4, 128, 26)
    encoder.fit_features([waveforms])
    assert_close(encoder.features(waveforms), (raw - raw.mean()) / raw.std(correction=0))
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other.features(waveforms), encoder.features(waveforms))


def test_the_front_end_decides_bands_and_rate() -> None:
    log_mel = LogMelConfig(sample_rate=8_000, n_fft=512, n_mels=40, fmax_hz=3_900.0)
    encoder = build(log_mel)
    assert encoder.sample_rate == 8_000
    assert encoder.grid(40, 51) == (4, 5)
    assert encoder(encoder.features(noise(2, 8_000).float()).double()).shape == (2, 32)


def test_in_bf16_the_embedding_is_about_the_same_and_sums_stay_in_float32() -> None:
    encoder = build().float().eval()
    kinds: list[torch.dtype] = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda *given: kinds.append(given[2][0].dtype))
    log_mels, kept = noise(4, 128, 101).float(), mask(4, 13, 10, share=0.8)
    with torch.no_grad():
        for given in (None, kept):
            expected = encoder(log_mels, given)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = encoder(log_mels, given)
            assert_close(found.float(), expected, rtol=0.05, atol=0.05)
    assert set(kinds) == {torch.float32}


@pytest.mark.parametrize("clips", [1, 8, 16, 24])
def test_a_window_of_a_single_patch_is_embedded_in_bf16_as_in_float32(clips: int) -> None:
    encoder = build().float().eval()
    features = torch.randn(clips, 128, 11)
    junk = [torch.full((1 << 18,), torch.nan) for _ in range(8)]
    del junk  # what a kernel that reads too far would find
    with torch.no_grad():
        exact = encoder(features)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = encoder(features)
    assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)


def test_each_block_is_a_layer_and_every_parameter_belongs_to_one() -> None:
    encoder = build()
    layers = encoder.layers_of_parameters()
    assert [len(layer) for layer in layers] == [
        len([name for name, _ in encoder.named_parameters() if name.startswith(beginning)])
        for beginning in ("patches.", "blocks.0.", "blocks.1.", "blocks.2.", ("blocks.3.", "norm."))
    ]
    assert [*map(id, itertools.chain(*layers))] == [*map(id, encoder.parameters())]
