"""Models of transformers, tiny and random: embedded as by hand, layer by layer, and never from code or half a file."""

import json
import shutil
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lape_bench.baselines.hugging_face import HuggingFace, HuggingFaceEncoder
from lape_bench.conformance.check import check_system
from lape_bench.conformance.harness import Harness, load_check_data, target_task
from lape_bench.conformance.trained import check_trained
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import load_system
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_cell
from lape_bench.records.record import Cell
from lape_bench.runtime.device import Compute
from lape_bench.system import ProtocolName, TargetTask

transformers = pytest.importorskip("transformers")

CPU = Compute(device="cpu", precision="float32", threads=1)
TARGET = TargetTask(classes=("a", "b"), window_seconds=0.5, metric="accuracy")
BLOCKS = 3
SPEECH = {
    "hidden_size": 16,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (8, 8, 8),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 8, 4),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}


def save(folder: Path, config: Any, extractor: Any, model: Any = None) -> Path:
    torch.manual_seed(0)
    model = model or transformers.AutoModel.from_config(config)
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return folder


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    return save(tmp_path / "tiny-speech", transformers.Wav2Vec2Config(**SPEECH), extractor)


def load(
    folder: Path | str, protocol: ProtocolName = "linear", **settings: Any
) -> HuggingFaceEncoder:
    kind = HuggingFace.from_argument(str(folder))
    return kind(kind.Settings(**settings), TARGET, protocol).build_encoder().eval()


def noise(clips: int, seconds: float = 0.5, rate: int = 16_000) -> Tensor:
    levels = torch.tensor([0.001, 0.3, 0.02, 0.1])[:clips, None]
    generator = torch.Generator().manual_seed(0)
    return levels * torch.randn(clips, round(seconds * rate), generator=generator)


def by_hand(folder: Path, windows: Tensor) -> Any:
    """Prepare and embed one window after the other, as the documentation of transformers does it."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    for window in windows:
        inputs = extractor(window.numpy(), sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            yield model(inputs["input_values"], output_hidden_states=True)


@pytest.mark.parametrize(
    ("kind", "more", "normalize"),
    [
        ("Wav2Vec2Config", {}, True),
        ("Wav2Vec2Config", STABLE, True),
        ("HubertConfig", {}, False),
        ("WavLMConfig", {}, False),
        ("Data2VecAudioConfig", {}, True),
        ("Wav2Vec2ConformerConfig", {}, True),
        ("UniSpeechConfig", {}, True),
        ("UniSpeechSatConfig", STABLE, True),
        ("SEWConfig", {"squeeze_factor": 2}, True),
        ("SEWDConfig", {"squeeze_factor": 2}, True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_layer_of_a_speech_model_is_what_it_is_by_hand(
    kind: str, more: dict[str, Any], normalize: bool, tmp_path: Path
) -> None:
    config = getattr(transformers, kind)(**SPEECH, **more)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize)
    folder, windows = save(tmp_path / "model", config, extractor), noise(3)
    found = list(by_hand(folder, windows))
    last = torch.cat([each.last_hidden_state.mean(1) for each in found])
    layers = [
        torch.cat([each.hidden_states[k].mean(1) for each in found]) for k in range(BLOCKS + 1)
    ]
    expected = {"last": last, "mean": sum(layers) / len(layers), 0: layers[0], 2: layers[2]}
    for layer, embeddings in expected.items():
        encoder = load(folder, layer=layer)
        with torch.no_grad():
            assert_close(encoder(encoder.features(windows)), embeddings, rtol=1e-3, atol=1e-5)
    assert encoder.embedding_size == SPEECH["hidden_size"]


@pytest.mark.parametrize("layer", ["last", "mean"])
@pytest.mark.parametrize(
    ("kind", "more", "normalize"),
    [
        ("Wav2Vec2Config", {}, True),  # group norm over time
        ("Wav2Vec2Config", STABLE, True),
        ("HubertConfig", {"conv_pos_batch_norm": True}, False),
        ("WavLMConfig", {}, False),
        ("Data2VecAudioConfig", {}, True),
        ("Wav2Vec2ConformerConfig", {}, True),
        ("UniSpeechConfig", {}, True),
        ("UniSpeechSatConfig", STABLE, True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_padded_clip_is_embedded_as_transformers_does_it_alone(
    kind: str, more: dict[str, Any], normalize: bool, layer: str, tmp_path: Path
) -> None:
    config = getattr(transformers, kind)(**SPEECH, **more)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normalize)
    folder, windows = save(tmp_path / "model", config, extractor), noise(4)
    lengths = torch.tensor([1_600, 8_000, 4_321, 7_999])
    windows[torch.arange(8_000) >= lengths[:, None]] = 0
    if not normalize:
        windows *= 30  # otherwise the first clip is so quiet that biases are all there is
    encoder = load(folder, layer=layer)
    assert encoder.uses_lengths
    with torch.no_grad():
        together = encoder(encoder.features(windows, lengths), lengths)
        longer = torch.cat([windows, torch.zeros(4, 3_000)], dim=1)
        assert_close(encoder(encoder.features(longer, lengths), lengths), together)
        unmasked = encoder(encoder.features(windows))
    for index, length in enumerate(lengths.tolist()):
        (alone,) = by_hand(folder, windows[index : index + 1, :length])
        layers = [layer.mean(1) for layer in alone.hidden_states]
        last, mean = alone.last_hidden_state.mean(1), sum(layers) / len(layers)
        expected = {"last": last, "mean": mean}[layer]
        assert_close(together[index : index + 1], expected, rtol=1e-3, atol=1e-4)
    assert (unmasked[0] - together[0]).abs().max() > 1e-3, "padding is heard without lengths"
    modules = list(encoder.model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_a_model_that_pools_pairs_of_frames_says_that_it_hears_padding(tmp_path: Path) -> None:
    config = transformers.SEWConfig(**SPEECH, squeeze_factor=2)
    folder = save(tmp_path / "model", config, transformers.Wav2Vec2FeatureExtractor())
    assert not load(folder).uses_lengths


def test_a_clip_shorter_than_a_frame_takes_zeros_along(speech: Path) -> None:
    encoder, windows = load(speech), torch.zeros(2, 8_000)
    windows[:, :40] = noise(2)[:, :40]
    lengths = torch.tensor([40, 8_000])
    with torch.no_grad():
        embeddings = encoder(encoder.features(windows, lengths), lengths)
    assert embeddings.isfinite().all()


@pytest.mark.parametrize(
    ("layer", "left"), [(0, 1), (1, 1), (2, 2), (BLOCKS, BLOCKS), ("mean", BLOCKS)]
)
def test_blocks_behind_the_layer_that_is_asked_for_are_not_kept(
    layer: Any, left: int, speech: Path
) -> None:
    encoder, whole = load(speech, "finetune", layer=layer), load(speech)
    of_blocks = sum(p.numel() for p in whole.model.encoder.layers[left:].parameters())
    held = {name: p for name, p in encoder.named_parameters() if "layer_weights" not in name}
    assert (
        sum(p.numel() for p in held.values())
        == sum(p.numel() for p in whole.parameters()) - of_blocks
    )
    kept = len(encoder.model.state_dict())
    assert encoder.loaded == {"encoder_tensors": kept, "encoder_tensors_matched": kept}


def test_weighted_layers_are_their_softmax_weighted_sum_and_learn(speech: Path) -> None:
    encoder, windows = load(speech, "finetune", layer="weighted"), noise(2)
    weights = torch.tensor([0.0, 1.0, -1.0, 2.0])
    with torch.no_grad():
        encoder.layer_weights.copy_(weights)
    (embeddings,) = (encoder(encoder.features(windows)),)
    shares = np.exp(weights.numpy()) / np.exp(weights.numpy()).sum()
    layers = [load(speech, layer=k)(encoder.features(windows)) for k in range(BLOCKS + 1)]
    assert_close(embeddings, sum(float(s) * each for s, each in zip(shares, layers, strict=True)))
    embeddings.square().sum().backward()
    assert encoder.layer_weights.grad is not None
    assert encoder.layer_weights.grad.abs().max() > 0


def test_under_linear_evaluation_weighted_layers_are_all_of_them_one_after_the_other(
    speech: Path,
) -> None:
    encoder, windows = load(speech, "linear", layer="weighted"), noise(2)
    layers = [load(speech, layer=k)(encoder.features(windows)) for k in range(BLOCKS + 1)]
    assert encoder.n_layers == BLOCKS + 1
    assert encoder.embedding_size == (BLOCKS + 1) * SPEECH["hidden_size"]
    assert_close(encoder(encoder.features(windows)), torch.cat(layers, dim=1))
    assert not [name for name, _ in encoder.named_parameters() if "layer_weights" in name]


def test_a_spectrogram_transformer_is_embedded_as_its_pooler_does_it(tmp_path: Path) -> None:
    config = transformers.ASTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_length=64, num_mel_bins=32,
    )  # fmt: skip
    extractor = transformers.ASTFeatureExtractor(max_length=64, num_mel_bins=32)
    folder, windows = save(tmp_path / "ast", config, extractor), noise(2)
    expected = torch.cat([each.pooler_output for each in by_hand(folder, windows)])
    encoder = load(folder)
    with torch.no_grad():
        assert_close(encoder(encoder.features(windows)), expected, rtol=1e-4, atol=1e-5)
        windows[1, 3_000:] = 0
        (alone,) = by_hand(folder, windows[1:, :3_000])
        lengths = torch.tensor([8_000, 3_000])
        found = encoder(encoder.features(windows, lengths), lengths)
    assert_close(found[:1], expected[:1], rtol=1e-4, atol=1e-5)
    assert_close(found[1:], alone.pooler_output, rtol=1e-4, atol=1e-5)
    windows[1, 40:] = 0  # shorter than a frame of 25 ms
    with torch.no_grad():
        (frame,) = by_hand(folder, windows[1:, :400])
        lengths = torch.tensor([8_000, 40])
        found = encoder(encoder.features(windows, lengths), lengths)
    assert_close(found[1:], frame.pooler_output, rtol=1e-4, atol=1e-5)


@pytest.fixture
def whisper(tmp_path: Path) -> Path:
    config = transformers.WhisperConfig(
        d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=16,
        max_source_positions=100, vocab_size=20, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    )  # fmt: skip
    extractor = transformers.WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    return save(tmp_path / "whisper", config, extractor)


def test_of_whisper_the_encoder_is_taken_where_the_window_is_and_not_its_padding(
    whisper: Path,
) -> None:
    windows, encoder = noise(2), load(whisper)
    model = transformers.AutoModel.from_pretrained(whisper).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(whisper)
    inputs = extractor(list(windows.numpy()), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        states = model.get_encoder()(inputs["input_features"]).last_hidden_state
        found = encoder(encoder.features(windows))
    assert states.shape[1] == 100  # of 2 s
    assert_close(found, states[:, :25].mean(dim=1), rtol=1e-4, atol=1e-5)
    lengths = torch.tensor([2_000, 8_000])
    windows[0, 2_000:] = 0
    inputs = extractor(list(windows.numpy()), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        states = model.get_encoder()(inputs["input_features"]).last_hidden_state
        padded = encoder(encoder.features(windows, lengths), lengths)
        assert_close(padded[0], states[0, :7].mean(dim=0), rtol=1e-4, atol=1e-5)  # 6.25 of them
        assert_close(padded[1], states[1, :25].mean(dim=0), rtol=1e-4, atol=1e-5)
    decoder = sum(p.numel() for p in model.get_decoder().parameters())
    own = sum(p.numel() for p in encoder.parameters())
    assert own == sum(p.numel() for p in model.parameters()) - decoder


def test_the_last_layer_of_whisper_is_its_block_s_output_before_the_norm(whisper: Path) -> None:
    windows, encoder = noise(2), load(whisper, layer="mean")
    with torch.no_grad():
        *_, last = encoder.layers(encoder.features(windows))
        output = encoder.output(encoder.features(windows))
        normed = encoder.model.layer_norm(last)
    assert_close(normed, output, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(last, output, atol=1e-3)


def test_a_model_with_an_adapter_is_refused(tmp_path: Path) -> None:
    config = transformers.Wav2Vec2Config(**SPEECH, add_adapter=True, output_hidden_size=48)
    folder = save(tmp_path / "model", config, transformers.Wav2Vec2FeatureExtractor())
    with pytest.raises(UserError, match="not supported"):
        load(folder)


def test_a_window_longer_than_a_model_s_span_is_refused_not_cut(whisper: Path) -> None:
    kind = HuggingFace.from_argument(str(whisper))
    longer = TARGET.model_copy(update={"window_seconds": 4.0})
    with pytest.raises(
        UserError, match=r"takes windows of at most 2 s, and the task's windows have 4 s"
    ):
        kind(kind.Settings(), longer, "linear")


def clap(fused: bool) -> Any:
    text = {
        "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
        "intermediate_size": 8, "max_position_embeddings": 20,
    }  # fmt: skip
    audio = {
        "spec_size": 64, "patch_embeds_hidden_size": 8, "depths": [1, 1], "hidden_size": 16,
        "num_attention_heads": [2, 2], "num_mel_bins": 16, "window_size": 4, "enable_fusion": fused,
    }  # fmt: skip
    return transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=8)


def test_of_clap_the_audio_model_is_taken_and_its_pooled_output(tmp_path: Path) -> None:
    extractor = transformers.ClapFeatureExtractor(
        feature_size=16, truncation="rand_trunc", max_length_s=2, sampling_rate=16_000,
        frequency_max=8_000,
    )  # fmt: skip
    folder, windows = save(tmp_path / "clap", clap(fused=False), extractor), noise(2)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = extractor(list(windows.numpy()), sampling_rate=16_000, return_tensors="pt")
    encoder = load(folder)
    with torch.no_grad():
        expected = model.audio_model(inputs["input_features"]).pooler_output
        assert_close(encoder(encoder.features(windows)), expected, rtol=1e-4, atol=1e-5)
        windows[1, 3_000:] = 0
        alone = extractor(windows[1, :3_000].numpy(), sampling_rate=16_000, return_tensors="pt")
        expected[1:] = model.audio_model(alone["input_features"]).pooler_output
        lengths = torch.tensor([8_000, 3_000])
        found = encoder(encoder.features(windows, lengths), lengths)
        assert_close(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="whose layers are of different sizes; layer=last"):
        load(folder, layer=1)
    fused = save(tmp_path / "fused", clap(fused=True), extractor)
    with pytest.raises(
        UserError, match=r"\(clap, ClapFeatureExtractor\) is not supported; wav2vec"
    ):
        HuggingFace.from_argument(str(fused))


@pytest.mark.parametrize(
    ("layer", "protocol", "said"),
    [
        ("weighted", "mlp", "'mlp' learns none; layer=last, layer=mean or the number of a block"),
        ("weighted", "knn", "'knn' learns none"),
        (BLOCKS + 1, "linear", "which has 3 blocks; 0 to 3"),
    ],
)
def test_a_layer_that_cannot_be_is_refused(
    layer: Any, protocol: ProtocolName, said: str, speech: Path
) -> None:
    with pytest.raises(UserError) as caught:
        load(speech, protocol, layer=layer)
    assert said in str(caught.value)


@pytest.mark.parametrize("layer", ["first", -1])
def test_a_layer_of_no_such_name_is_refused(layer: Any, speech: Path) -> None:
    with pytest.raises(ValueError, match="last, mean, weighted, or the number of a block"):
        HuggingFace.from_argument(str(speech)).Settings(layer=layer)


def test_fine_tuning_takes_short_windows_and_draws_nothing_from_numpy(speech: Path) -> None:
    config = json.loads((speech / "config.json").read_text())
    config |= {"mask_time_prob": 0.5, "mask_time_length": 500, "layerdrop": 0.9}
    (speech / "config.json").write_text(json.dumps(config))
    encoder = load(speech, "finetune", layer="mean").train()
    before = np.random.get_state()[1].copy()
    encoder(encoder.features(noise(2))).sum().backward()
    assert np.array_equal(np.random.get_state()[1], before)
    # The mean of all layers sees every block; only the norm before the classifier that is not used may be left out.
    blocks = {
        name.split(".")[3]
        for name, p in encoder.named_parameters()
        if p.grad is not None and ".layers." in name
    }
    assert blocks == {str(block) for block in range(BLOCKS)}


# --- files ------------------------------------------------------------------------------------------------


def test_a_tensor_that_the_file_lacks_is_refused_unless_it_is_named(speech: Path) -> None:
    model = transformers.AutoModel.from_pretrained(speech)
    tensors = model.state_dict()
    del tensors["encoder.layers.1.final_layer_norm.bias"]
    model.save_pretrained(speech, state_dict=tensors)
    with pytest.raises(
        UserError, match=r"lacks 1 of the encoder's tensors.*encoder\.layers\.1\.final_layer_norm"
    ):
        load(speech)
    encoder = load(speech, allow_missing=["encoder.layers.1.final_layer_norm.bias"])
    matched = encoder.loaded["encoder_tensors_matched"]
    assert matched == encoder.loaded["encoder_tensors"] - 1
    assert matched == len(tensors.keys() - {"masked_spec_embed"})  # of SpecAugment, which is off
    cut = load(speech, allow_missing=["encoder.layers.1.final_layer_norm.bias"], layer=1).loaded
    assert cut["encoder_tensors_matched"] == cut["encoder_tensors"]  # block 1 is the second


def test_a_model_with_a_head_gives_its_encoder(speech: Path) -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(speech, vocab_size=7)
    model = transformers.Wav2Vec2ForCTC(config)
    model.save_pretrained(speech)
    inner, own = model.wav2vec2.state_dict(), load(speech).model.state_dict()
    assert inner.keys() - own.keys() <= {"masked_spec_embed"}
    assert_close(own, {name: inner[name] for name in own}, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b"no"), "cannot be loaded ("),
        (lambda f: (f / "model.safetensors").unlink(), "cannot be loaded (OSError: "),
        (lambda f: (f / "preprocessor_config.json").unlink(), "cannot be loaded ("),
        (lambda f: (f / "config.json").write_text('{"model_type": "odd"}'), "cannot be loaded ("),
        (shutil.rmtree, "is neither a folder nor a name on the hub"),
    ],
    ids=["damaged", "no weights", "no extractor", "unknown", "no folder"],
)
def test_what_cannot_be_loaded_is_told_in_one_sentence(
    break_it: Callable[[Path], Any], said: str, speech: Path
) -> None:
    break_it(speech)
    with pytest.raises(UserError) as caught:
        load(speech)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_code_that_comes_with_a_model_is_not_run(speech: Path, tmp_path: Path) -> None:
    config = json.loads((speech / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoConfig": "theirs.Config"}}
    (speech / "config.json").write_text(json.dumps(config))
    (speech / "theirs.py").write_text(f"open({str(tmp_path / 'it-ran')!r}, 'w')\n")
    with pytest.raises(UserError, match="contains custom code"):
        load(speech)
    assert not (tmp_path / "it-ran").exists()


def test_what_prepares_its_input_in_another_way_is_refused_with_what_is_supported(
    speech: Path,
) -> None:
    transformers.SeamlessM4TFeatureExtractor().save_pretrained(speech)
    with pytest.raises(UserError, match=r"SeamlessM4TFeatureExtractor\) is not supported; .*AST"):
        HuggingFace.from_argument(str(speech))


def test_a_model_of_another_kind_behind_the_extractor_of_wav2vec_is_refused(tmp_path: Path) -> None:
    folder, config = tmp_path / "model", transformers.MoonshineConfig(hidden_size=8)
    config.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    with pytest.raises(
        UserError, match=r"\(moonshine, Wav2Vec2FeatureExtractor\) is not supported"
    ):
        HuggingFace.from_argument(str(folder))


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"pip install 'lape_bench\[hf\]'"):
        load_system("hf:anything")


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    def no_network(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    return tmp_path / "hub"


def test_a_model_of_the_hub_that_is_on_disk_needs_no_network_and_is_named_by_its_revision(
    speech: Path, hub: Path
) -> None:
    held = hub / "models--someone--tiny"
    shutil.copytree(speech, held / "snapshots" / COMMIT)
    (held / "refs").mkdir()
    (held / "refs" / "main").write_text(COMMIT)
    kind = HuggingFace.from_argument("someone/tiny")
    system = kind(kind.Settings(), TARGET, "linear")
    assert system.provenance["weights"] == f"someone/tiny, revision {COMMIT}"
    windows, local = noise(1), load(speech)
    encoder = system.build_encoder().eval()
    with torch.no_grad():
        assert torch.equal(encoder(encoder.features(windows)), local(local.features(windows)))


def test_without_a_network_a_model_that_is_not_on_disk_is_told_in_one_sentence(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match="is not on disk and cannot be downloaded from the hub"
    ) as caught:
        HuggingFace.from_argument("someone/other")
    assert "\n" not in str(caught.value)


# --- as systems -------------------------------------------------------------------------------------------


def test_the_weights_of_a_folder_are_named_by_their_hash_and_others_are_another_cell(
    speech: Path, synthetic: Path, progress: Progress, tmp_path: Path
) -> None:
    cell = Cell(system=f"hf:{speech}", task="synthetic-sounds", protocol="knn")
    options = RunOptions(out=tmp_path / "out", compute=CPU)
    first = run_cell(cell, options, progress)
    assert first.provenance["weights"].startswith("tiny-speech, SHA-256 ")
    assert first.provenance["transformers"] == transformers.__version__
    model = transformers.AutoModel.from_pretrained(speech)
    torch.nn.init.normal_(model.encoder.layers[0].attention.q_proj.weight)
    model.save_pretrained(speech)
    second = run_cell(cell, options, progress)
    assert second.identity != first.identity
    assert second.provenance["weights"] != first.provenance["weights"]


def test_a_probe_on_weighted_layers_is_trained_counted_saved_and_loaded(
    speech: Path, synthetic: Path, progress: Progress, tmp_path: Path
) -> None:
    kind = HuggingFace.from_argument(str(speech))
    make = partial(kind, kind.Settings(layer="weighted"), target_task(), "linear")
    harness = Harness(make, load_check_data(kind.sample_rate, progress), CPU, tmp_path)
    results = list(check_trained(harness, "linear"))
    assert len(results) > 5
    assert [result for result in results if not result.holds] == []


def test_a_model_of_transformers_keeps_the_contract(
    brief_check: dict[str, Any], speech: Path, synthetic: Path, progress: Progress
) -> None:
    results = list(check_system(f"hf:{speech}", brief_check, CPU, progress))
    assert [result for result in results if not result.holds] == []
    assert {"finetune", "linear", "mlp", "knn"} <= {result.group for result in results}


def test_the_mean_of_its_layers_keeps_the_contract_where_all_are_trained(
    brief_check: dict[str, Any],
    speech: Path,
    synthetic: Path,
    progress: Progress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What the layer changes is the encoder: a probe on it is that of any other layer.
    monkeypatch.setattr(HuggingFace, "protocols", ("finetune",))
    settings = brief_check | {"layer": "mean"}
    results = list(check_system(f"hf:{speech}", settings, CPU, progress))
    assert [result for result in results if not result.holds] == []
    assert {"encoder", "finetune"} <= {result.group for result in results}
