"""torchaudio:BUNDLE: a speech transformer of torchaudio.pipelines, such as WAV2VEC2_BASE, frozen or fine-tuned.

torchaudio itself finds the weights in the folder of torch.hub, or downloads them. The head of a bundle for speech recognition
is dropped.

If a bundle asks for normalized waveforms, torchaudio normalizes a batch as a whole, so that a clip's embedding would depend on
its neighbors. Here every clip is normalized by itself, as in the training of these models. A clip that is shorter than a window is
embedded as if it were alone: padding is left out of normalization, attention, convolutions and the average. LayerDrop is off in fine-tuning,
so that every step uses all layers.
"""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torchaudio import pipelines
from torchaudio.models.wav2vec2.wavlm_attention import WavLMSelfAttention

from lape_bench.core.errors import UserError, summarize_error, unknown
from lape_bench.learning.systems.adapter import path_checksum
from lape_bench.learning.systems.layered_transformer import LayeredEncoder, LayeredSystem
from lape_bench.learning.systems.padding_mask import (
    count_frames,
    is_padded,
    normalize_clips,
    padding_left_out,
    real_places,
    with_a_frame,
)

EPSILON = 1e-5  # of the layer norm that torchaudio normalizes waveforms by
TRANSFORMER = "encoder.transformer"


class BundleEncoder(LayeredEncoder):
    """A bundle's wav2vec 2.0, HuBERT or WavLM on waveforms.

    Args:
        model: a `torchaudio.models.Wav2Vec2Model`.
        normalize: normalize every window to mean 0 and standard deviation 1 first.
        layer: see `LayeredConfig.layer`.
        sample_rate: of the waveforms, in Hz.
    """

    artifact_name = "torchaudio"
    uses_lengths = True

    def __init__(
        self, model: nn.Module, normalize: bool, layer: int | str, sample_rate: int
    ) -> None:
        transformer: Any = model.get_submodule(TRANSFORMER)
        size = transformer.layer_norm.normalized_shape[0]
        super().__init__(model, f"{TRANSFORMER}.layers", layer, size, sample_rate)
        self.normalize = normalize
        transformer.layer_drop = 0.0

    def features(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the waveforms, normalized if the bundle asks for it."""
        return normalize_clips(waveforms, lengths, EPSILON) if self.normalize else waveforms

    def output(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the output of the transformer, shape (batch, time, size)."""
        if lengths is None or not is_padded(features, lengths):
            return self._output(features, None)
        lengths = with_a_frame(self.model, lengths)
        with padding_left_out(self.model, lengths):
            if not isinstance(self._stack()[0].attention, WavLMSelfAttention):
                return self._output(features, lengths)
            with self._masked_keys(count_frames(self.model, lengths)):
                return self._output(features, None)

    def frames(self, features: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Return how many vectors of a sequence are averaged, shape (batch,); None: all."""
        if lengths is None or not is_padded(features, lengths):
            return None
        return count_frames(self.model, with_a_frame(self.model, lengths))

    @contextmanager
    def _masked_keys(self, frames: Tensor) -> Iterator[None]:
        """Pass a key padding mask to the blocks, since WavLM refuses the attention mask that torchaudio makes from lengths.

        Args:
            frames: number of real frames of each clip, shape (batch,).
        """

        def mask(
            _: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Any]
        ) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
            real = real_places(frames, inputs[0].shape[1])
            # As floats, since torch warns about a Boolean mask together with WavLM's float position bias.
            padding = torch.zeros(real.shape, device=real.device).masked_fill(~real, -torch.inf)
            return inputs, {**named, "key_padding_mask": padding}

        hooks = [block.register_forward_pre_hook(mask, with_kwargs=True) for block in self._stack()]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _output(self, waveforms: Tensor, lengths: Tensor | None) -> Tensor:
        output: Tensor = self.model.encoder(*self.model.feature_extractor(waveforms, lengths))
        return output


class TorchaudioBundle(LayeredSystem):
    """A transformer of torchaudio.pipelines."""

    version = 2
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
            # Private, but without the weights torchaudio has this number nowhere else. 2.11 is its last release.
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
        return BundleEncoder(inner, normalize, self.encoder_layer, self.sample_rate)

    @property
    def _weights(self) -> Path:
        return Path(torch.hub.get_dir()) / "checkpoints" / Path(self.bundle._path).name

    def _model(self) -> nn.Module:
        try:
            with redirect_stdout(sys.stderr):  # torch.hub prints its downloads
                model: nn.Module = self.bundle.get_model(
                    dl_kwargs={"map_location": "cpu", "weights_only": True}
                )
        except Exception as error:  # no network, a damaged file, or tensors that do not fit
            raise UserError(
                f"torchaudio:{self.argument} cannot be loaded ({summarize_error(error)})",
                next_step=f"connect this machine once, or put the bundle's weights at {self._weights}",
            ) from error
        return model
