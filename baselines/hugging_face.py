"""hf:NAME_OR_FOLDER[@REVISION]: an audio model of transformers, from its hub or from a folder, frozen or fine-tuned.

For models of waveforms (wav2vec 2.0, HuBERT, WavLM, data2vec, UniSpeech, SEW: those with Wav2Vec2FeatureExtractor), the
embedding is the average of a layer over time. Three models read spectrograms, which their own feature extractor computes in
NumPy, clip by clip. The embedding of AST is the mean of its class and distillation tokens, as in its own pooler. That of
Whisper is the average of its encoder's output over the part of its 30 s that a clip fills. That of CLAP without fusion is
the average output of its audio model. A window longer than the span of such a model is refused, not cut.

A clip that is shorter than a window is embedded as if it were alone. Models of waveforms get an attention mask, and padding is left
out of their normalization, their convolutions and the average (see `padding_mask`). The extractors of spectrograms get the clip
without its padding and fill the span of their model in their own way: AST and Whisper by zeros, CLAP by repeating the clip. Only
the embeddings of SEW depend on padding: it pools pairs of frames, and transformers does not pool its mask in the same way.

The hub is asked only for files that are not on disk, and the revision is recorded. Code from the hub is never run. A missing
tensor is an error unless `allow_missing` names it. SpecAugment and LayerDrop are off in fine-tuning: SpecAugment draws from
NumPy's global generator and needs longer windows than some tasks have, LayerDrop hides layers.
"""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lape_bench.core.errors import UserError, summarize_error
from lape_bench.learning.encoders.base import full_lengths
from lape_bench.learning.systems.adapter import LoadedConfig, path_checksum, refuse_missing
from lape_bench.learning.systems.encoder_system import ProbeConfig
from lape_bench.learning.systems.layered_transformer import (
    LayeredConfig,
    LayeredEncoder,
    LayeredSystem,
)
from lape_bench.learning.systems.padding_mask import (
    count_frames,
    is_padded,
    normalize_clips,
    padding_left_out,
    real_places,
    with_a_frame,
)
from lape_bench.system import ProtocolName, TargetTask

WAVEFORMS = "Wav2Vec2FeatureExtractor"
AST, WHISPER, CLAP = "ASTFeatureExtractor", "WhisperFeatureExtractor", "ClapFeatureExtractor"
# For each feature extractor: the supported types of models, and the path of the blocks in their audio encoder. Types of models
# that are not supported may have the same extractor.
MODELS = {
    WAVEFORMS: {
        "wav2vec2": "encoder.layers",
        "wav2vec2-conformer": "encoder.layers",
        "hubert": "encoder.layers",
        "wavlm": "encoder.layers",
        "data2vec-audio": "encoder.layers",
        "unispeech": "encoder.layers",
        "unispeech-sat": "encoder.layers",
        "sew": "encoder.layers",
        "sew-d": "encoder.encoder.layer",
    },
    AST: {"audio-spectrogram-transformer": "layers"},
    WHISPER: {"whisper": "layers"},
    CLAP: {"clap": "audio_encoder.layers"},
}
# The beginning of the names of the encoder's tensors in a whole model.
ENCODERS = {WAVEFORMS: "", AST: "", WHISPER: "encoder.", CLAP: "audio_model."}
SUPPORTED = (
    "wav2vec 2.0 (also Conformer), HuBERT, WavLM, data2vec, UniSpeech (also SAT), SEW (also SEW-D), AST, Whisper, and CLAP "
    "without fusion"
)
HEARS_PADDING = ("sew", "sew-d")  # types of models
VARIANCE_OFFSET = 1e-7  # of Wav2Vec2FeatureExtractor
# The files of a folder that a model is loaded from.
FILES = ("*.json", "*.safetensors", "*.bin")


class HuggingFaceConfig(LayeredConfig, LoadedConfig):
    """Settings of a model of transformers."""


class ModelSource(NamedTuple):
    """The source of a model.

    Attributes:
        name: a name on the hub, or a folder.
        revision: the commit on the hub; None for a folder.
    """

    name: str
    revision: str | None

    def load(self, kind: Any, **how: Any) -> Any:
        """Call `kind.from_pretrained`, with files on disk if there are any.

        Raises:
            UserError: the files are not on disk and the hub cannot be reached, or they cannot be loaded.
        """
        how |= {"revision": self.revision, "trust_remote_code": False}
        try:
            try:
                return kind.from_pretrained(self.name, local_files_only=True, **how)
            except OSError:  # transformers raises it for a missing file
                if self.revision is None:
                    raise
                return kind.from_pretrained(self.name, **how)
        except Exception as error:  # transformers raises errors of many types
            raise UserError(
                f"hf:{self.name} cannot be loaded ({summarize_error(error)})",
                allowed="config.json, preprocessor_config.json and the weights of a model that transformers itself knows",
            ) from error


class HuggingFaceEncoder(LayeredEncoder):
    """The audio encoder of a model of transformers.

    Args:
        model: the encoder.
        blocks: path of its list of blocks.
        extractor: the feature extractor that prepares its input.
        layer: see `LayeredConfig.layer`.
        window: number of samples in a window.
    """

    artifact_name = "hf"

    def __init__(
        self, model: nn.Module, blocks: str, extractor: Any, layer: int | str, window: int
    ) -> None:
        config: Any = model.config
        super().__init__(model, blocks, layer, config.hidden_size, extractor.sampling_rate)
        self.extractor = extractor
        self.kind = type(extractor).__name__
        self.window = window
        self.uses_lengths = config.model_type not in HEARS_PADDING

    @torch.no_grad()
    def features(self, waveforms: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the waveforms, normalized if the extractor asks for it, or the spectrograms that it computes."""
        if self.kind == WAVEFORMS:
            if not self.extractor.do_normalize:
                return waveforms
            return normalize_clips(waveforms, lengths, VARIANCE_OFFSET)
        lengths = full_lengths(waveforms) if lengths is None else lengths
        if self.kind == AST:  # a shorter clip takes zeros along, so that it has a frame
            lengths = lengths.clamp(min=_ast_frame(self.extractor))
        clips = zip(waveforms.float().cpu().numpy(), lengths.tolist(), strict=True)
        batch = self.extractor(
            [waveform[:length] for waveform, length in clips],
            sampling_rate=self.sample_rate,
            return_tensors="np",
        )
        prepared = np.asarray(batch[self.extractor.model_input_names[0]], np.float32)
        return torch.from_numpy(prepared).to(waveforms.device)

    def output(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the output of the model, shape (batch, time, size)."""
        if lengths is None or self.kind != WAVEFORMS or not is_padded(features, lengths):
            return self.sequence(self.model(features).last_hidden_state)
        lengths = with_a_frame(self.model, lengths)
        mask = real_places(lengths, features.shape[1]).long()
        with padding_left_out(self.model, lengths), warnings.catch_warnings():
            # For WavLM, transformers passes torch a Boolean mask together with a float mask, which torch still accepts.
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            return self.sequence(self.model(features, attention_mask=mask).last_hidden_state)

    def frames(self, features: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Return how many vectors of a sequence are averaged, shape (batch,); None: all."""
        if self.kind == WHISPER:  # its span is filled by zeros
            if lengths is None:
                lengths = torch.full((len(features),), self.window, device=features.device)
            frames: Tensor = (
                lengths * self.model.config.max_source_positions / self.extractor.n_samples
            )
            return frames.ceil().clamp(min=1).long()
        if lengths is None or self.kind != WAVEFORMS or not is_padded(features, lengths):
            return None
        return count_frames(self.model, with_a_frame(self.model, lengths))

    def sequence(self, states: Tensor) -> Tensor:
        """Return the vectors whose average is the embedding, shape (batch, time, size)."""
        if self.kind == AST:  # class and distillation tokens; later patches cover padding too
            return states[:, :2]
        if self.kind == CLAP:
            return states.flatten(2).transpose(1, 2)  # (batch, time * frequency, size)
        return states


class HuggingFace(LayeredSystem):
    """A pre-trained model of transformers."""

    version = 2
    Settings: ClassVar[type[ProbeConfig]] = HuggingFaceConfig
    source: ClassVar[ModelSource]
    extractor: ClassVar[Any]
    blocks_in: ClassVar[str]  # path of the list of blocks in the encoder

    @classmethod
    def resolve_argument(cls, argument: str) -> dict[str, Any]:
        """Find the model's configuration and feature extractor; its weights are not needed yet."""
        library = _transformers()
        with _quiet(library):
            source = _source(argument)
            config = source.load(library.AutoConfig)
            extractor = source.load(library.AutoFeatureExtractor)
        kind = type(extractor).__name__
        blocks = MODELS.get(kind, {}).get(config.model_type)
        # An adapter after the last block changes the size of the output.
        adapted = getattr(config, "add_adapter", False)
        if blocks is None or adapted or (kind == CLAP and config.audio_config.enable_fusion):
            raise UserError(
                f"hf:{argument} ({config.model_type}, {kind}) is not supported", allowed=SUPPORTED
            )
        return {
            "source": source,
            "extractor": extractor,
            "sample_rate": int(extractor.sampling_rate),
            "blocks_in": blocks,
            "blocks": 0 if kind == CLAP else int(config.num_hidden_layers),
        }

    def __init__(self, settings: Any, target: TargetTask, protocol: ProtocolName) -> None:
        super().__init__(settings, target, protocol)
        self.window = round(target.window_seconds * self.sample_rate)
        longest = _longest(self.extractor)
        if longest is not None and self.window > longest:
            raise UserError(
                f"hf:{self.argument} takes windows of at most {longest / self.sample_rate:.4g} s, and the task's windows "
                f"have {target.window_seconds:g} s",
                next_step="choose a task with shorter windows, or another model",
            )

    def read_provenance(self) -> dict[str, str]:
        """Return the revision, or the SHA-256 of the folder, and the version of the library with the model's code."""
        library = {"transformers": _transformers().__version__}
        if self.source.revision is None:
            return library | {"weights": path_checksum(Path(self.source.name), FILES)}
        return library | {"weights": f"{self.source.name}, revision {self.source.revision}"}

    def build_encoder(self) -> HuggingFaceEncoder:
        """Return the model with its weights."""
        library = _transformers()
        with _quiet(library):
            config = self.source.load(library.AutoConfig)
            config.update({"apply_spec_augment": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0})
            # Above 0, a model has an embedding for masked frames, which some files lack.
            config.update({"mask_time_prob": 0.0, "mask_feature_prob": 0.0})
            model, report = self.source.load(
                library.AutoModel, config=config, dtype=torch.float32, output_loading_info=True
            )
        prefix = ENCODERS[type(self.extractor).__name__]
        missing = [name for name in report["missing_keys"] if name.startswith(prefix)]
        where = f"hf:{self.argument}"
        refuse_missing(missing, self.settings.allow_missing, where)
        part = model.get_submodule(prefix.rstrip("."))
        layer = self.encoder_layer
        encoder = HuggingFaceEncoder(part, self.blocks_in, self.extractor, layer, self.window)
        names = {prefix + name for name in part.state_dict()}
        encoder.loaded["encoder_tensors_matched"] -= len(names.intersection(missing))
        return encoder


def _longest(extractor: Any) -> int | None:
    """Return the number of samples at which an extractor cuts its input; None if it does not."""
    kind = type(extractor).__name__
    if kind == AST:  # a frame every 10 ms
        step = extractor.sampling_rate // 100
        return int(extractor.max_length * step) + _ast_frame(extractor) - 1
    if kind == WHISPER:
        return int(extractor.n_samples)
    return int(extractor.nb_max_samples) if kind == CLAP else None


def _ast_frame(extractor: Any) -> int:
    """Return the number of samples in a frame of AST's spectrograms, 25 ms."""
    return int(extractor.sampling_rate // 40)


def _source(argument: str) -> ModelSource:
    """Return the source that an argument names: a folder, or a name and commit on the hub."""
    from transformers.utils.hub import cached_file  # an extra, and slow to import

    folder = Path(argument).expanduser()
    if folder.is_dir():
        return ModelSource(str(folder.absolute()), None)
    name, _, revision = argument.partition("@")
    if argument.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise UserError(
            f"'{argument}' in hf:{argument} is neither a folder nor a name on the hub",
            next_step="give the path of a folder, or a name such as facebook/wav2vec2-base",
        )
    how: dict[str, Any] = {"revision": revision} if revision else {}
    try:
        try:
            path = cached_file(name, "config.json", local_files_only=True, **how)
        except OSError:
            path = cached_file(name, "config.json", **how)
        if path is None:
            raise OSError("it has no config.json")
    except Exception as error:  # no network, an unknown model, or one that needs a login
        raise UserError(
            f"hf:{argument} is not on disk and cannot be downloaded from the hub ({summarize_error(error)})",
            next_step="check the name; without a network, give a folder with a saved model",
        ) from error
    return ModelSource(name, Path(path).parent.name)  # snapshots/COMMIT/config.json


def _transformers() -> ModuleType:
    """Import transformers, an extra of this package that takes seconds to import."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise UserError(
            "hf: needs the package 'transformers', which is not installed",
            next_step="pip install 'lape_bench[hf]'",
        ) from error


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Silence messages and progress bars of transformers and its hub; problems are raised as errors."""
    from huggingface_hub.utils import logging as hub  # comes with transformers

    log = library.utils.logging
    levels, bars = (log.get_verbosity(), hub.get_verbosity()), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    hub.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(levels[0])
        hub.set_verbosity(levels[1])
        if bars:
            log.enable_progress_bar()
