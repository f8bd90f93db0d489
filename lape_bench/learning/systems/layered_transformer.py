"""Transformers that were pre-trained elsewhere: which layer is the embedding.

Layers are numbered as in SUPERB (arXiv:2105.01051): layer 0 is the input of the first block, layer k the output of block k,
before any normalization that the model applies to the last block. Each is averaged over the time that a clip fills. If a layer is given by its
number, the blocks behind it are removed: they are neither computed nor counted. For layer 0 the first block stays.

The weighted sum of layers is learned in fine-tuning, and, as in SUPERB, by linear evaluation: the encoder then returns the embeddings of
all layers, and the probe sums them (`weighted_layers`).
"""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from lape_bench.core.errors import UserError
from lape_bench.learning.systems.adapter import AdaptedEncoder, Adapter
from lape_bench.learning.systems.encoder_system import EncoderConfig, ProbeConfig
from lape_bench.learning.systems.padding_mask import average_frames
from lape_bench.learning.training.finetune import FinetuneConfig
from lape_bench.system import ProtocolName, TargetTask

CONVOLUTIONS = "feature_extractor"  # as transformers and torchaudio name them
LAST, MEAN, WEIGHTED = "last", "mean", "weighted"
CONCATENATED = "concatenated"  # what linear evaluation sums; not a setting


class LayeredConfig(EncoderConfig):
    """Settings of a transformer that was pre-trained elsewhere.

    The learning rate of 3e-5, warm-up over a tenth of the steps and the frozen convolutions are those of transformers' own example of
    fine-tuning wav2vec 2.0 on keywords. Such models normalize
    their input, or were trained at the loudness of their corpus: by default there is no random gain.
    """

    layer: int | str = Field(
        LAST,
        description="last: the output of the model; a number: the output of that block, 0 for the input of the first; "
        "mean: the mean of all of these; weighted: their learned weighted sum, with finetune or linear",
    )
    finetune: FinetuneConfig = Field(
        default_factory=lambda: FinetuneConfig(
            learning_rates=(3e-5,), gain_db=0.0, warm_up=0.1, frozen_layers=1
        )
    )

    @field_validator("layer")
    @classmethod
    def _layer_is_known(cls, layer: int | str) -> int | str:
        known = layer >= 0 if isinstance(layer, int) else layer in (LAST, MEAN, WEIGHTED)
        if not known:
            raise ValueError(f"allowed: {LAST}, {MEAN}, {WEIGHTED}, or the number of a block")
        return layer


class LayeredEncoder(AdaptedEncoder):
    """An encoder with a stack of blocks, each of which returns a sequence of vectors.

    Args:
        model: the module that holds the blocks.
        blocks: name of their `nn.ModuleList` in the model.
        layer: as `LayeredConfig.layer`, or `CONCATENATED`.
        size: size of a vector.
        sample_rate: of the waveforms, in Hz.
    """

    def __init__(
        self, model: nn.Module, blocks: str, layer: int | str, size: int, sample_rate: int
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.blocks, self.layer = blocks, layer
        self.embedding_size, self.sample_rate = size, sample_rate
        if isinstance(layer, int):
            del self._stack()[max(1, layer) :]  # layer 0 needs the first block, whose input it is
        tensors = float(len(model.state_dict()))
        self.loaded = {"encoder_tensors": tensors, "encoder_tensors_matched": tensors}
        if layer == WEIGHTED:
            self.layer_weights = nn.Parameter(torch.zeros(len(self._stack()) + 1))
        if layer == CONCATENATED:
            self.n_layers = len(self._stack()) + 1
            self.embedding_size *= self.n_layers

    @abstractmethod
    def output(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the output of the model, shape (batch, time, size)."""

    def frames(self, features: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Return how many vectors of a sequence are averaged, shape (batch,), from the first on; None: all."""
        return None

    def sequence(self, states: Tensor) -> Tensor:
        """Return the vectors that are averaged, shape (batch, time, size), from an output of the model or a block."""
        return states

    def layers(self, features: Tensor, lengths: Tensor | None = None) -> list[Tensor]:
        """Return the input of the first block and the output of each block, each of shape (batch, time, size)."""
        states: list[Tensor] = []

        def note_input(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            states.append(inputs[0])

        def note_output(_: nn.Module, __: Any, output: Any) -> None:
            states.append(output[0] if isinstance(output, tuple) else output)

        stack = self._stack()
        hooks = [block.register_forward_hook(note_output) for block in stack]
        hooks.append(stack[0].register_forward_pre_hook(note_input))
        try:
            self.output(features, lengths)
        finally:
            for hook in hooks:
                hook.remove()
        return [self.sequence(layer) for layer in states]

    def layers_of_parameters(self) -> list[list[nn.Parameter]]:
        """Return the parameters of the convolutions before the transformer, if it has any, of the rest, and of each block."""
        blocks = [[*block.parameters()] for block in self._stack()]
        in_blocks = {id(parameter) for block in blocks for parameter in block}
        front = [p for name, p in self.named_parameters() if f".{CONVOLUTIONS}." in f".{name}"]
        apart = in_blocks | {id(parameter) for parameter in front}
        return [front, [p for p in self.parameters() if id(p) not in apart], *blocks]

    def _stack(self) -> nn.ModuleList:
        stack = self.model.get_submodule(self.blocks)
        assert isinstance(stack, nn.ModuleList)
        return stack

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed features: shape (batch, embedding_size)."""
        frames = self.frames(features, lengths)
        if self.layer == LAST:
            return average_frames(self.output(features, lengths), frames)
        # The mean over time comes first: the order does not matter, and this one needs less memory.
        layers = torch.stack(
            [average_frames(layer, frames) for layer in self.layers(features, lengths)]
        )
        if self.layer == CONCATENATED:
            return layers.transpose(0, 1).flatten(1)
        if self.layer == MEAN:
            return layers.mean(dim=0)
        if self.layer == WEIGHTED:
            return torch.einsum("l,lbs->bs", self.layer_weights.softmax(dim=0), layers)
        assert isinstance(self.layer, int)
        return layers[self.layer]


class LayeredSystem(Adapter):
    """A transformer that was pre-trained elsewhere, under the protocols.

    Attributes:
        blocks: number of blocks of the model; 0 if its layers have different sizes.
    """

    Settings: ClassVar[type[ProbeConfig]] = LayeredConfig
    blocks: ClassVar[int]

    def __init__(self, settings: Any, target: TargetTask, protocol: ProtocolName) -> None:
        layer = settings.layer
        if layer == WEIGHTED and protocol not in ("finetune", "linear"):
            raise UserError(
                f"layer={WEIGHTED} is a sum by learned weights, and '{protocol}' learns none",
                allowed=f"layer={LAST}, layer={MEAN} or the number of a block; or --protocol finetune or linear",
            )
        if layer != LAST and not self.blocks:
            raise UserError(
                f"layer={layer} is asked of {self.argument}, whose layers are of different sizes",
                allowed=f"layer={LAST}",
            )
        if isinstance(layer, int) and layer > self.blocks:
            raise UserError(
                f"layer={layer} is asked of {self.argument}, which has {self.blocks} blocks",
                allowed=f"0 to {self.blocks}",
            )
        super().__init__(settings, target, protocol)

    @property
    def encoder_layer(self) -> int | str:
        """The layer of the encoder under this protocol; under `linear` the probe learns the weighted sum, not the encoder."""
        weighted_by_probe = self.settings.layer == WEIGHTED and self.protocol == "linear"
        layer: int | str = CONCATENATED if weighted_by_probe else self.settings.layer
        return layer
