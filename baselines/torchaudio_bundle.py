"""torchaudio:BUNDLE: a speech transformer of torchaudio.pipelines, such as WAV2VEC2_BASE, frozen or fine-tuned.

torchaudio itself finds the weights in the folder of torch.hub, or downloads them. The head of a bundle for speech recognition
is dropped.

If a bundle asks for normalized waveforms, torchaudio normalizes a batch as a whole, so that a clip's embedding would depend on
its neighbors. Here every window is normalized by itself, as in the training of these models. LayerDrop is off in fine-tuning,
so that every step uses all layers.
"""

import inspect
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchaudio import pipelines

from lape_bench.core.errors import UserError, summarize_error, unknown
from lape_bench.learning.systems.adapter import path_checksum
from lape_bench.learning.systems.layered_transformer import LayeredEncoder, LayeredSystem

TRANSFORMER = "encoder.transformer"


class BundleEncoder(LayeredEncoder):
    """A bundle's wav2vec 2.0, HuBERT or WavLM on waveforms.

    Args:
        model: a `torchaudio.models.Wav2Vec2Model`.
        normalize: normalize every window to mean 0 and standard deviation 1 first.
        layer: as `LayeredConfig.layer`.
        sample_rate: of the waveforms, in Hz.
    """

    artifact_name = "torchaudio"

    def __init__(
        self, model: nn.Module, normalize: bool, layer: int | str, sample_rate: int
    ) -> None:
        transformer: Any = model.get_submodule(TRANSFORMER)
        size = transformer.layer_norm.normalized_shape[0]
        super().__init__(model, f"{TRANSFORMER}.layers", layer, size, sample_rate)
        self.normalize = normalize
        transformer.layer_drop = 0.0

    def features(self, waveforms: Tensor) -> Tensor:
        """Return the waveforms, normalized if the bundle asks for it."""
        return F.layer_norm(waveforms, waveforms.shape[-1:]) if self.normalize else waveforms

    def output(self, features: Tensor) -> Tensor:
        """Return the output of the transformer, shape (batch, time, size)."""
        output: Tensor = self.model.encoder(self.model.feature_extractor(features, None)[0])
        return output


class TorchaudioBundle(LayeredSystem):
    """A transformer of torchaudio.pipelines."""

    bundle: ClassVar[Any]

    @classmethod
    def resolve_argument(cls, argument: str) -> dict[str, Any]:
        """Find the bundle of this name; its weights are not needed yet."""
        bundles = dict(
            inspect.getmembers(pipelines, lambda value: isinstance(value, pipelines.Wav2Vec2Bundle))
        )
        if argument not in bundles:
            raise unknown("bundle of wav2vec 2.0, HuBERT or WavLM in torchaudio", argument, bundles)
        bundle = bundles[argument]
        return {
            "bundle": bundle,
            "sample_rate": int(bundle.sample_rate),
            # Underscored, but torchaudio says this nowhere else without the weights; 2.11 is its last release.
            "blocks": bundle._params["encoder_num_layers"],
        }

    def read_provenance(self) -> dict[str, str]:
        """Return the SHA-256 of the weights, after downloading them if they are not on disk."""
        if not self._weights.is_file():
            self._model()
        return {"weights": path_checksum(self._weights)}

    def build_encoder(self) -> BundleEncoder:
        """Return the bundle's model with its weights."""
        model = self._model()
        # Some models come in a wrapper that normalizes batches and turns their outputs into text.
        inner: Any = model.get_submodule("model") if hasattr(model, "model") else model
        inner.aux = None  # the head of a model for speech recognition
        normalize = self.bundle._normalize_waveform
        return BundleEncoder(inner, normalize, self.settings.layer, self.sample_rate)

    @property
    def _weights(self) -> Path:
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(self.bundle._path).name

    def _model(self) -> nn.Module:
        try:
            with redirect_stdout(sys.stderr):  # where torch.hub says that it downloads
                model: nn.Module = self.bundle.get_model(
                    dl_kwargs={"map_location": "cpu", "weights_only": True}
                )
        except Exception as error:  # of the network, of a damaged file, of tensors that do not fit
            raise UserError(
                f"torchaudio:{self.argument} cannot be loaded ({summarize_error(error)})",
                next_step=f"connect this machine once, or put the bundle's weights at {self._weights}",
            ) from error
        return model
