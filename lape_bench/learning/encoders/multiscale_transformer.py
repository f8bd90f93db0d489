"""The multiscale audio spectrogram transformer of MAST (arXiv:2211.01515), which is MViTv2 (arXiv:2112.01526) on log-mels.

A log-mel of 128 bands is cut into overlapping patches, and each becomes a token. Stages of transformer blocks follow: the
first block of every later stage halves the grid of tokens along frequency and along time, and doubles the channels.
Attention pools as well: its keys and values come from a grid coarser by 4 in the first stage, and in the others by so
much less that every stage but the last attends to a grid of about the same size. What is left is averaged.

Published sizes: patches of 16 x 16 at strides of 10; 96 channels and one head in the first stage, 768 channels and 8 heads in
the last; blocks (1, 2, 11, 2) in the paper's figure and (2, 3, 16, 3) in the authors' configuration (MViTv2-S and MViTv2-B, 34
and 51 million parameters). They are reached by `width=96 depths=[1,2,11,2]`. The defaults are MViTv2-T's blocks at a third of
its channels, 2.6 million parameters, for 1,800 clips and two cores; they were not tuned. The authors' code can start from
ImageNet; here weights are random.

From MViTv2, as in the authors' code: queries, keys and values each pooled by a depthwise 3 x 3 convolution that the heads
share, with layer norm; the pooled queries added to what they attend to; channels that grow in the attention. Departures:
tokens pass a last layer norm before they are averaged, which the authors' code leaves out; positions are
fixed sines and cosines added to the patches, where MViTv2 learns biases for relative positions of a fixed grid, so that a
window of any length has them and no parameter depends on it; and zeros complete the last patches, where AST leaves up to
9 frames and the two highest bands out. As in the authors' code there is no mask: the padding of a clip that is shorter than a
window is attended to and averaged, so the encoder does not use lengths.
"""

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from lape_bench.core.config import Config
from lape_bench.learning.encoders.log_mel import LogMel, LogMelConfig, LogMelEncoder

N_MELS = 128
KEYS_STRIDE = 4  # of keys and values in the first stage
SLOWEST = 10_000  # patches to a radian of the slowest sine, about


class MultiscaleTransformerConfig(Config):
    """Size of a multiscale spectrogram transformer."""

    width: int = Field(
        32,
        ge=4,
        multiple_of=4,
        description="channels of the first stage and of a head, doubled by every later stage; published 96",
    )
    depths: tuple[int, ...] = Field(
        (1, 2, 5, 2),
        min_length=1,
        description="blocks of each stage; published (1, 2, 11, 2) or (2, 3, 16, 3)",
    )
    patch: int = Field(16, ge=1, description="bands and frames of a patch")
    patch_stride: int = Field(10, ge=1, description="bands and frames from a patch to the next")

    @model_validator(mode="after")
    def _every_stage_has_blocks_and_patches_leave_no_gaps(self) -> Self:
        if min(self.depths) < 1:
            raise ValueError(f"depths is {self.depths}, and every stage needs a block")
        if self.patch_stride > self.patch:
            raise ValueError(
                f"patch_stride is {self.patch_stride} and patch {self.patch}, which leaves gaps: "
                "make it at most as large"
            )
        return self


class MultiscaleTransformer(LogMelEncoder):
    """A transformer whose tokens become fewer and wider from stage to stage.

    Args:
        config: its size.
        log_mel: the front end.
    """

    artifact_name = "multiscale-transformer"

    cuda_graphable = True

    def __init__(
        self, config: MultiscaleTransformerConfig | None = None, log_mel: LogMelConfig | None = None
    ) -> None:
        super().__init__()
        config = config or MultiscaleTransformerConfig()
        self.log_mel = LogMel(log_mel or LogMelConfig(n_mels=N_MELS))
        self.sample_rate = self.log_mel.config.sample_rate
        self.patch, self.patch_stride = config.patch, config.patch_stride
        self.patches = nn.Conv2d(1, config.width, config.patch, config.patch_stride)
        self.blocks = nn.ModuleList()
        channels = config.width
        for stage, depth in enumerate(config.depths):
            heads, keys_stride = 2**stage, max(1, KEYS_STRIDE // 2**stage)
            for block in range(depth):
                stride = 2 if stage and not block else 1
                wider = config.width * heads
                self.blocks.append(Block(channels, wider, heads, stride, keys_stride))
                channels = wider
        self.norm = nn.LayerNorm(channels)
        self.embedding_size = channels

    def grid(self, n_mels: int, frames: int) -> tuple[int, int]:
        """Return the rows and columns of the grid of patches over a log-mel spectrogram."""
        missing = (max(0, size - self.patch) for size in (n_mels, frames))
        rows, columns = (1 + -(-each // self.patch_stride) for each in missing)
        return rows, columns

    def forward(self, features: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        """Embed log-mels of shape (batch, n_mels, frames).

        Args:
            features: the log-mels; zeros, their mean, complete the last patches.
            keep_mask: True for patches that are kept, shape (batch, rows, columns) of `grid`, at least one of each clip; None
                keeps all. A dropped patch is treated as lying beyond the edge: no convolution, attention or average sees it.
                Kept patches that overlap it are unchanged.

        Returns:
            Shape (batch, embedding_size).
        """
        x = self._tokens(features)
        for block in self.blocks:
            x, keep_mask = block(x, keep_mask)
        tokens: Tensor = self.norm(x)
        if keep_mask is None:
            return tokens.mean(dim=(1, 2))
        total = tokens.masked_fill(~keep_mask.unsqueeze(-1), 0).sum(dim=(1, 2))
        return total / keep_mask.sum(dim=(1, 2)).unsqueeze(-1)

    def layers_of_parameters(self) -> list[list[nn.Parameter]]:
        """Return the parameters of the patches, and of each block; the last has those of the last norm too."""
        layers = [[*part.parameters()] for part in (self.patches, *self.blocks)]
        layers[-1].extend(self.norm.parameters())
        return layers

    def _tokens(self, features: Tensor) -> Tensor:
        """Return the embedded patches plus their positions, shape (batch, rows, columns, width)."""
        n_mels, frames = features.shape[1:]
        rows, columns = self.grid(n_mels, frames)
        # At least two columns: in bf16 on CPUs with AMX, oneDNN reads beyond an input that is one patch wide.
        computed = max(columns, 2)
        height, length = (self.patch + self.patch_stride * (n - 1) for n in (rows, computed))
        padded = F.pad(features, (0, length - frames, 0, height - n_mels))
        patches: Tensor = self.patches(padded.unsqueeze(1))[..., :columns].permute(0, 2, 3, 1)
        # The sum and its terms are in float32 even under autocast.
        return patches + sinusoidal_positions(rows, columns, patches.shape[3], patches.device)


class Block(nn.Module):
    """A transformer block with pooling attention (arXiv:2104.11227), normalized before each part.

    Args:
        inputs: channels of a token.
        outputs: channels after the block.
        heads: attention heads.
        stride: 2 halves the grid of tokens, 1 keeps it.
        keys_stride: how much coarser than the input's grid that of keys and values is.
    """

    def __init__(
        self, inputs: int, outputs: int, heads: int, stride: int, keys_stride: int
    ) -> None:
        super().__init__()
        self.stride = stride
        self.attention_norm = nn.LayerNorm(inputs)
        self.attention = PoolingAttention(inputs, outputs, heads, stride, keys_stride)
        self.wider = nn.Linear(inputs, outputs) if inputs != outputs else None
        self.mlp = nn.Sequential(
            nn.LayerNorm(outputs),
            nn.Linear(outputs, 4 * outputs),
            nn.GELU(),
            nn.Linear(4 * outputs, outputs),
        )

    def forward(self, x: Tensor, keep_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return the tokens after the block, and the mask of those that are kept.

        Args:
            x: tokens, shape (batch, rows, columns, inputs).
            keep_mask: True for tokens that are kept, shape (batch, rows, columns); None keeps all.

        Returns:
            Tokens, shape (batch, rows / stride, columns / stride, outputs) with sizes rounded up, and the mask in the first
            three of these dimensions, or None.
        """
        normed = self.attention_norm(x)
        short = x if self.wider is None else self.wider(normed).to(x.dtype)
        x = max_pool_tokens(short, keep_mask, self.stride) + self.attention(normed, keep_mask)
        return x + self.mlp(x), downsample_mask(keep_mask, self.stride)


class PoolingAttention(nn.Module):
    """Multi-head attention whose queries, keys and values are pooled first (arXiv:2104.11227, Sec. 3.1).

    The pooled queries are added to what they attend to (arXiv:2112.01526, Sec. 3.1).
    """

    def __init__(
        self, inputs: int, outputs: int, heads: int, stride: int, keys_stride: int
    ) -> None:
        super().__init__()
        self.heads, self.keys_stride = heads, keys_stride
        self.in_projection = nn.Linear(inputs, 3 * outputs)
        self.pool_queries = TokenPooling(outputs // heads, stride)
        self.pool_keys = TokenPooling(outputs // heads, keys_stride)
        self.pool_values = TokenPooling(outputs // heads, keys_stride)
        self.out_projection = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        """Return the attended values plus the pooled queries; shapes as of `Block`."""
        projected = self.in_projection(x)
        if keep_mask is not None:
            projected = projected.masked_fill(~keep_mask.unsqueeze(-1), 0)
        # each (batch, heads, outputs / heads, rows, columns)
        q, k, v = projected.unflatten(3, (3, self.heads, -1)).permute(3, 0, 4, 5, 1, 2)
        seen = downsample_mask(keep_mask, self.keys_stride)
        mask = None if seen is None else seen.flatten(1)[:, None, None]  # (batch, 1, 1, keys)
        # In float32 even under autocast: on a CPU, both steps are several times slower in bf16.
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = (each.to(x.dtype) for each in (q, k, v))
            q, k, v = self.pool_queries(q), self.pool_keys(k), self.pool_values(v)
            rows, columns = q.shape[2:4]
            q, k, v = (each.flatten(2, 3) for each in (q, k, v))  # (batch, heads, tokens, channels)
            attended = F.scaled_dot_product_attention(q, k, v, mask) + q
        together = attended.transpose(1, 2).flatten(2).unflatten(1, (rows, columns))
        out: Tensor = self.out_projection(together)
        return out


class TokenPooling(nn.Module):
    """A depthwise 3 x 3 convolution over the grid of tokens, the same for every head, and layer norm."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(
            channels, channels, 3, stride, padding=1, groups=channels, bias=False
        )
        self.norm = nn.LayerNorm(channels)

    def forward(self, heads: Tensor) -> Tensor:
        """Turn (batch, heads, channels, rows, columns) into (batch, heads, rows / stride, columns / stride, channels)."""
        pooled = self.convolution(heads.flatten(0, 1)).unflatten(0, heads.shape[:2])
        normed: Tensor = self.norm(pooled.permute(0, 1, 3, 4, 2))
        return normed


def max_pool_tokens(x: Tensor, keep_mask: Tensor | None, stride: int) -> Tensor:
    """Max-pool kept tokens over 3 x 3 neighbors; stride 1 returns the tokens unchanged.

    Args:
        x: tokens, shape (batch, rows, columns, channels).
        keep_mask: True for tokens that are kept, shape (batch, rows, columns); None keeps all.
        stride: from one pooled token to the next.

    Returns:
        Shape (batch, rows / stride, columns / stride, channels) with sizes rounded up.
    """
    if stride == 1:
        return x
    if keep_mask is not None:
        x = x.masked_fill(~keep_mask.unsqueeze(-1), -torch.inf)
    pooled = F.max_pool2d(x.permute(0, 3, 1, 2), 3, stride, padding=1).permute(0, 2, 3, 1)
    # If no token was kept, the result is masked too: any finite number will do.
    return pooled if keep_mask is None else pooled.masked_fill(pooled == -torch.inf, 0)


def downsample_mask(keep_mask: Tensor | None, stride: int) -> Tensor | None:
    """Keep a token of a coarser grid if any token of its `stride` x `stride` square is kept.

    So a grid without its last columns becomes a shorter grid. A 3 x 3 convolution does not read all of a 4 x 4 square: if most
    patches are dropped, a coarse token may be kept without having read a kept patch.

    Args:
        keep_mask: True for tokens that are kept, shape (batch, rows, columns); None keeps all.
        stride: how much coarser the grid becomes.

    Returns:
        Shape (batch, rows / stride, columns / stride) with sizes rounded up, or None.
    """
    if keep_mask is None or stride == 1:
        return keep_mask
    return F.max_pool2d(keep_mask.float(), stride, ceil_mode=True) > 0


def sinusoidal_positions(rows: int, columns: int, channels: int, device: torch.device) -> Tensor:
    """Return fixed position embeddings of a grid: sines and cosines (arXiv:1706.03762, Sec. 3.5) of row and column.

    Returns:
        Shape (rows, columns, channels): a quarter of the channels each for sines and cosines of the row, then of the
        column.
    """
    quarter = channels // 4
    rates = SLOWEST ** -(torch.arange(quarter, device=device) / quarter)
    axes = []
    for size in (rows, columns):
        angles = torch.arange(size, device=device)[:, None] * rates
        axes.append(torch.cat([angles.sin(), angles.cos()], dim=1))
    by_row, by_column = axes
    shape = (rows, columns, -1)
    return torch.cat([by_row[:, None].expand(shape), by_column.expand(shape)], dim=2)
