"""MAST (arXiv:2211.01515): a multiscale spectrogram transformer from random weights, fine-tuned with the labels.

It is the baseline of `ss-mast`, as `supervised` is for the systems on AudioNTT. The transformer, its published sizes and the
departures from them are in `lape_bench/learning/encoders/multiscale_transformer.py`. The published learning rate could not be
found. A transformer needs a smaller one than AudioNTT; 2.5e-4 is the rate of AST (arXiv:2104.01778) on keywords. It was the
best of four on validation of `asc-keywords`, under version 1 of the protocol. The size was not tuned.
"""

from typing import Any, ClassVar

from pydantic import Field

from lape_bench.learning.encoders.multiscale_transformer import (
    MultiscaleTransformer,
    MultiscaleTransformerConfig,
)
from lape_bench.learning.systems.encoder_system import ProbeConfig
from lape_bench.learning.systems.spectrogram_system import (
    SpectrogramConfig,
    SpectrogramFinetuneConfig,
    SpectrogramSystem,
)


class MastConfig(SpectrogramConfig, MultiscaleTransformerConfig):
    """A multiscale transformer that learns from labels only."""

    finetune: SpectrogramFinetuneConfig = Field(
        default_factory=lambda: SpectrogramFinetuneConfig(learning_rates=(2.5e-4,))
    )


class Mast(SpectrogramSystem):
    """A multiscale transformer that learns from labels only."""

    version = 2  # to version 1, finetune.layer_decay and finetune.frozen_layers took the encoder for one layer
    Settings: ClassVar[type[ProbeConfig]] = MastConfig
    smoke_settings: ClassVar[dict[str, Any]] = SpectrogramSystem.smoke_settings | {"depths": [1, 1]}

    def build_encoder(self) -> MultiscaleTransformer:
        """Return a new transformer."""
        return MultiscaleTransformer(self.settings)
