"""Bundles of torchaudio, tiny and random, with their weights where torch.hub keeps them."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close
from torchaudio.pipelines import Wav2Vec2Bundle
from torchaudio.pipelines._wav2vec2.impl import Wav2Vec2ASRBundle

from lape_bench.baselines.torchaudio_bundle import BundleEncoder, TorchaudioBundle
from lape_bench.conformance.check import check_system
from lape_bench.core.errors import UserError
from lape_bench.core.paths import sha256
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import load_system
from lape_bench.runtime.device import Compute
from lape_bench.system import ProtocolName, TargetTask

CPU = Compute(device="cpu", precision="float32", threads=1)
TARGET = TargetTask(classes=("a", "b"), window_seconds=0.5, metric="accuracy")
BLOCKS = 3


def parameters(first: bool, outputs: int | None = None) -> dict[str, Any]:
    return {
        "extractor_mode": "layer_norm" if first else "group_norm",
        "extractor_conv_layer_config": [(8, 10, 5), (8, 8, 4), (8, 4, 4)],
        "extractor_conv_bias": first,
        "encoder_embed_dim": 16,
        "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 16,
        "encoder_pos_conv_groups": 2,
        "encoder_num_layers": BLOCKS,
        "encoder_num_heads": 2,
        "encoder_attention_dropout": 0.1,
        "encoder_ff_interm_features": 32,
        "encoder_ff_interm_dropout": 0.0,
        "encoder_dropout": 0.1,
        "encoder_layer_norm_first": first,
        "encoder_layer_drop": 0.9,
        "aux_num_out": outputs,
    }


BUNDLES = {
    "TINY_BASE": Wav2Vec2Bundle("tiny_base.pth", parameters(False), 16_000, False, "Wav2Vec2"),
    "TINY_LARGE": Wav2Vec2Bundle("tiny_large.pth", parameters(True), 16_000, True, "Wav2Vec2"),
    "TINY_ASR": Wav2Vec2ASRBundle(
        "tiny_asr.pth", parameters(True, 9), 16_000, True, "Wav2Vec2", tuple("abcde"), (1, 2, 3)
    ),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of torch.hub, with the weights of three small bundles."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for seed, (name, bundle) in enumerate(BUNDLES.items()):
        monkeypatch.setattr(torchaudio.pipelines, name, bundle, raising=False)
        torch.manual_seed(seed)
        # Of a model for speech recognition three outputs are dropped when it is loaded.
        outputs = bundle._params["aux_num_out"]
        whole = bundle._params | {"aux_num_out": outputs and outputs + 3}
        torch.save(torchaudio.models.wav2vec2_model(**whole).state_dict(), folder / bundle._path)
    return folder


def load(name: str, protocol: ProtocolName = "linear", **settings: Any) -> BundleEncoder:
    kind = TorchaudioBundle.from_argument(name)
    return kind(kind.Settings(**settings), TARGET, protocol).build_encoder().eval()


def noise() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.tensor([[0.001], [0.3], [0.05]]) * torch.randn(3, 8_000, generator=generator)


@pytest.mark.parametrize("name", ["TINY_BASE", "TINY_LARGE"])
def test_each_layer_of_a_bundle_is_what_torchaudio_says_of_every_window_alone(
    name: str, hub: Path
) -> None:
    model, windows = BUNDLES[name].get_model(), noise()
    # Alone, what torchaudio normalizes as a batch is the window itself.
    found = [model.extract_features(window[None])[0] for window in windows]
    for layer in range(1, BLOCKS + 1):
        encoder = load(name, layer=layer)
        expected = torch.cat([layers[layer - 1].mean(dim=1) for layers in found])
        assert_close(encoder(encoder.features(windows)), expected, rtol=1e-4, atol=1e-6)
    last = torch.cat([model(window[None])[0].mean(dim=1) for window in windows])
    encoder = load(name)
    assert_close(encoder(encoder.features(windows)), last, rtol=1e-4, atol=1e-6)
    assert encoder.loaded["encoder_tensors_matched"] == len(encoder.model.state_dict())


@pytest.mark.parametrize("layer", ["last", "mean"])
@pytest.mark.parametrize("name", ["TINY_BASE", "TINY_LARGE", "WavLM"])
def test_a_padded_clip_is_embedded_as_it_is_alone(name: str, layer: Any, hub: Path) -> None:
    if name == "WavLM":
        torch.manual_seed(0)
        model = torchaudio.models.wavlm_model(
            **parameters(False), encoder_num_buckets=8, encoder_max_distance=20
        )
        encoder = BundleEncoder(model, False, layer, 16_000).eval()
    else:
        encoder = load(name, layer=layer)
    windows, lengths = noise(), torch.tensor([1_700, 8_000, 5_003])
    windows[torch.arange(8_000) >= lengths[:, None]] = 0
    windows = 30 * windows  # otherwise the first clip is so quiet that biases are all there is
    with torch.no_grad():
        together = encoder(encoder.features(windows, lengths), lengths)
        longer = torch.cat([windows, torch.zeros(3, 3_000)], dim=1)
        assert_close(encoder(encoder.features(longer, lengths), lengths), together)
        for index, length in enumerate(lengths.tolist()):
            alone = encoder(encoder.features(windows[index : index + 1, :length]))
            assert_close(together[index : index + 1], alone, rtol=1e-3, atol=1e-5)
        unmasked = encoder(encoder.features(windows))
    assert (unmasked[0] - together[0]).abs().max() > 1e-3, "padding is heard without lengths"


def test_a_mask_is_that_of_torchaudio_if_no_norm_is_over_time(hub: Path) -> None:
    encoder, model = load("TINY_LARGE"), BUNDLES["TINY_LARGE"].get_model().model.eval()
    windows, lengths = noise(), torch.tensor([1_700, 8_000, 5_003])
    windows[torch.arange(8_000) >= lengths[:, None]] = 0
    features = encoder.features(windows, lengths)
    with torch.no_grad():
        states, frames = model(features, lengths)
        expected = [row[:count].mean(dim=0) for row, count in zip(states, frames, strict=True)]
        assert_close(encoder(features, lengths), torch.stack(expected), rtol=1e-4, atol=1e-6)


def test_layer_0_is_what_the_first_block_is_given(hub: Path) -> None:
    encoder = load("TINY_LARGE", layer=0)
    transformer = encoder.model.encoder.transformer
    transformer.layers = nn.ModuleList(transformer.layers[:1])
    block = transformer.layers[0]
    features = encoder.features(noise())
    given = encoder.layers(features)[0]
    assert_close(encoder(features), given.mean(dim=1))
    assert_close(block(given)[0], encoder.layers(features)[1])


def test_the_mean_is_of_all_layers(hub: Path) -> None:
    windows = noise()
    layers = [load("TINY_BASE", layer=layer) for layer in range(BLOCKS + 1)]
    mean = load("TINY_BASE", layer="mean")
    expected = sum(each(each.features(windows)) for each in layers) / len(layers)
    assert_close(mean(mean.features(windows)), expected)


def test_the_same_weights_embed_alike_through_transformers(hub: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    hugging_face = pytest.importorskip("lape_bench.baselines.hugging_face")
    from torchaudio.models.wav2vec2.utils import import_huggingface_model

    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=BLOCKS, num_attention_heads=2, intermediate_size=32,
        conv_dim=(8, 8, 8), conv_kernel=(10, 8, 4), conv_stride=(5, 4, 4), conv_bias=True,
        num_feat_extract_layers=3, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
        do_stable_layer_norm=True, feat_extract_norm="layer",
    )  # fmt: skip
    theirs = transformers.AutoModel.from_config(config)
    theirs.save_pretrained(tmp_path / "model")
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path / "model")
    torch.save(import_huggingface_model(theirs).state_dict(), hub / "tiny_large.pth")
    windows = noise()[1:]  # of a quiet one the two add differently before the root
    kind = hugging_face.HuggingFace.from_argument(str(tmp_path / "model"))
    for layer in ("last", "mean", 0, 2):
        one = load("TINY_LARGE", layer=layer)
        other = kind(kind.Settings(layer=layer), TARGET, "linear").build_encoder().eval()
        with torch.no_grad():
            assert_close(
                one(one.features(windows)), other(other.features(windows)), rtol=1e-2, atol=1e-3
            )


def test_the_head_of_a_model_for_speech_recognition_is_dropped(hub: Path) -> None:
    encoder = load("TINY_ASR")
    assert not [name for name in encoder.state_dict() if "aux" in name]
    plain = torchaudio.models.wav2vec2_model(**parameters(True))
    assert sum(p.numel() for p in encoder.parameters()) == sum(
        p.numel() for p in plain.parameters()
    )


def test_windows_are_normalized_each_by_itself(hub: Path) -> None:
    windows = noise()
    expected = torch.stack([F.layer_norm(window, window.shape) for window in windows])
    assert_close(load("TINY_LARGE").features(windows), expected)
    assert torch.equal(load("TINY_BASE").features(windows), windows)


def test_fine_tuning_reaches_every_block_in_every_step(hub: Path) -> None:
    encoder = load("TINY_BASE", "finetune", layer="weighted").train()
    encoder(encoder.features(noise())).sum().backward()
    reached = {name for name, p in encoder.named_parameters() if p.grad is not None}
    assert "layer_weights" in reached
    for block in range(BLOCKS):
        assert f"model.encoder.transformer.layers.{block}.attention.q_proj.weight" in reached


def test_weights_on_disk_are_named_by_their_hash(hub: Path) -> None:
    kind = TorchaudioBundle.from_argument("TINY_BASE")
    system = kind(kind.Settings(), TARGET, "linear")
    assert system.provenance == {
        "weights": f"tiny_base.pth, SHA-256 {sha256(hub / 'tiny_base.pth')}"
    }


def test_weights_that_are_not_to_be_had_are_told_in_one_sentence_with_their_place(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: Any, **__: Any) -> None:
        raise URLError("no route\nto host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    path = hub / "tiny_base.pth"
    path.unlink()
    kind = TorchaudioBundle.from_argument("TINY_BASE")
    with pytest.raises(UserError) as caught:
        _ = kind(kind.Settings(), TARGET, "linear").provenance
    assert str(path) in str(caught.value)
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be loaded"):
        load("TINY_BASE")


def test_an_unknown_bundle_gets_the_nearest_one() -> None:
    with pytest.raises(UserError, match="did you mean 'WAV2VEC2_BASE'"):
        load_system("torchaudio:WAV2VEC2_BASS")
    with pytest.raises(UserError, match=r"no bundle of wav2vec 2\.0.* 'HDEMUCS_HIGH_MUSDB'"):
        load_system("torchaudio:HDEMUCS_HIGH_MUSDB")


def test_a_bundle_keeps_the_contract(
    hub: Path, brief_check: dict[str, Any], synthetic: Path, progress: Progress
) -> None:
    settings = brief_check | {"layer": "mean"}
    results = list(check_system("torchaudio:TINY_LARGE", settings, CPU, progress))
    assert [result for result in results if not result.holds] == []
