"""Transformers that were pre-trained elsewhere: which of their layers is the embedding, and how it is fine-tuned.

A layer is counted as in SUPERB (arXiv:2105.01051): 0 is what the first block is given, k what block k puts out, before
any normalization that the model applies to the last. Each is averaged over time. Blocks behind a layer that is asked for by its
number are left out: they are neither computed nor counted, but for the first, whose input layer 0 is.

The sum weighted by learned numbers, which SUPERB trains with its probe, is an option of fine-tuning alone: linear evaluation
here is a logistic regression on embeddings that no label has touched.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from lape_bench.core.errors import UserError
from lape_bench.learning.systems.adapter import AdaptedEncoder, Adapter
from lape_bench.learning.systems.encoder_system import EncoderConfig, ProbeConfig
from lape_bench.learning.training.finetune import FinetuneConfig
from lape_bench.system import ProtocolName, TargetTask

LAST, MEAN, WEIGHTED = "last", "mean", "weighted"


class LayeredConfig(EncoderConfig):
    """Settings of a transformer that was pre-trained elsewhere.

    3e-5 is the rate at which the examples of transformers fine-tune wav2vec 2.0 on keywords. Such models are level with
    their input, or were trained on the levels of their corpus: by default none is moved.
    """

    layer: int | str = Field(
        LAST,
        description="last: what the model puts out; a number: that block's output, 0 for what the first is given; "
        "mean: of all of these; weighted: a learned weighted sum of them, under finetune alone",
    )
    finetune: FinetuneConfig = Field(
        default_factory=lambda: FinetuneConfig(learning_rate=3e-5, gain_db=0.0)
    )

    @field_validator("layer")
    @classmethod
    def _layer_is_known(cls, layer: int | str) -> int | str:
        known = layer >= 0 if isinstance(layer, int) else layer in (LAST, MEAN, WEIGHTED)
        if not known:
            raise ValueError(f"allowed: {LAST}, {MEAN}, {WEIGHTED}, or the number of a block")
        return layer


class LayeredEncoder(AdaptedEncoder):
    """A stack of blocks, each of which puts out a sequence of vectors.

    Args:
        model: has the blocks.
        blocks: the name of their list in the model.
        layer: as `LayeredConfig.layer`.
        size: numbers in a vector.
        sample_rate: Hz, of the waveforms.
    """

    def __init__(
        self, model: nn.Module, blocks: str, layer: int | str, size: int, sample_rate: int
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.blocks, self.layer = blocks, layer
        self.embedding_size, self.sample_rate = size, sample_rate
        if isinstance(layer, int):
            del self._stack()[max(1, layer) :]  # what the first is given is seen where it is asked
        tensors = float(len(model.state_dict()))
        self.loaded = {"encoder_tensors": tensors, "encoder_tensors_matched": tensors}
        if layer == WEIGHTED:
            self.layer_weights = nn.Parameter(torch.zeros(len(self._stack()) + 1))

    @abstractmethod
    def output(self, features: Tensor) -> Tensor:
        """Return what the model puts out, shape (batch, time, size)."""

    def sequence(self, states: Tensor) -> Tensor:
        """Return, of what the model or a block puts out, what is averaged, shape (batch, time, size)."""
        return states

    def layers(self, features: Tensor) -> list[Tensor]:
        """Return what the first block is given and what each puts out, (batch, time, size) each."""
        found: list[Tensor] = []

        def note_given(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            found.append(given[0])

        def note_output(_: nn.Module, __: Any, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)

        stack = self._stack()
        hooks = [block.register_forward_hook(note_output) for block in stack]
        hooks.append(stack[0].register_forward_pre_hook(note_given))
        try:
            self.output(features)
        finally:
            for hook in hooks:
                hook.remove()
        return [self.sequence(states) for states in found]

    def _stack(self) -> nn.ModuleList:
        stack = self.model.get_submodule(self.blocks)
        assert isinstance(stack, nn.ModuleList)
        return stack

    def forward(self, features: Tensor) -> Tensor:
        """Embed features, shape (batch, size)."""
        if self.layer == LAST:
            return self.output(features).mean(dim=1)
        # Averages over time and over layers may change places, and this one leaves less to hold.
        layers = torch.stack([each.mean(dim=1) for each in self.layers(features)])
        if self.layer == MEAN:
            return layers.mean(dim=0)
        if self.layer == WEIGHTED:
            return torch.einsum("l,lbs->bs", self.layer_weights.softmax(dim=0), layers)
        assert isinstance(self.layer, int)
        return layers[self.layer]


class LayeredSystem(Adapter):
    """A transformer that was pre-trained elsewhere, under the protocols.

    Attributes:
        blocks: of the model; 0 where it has no layers of one size.
    """

    Settings: ClassVar[type[ProbeConfig]] = LayeredConfig
    blocks: ClassVar[int]

    def __init__(self, settings: Any, target: TargetTask, protocol: ProtocolName) -> None:
        layer = settings.layer
        if layer == WEIGHTED and protocol != "finetune":
            raise UserError(
                f"layer={WEIGHTED} learns its weights from the labels, and '{protocol}' leaves the encoder frozen",
                allowed=f"layer={LAST}, layer={MEAN} or the number of a block; or --protocol finetune",
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
