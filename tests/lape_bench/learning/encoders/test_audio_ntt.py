"""AudioNTT against its published size, and against a loop over time steps."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.log_mel import LogMelConfig


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def encoder() -> AudioNTT:
    """A narrow encoder in eval mode whose batch norms have statistics of their own."""
    torch.manual_seed(0)
    encoder = AudioNTT(16)
    with torch.no_grad():
        encoder(noise(4, 64, 40))
    return encoder.eval()


@pytest.mark.parametrize(
    ("width", "parameters"), [(512, 600_192), (1024, 1_649_792), (2048, 5_321_856)]
)
def test_the_encoder_has_the_published_number_of_parameters(width: int, parameters: int) -> None:
    encoder = AudioNTT(width)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters
    assert encoder.embedding_size == width


def test_the_default_width_is_the_published_one() -> None:
    assert AudioNTT().embedding_size == 2048


def block_by_hand(x: Tensor, weights: dict[str, Tensor], block: int) -> Tensor:
    """Convolution, batch norm by its running statistics, ReLU, and the maximum of each 2 x 2 square."""
    w = {name: weights[f"blocks.{block}.{name}"] for name in ("0.weight", "0.bias")}
    n = {
        name: weights[f"blocks.{block}.1.{name}"][:, None, None]
        for name in ("weight", "bias", "running_mean", "running_var")
    }
    x = F.conv2d(x, w["0.weight"].contiguous(), w["0.bias"], padding=1)
    x = (x - n["running_mean"]) / torch.sqrt(n["running_var"] + 1e-5) * n["weight"] + n["bias"]
    x = x.clamp(min=0)
    height, length = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    squares = [x[:, :, i:height:2, j:length:2] for i in range(2) for j in range(2)]
    return torch.stack(squares).amax(dim=0)


@pytest.mark.parametrize("frames", [8, 31, 101])
def test_the_embedding_agrees_with_a_loop_over_clips_and_time_steps(
    encoder: AudioNTT, frames: int
) -> None:
    weights = {name: tensor.double() for name, tensor in encoder.state_dict().items()}
    log_mels = noise(3, 64, frames)
    x = log_mels.double()[:, None]
    for block in range(3):
        x = block_by_hand(x, weights, block)
    assert x.shape == (3, 64, 8, frames // 8)
    rows = []
    for clip in x:
        steps = []
        for t in range(frames // 8):
            # BYOL-A's order: all channels of the lowest band, then those of the next.
            step = torch.stack(
                [clip[channel, band, t] for band in range(8) for channel in range(64)]
            )
            hidden = (weights["steps.0.weight"] @ step + weights["steps.0.bias"]).clamp(min=0)
            steps.append(
                (weights["steps.3.weight"] @ hidden + weights["steps.3.bias"]).clamp(min=0)
            )
        highest = [max(float(step[d]) for step in steps) for d in range(16)]
        mean = [sum(float(step[d]) for step in steps) / len(steps) for d in range(16)]
        rows.append([h + m for h, m in zip(highest, mean, strict=True)])
    expected = torch.tensor(rows, dtype=torch.float64)
    assert expected.abs().max() > 0
    assert_close(encoder(log_mels).double(), expected, rtol=1e-4, atol=1e-5)


def test_in_eval_mode_a_clip_does_not_depend_on_the_clips_beside_it(encoder: AudioNTT) -> None:
    log_mels = noise(6, 64, 31)
    together = encoder(log_mels)
    log_mels[1:] *= 50
    assert_close(encoder(log_mels)[:1], together[:1])
    assert_close(encoder(log_mels[:1]), together[:1])


def test_dropout_works_in_training_alone(encoder: AudioNTT) -> None:
    log_mels = noise(2, 64, 31)
    assert torch.equal(encoder(log_mels), encoder(log_mels))
    assert [module.p for module in encoder.modules() if isinstance(module, torch.nn.Dropout)] == [
        0.3
    ]
    for block in encoder.blocks:
        block.eval()
    encoder.steps.train()
    assert not torch.equal(encoder(log_mels), encoder(log_mels))


def test_features_are_normalized_by_what_was_fitted_and_saved_with_the_encoder() -> None:
    encoder, other = AudioNTT(8), AudioNTT(8)
    waveforms = 0.1 * noise(4, 4_000)
    raw = encoder.features(waveforms)
    encoder.fit_features([waveforms])
    assert_close(encoder.features(waveforms), (raw - raw.mean()) / raw.std(correction=0))
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(other.features(waveforms), encoder.features(waveforms))


def test_the_front_end_decides_bands_and_rate() -> None:
    config = LogMelConfig(sample_rate=8_000, n_fft=512, n_mels=32, fmax_hz=3_900.0)
    encoder = AudioNTT(8, config).eval()
    features = encoder.features(noise(2, 8_000))
    assert features.shape == (2, 32, 51)
    assert encoder(features).shape == (2, 8)
    assert encoder.sample_rate == 8_000


# --- the layers of the encoder ----------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [8, 31, 101])
def test_the_embedding_beside_the_layers_is_that_of_the_encoder_alone(
    encoder: AudioNTT, frames: int
) -> None:
    log_mels = noise(3, 64, frames)
    assert torch.equal(encoder.with_layers(log_mels)[0], encoder(log_mels))


@pytest.mark.parametrize("frames", [8, 31, 101])
def test_each_layer_is_the_average_over_time_of_what_its_block_gave_for_a_clip(
    encoder: AudioNTT, frames: int
) -> None:
    weights = {name: tensor.double() for name, tensor in encoder.state_dict().items()}
    log_mels = noise(3, 64, frames)
    _, layers = encoder.with_layers(log_mels)
    assert len(layers) == 3
    for clip, given in enumerate(log_mels.double()):
        x = given[None, None]
        for block, layer in enumerate(layers):
            x = block_by_hand(x, weights, block)
            channels, bands, steps = x.shape[1:]
            by_hand = [
                sum(float(x[0, channel, band, t]) for t in range(steps)) / steps
                for channel in range(0, channels, 21)
                for band in range(bands)
            ]
            # All bands of a channel stand together.
            found = layer[clip].reshape(channels, bands)[::21].flatten()
            assert_close(found.double(), torch.tensor(by_hand).double(), rtol=1e-4, atol=1e-5)


def test_the_layers_have_the_sizes_that_they_are_said_to_have(encoder: AudioNTT) -> None:
    assert encoder.layer_sizes == (2048, 1024, 512)
    _, layers = encoder.with_layers(noise(3, 64, 20))
    assert [tuple(layer.shape) for layer in layers] == [(3, 2048), (3, 1024), (3, 512)]


def test_with_fewer_bands_the_layers_are_smaller() -> None:
    encoder = AudioNTT(8, LogMelConfig(n_mels=24)).eval()
    _, layers = encoder.with_layers(noise(2, 24, 16))
    assert encoder.layer_sizes == (768, 384, 192)
    assert tuple(layer.shape[1] for layer in layers) == encoder.layer_sizes


def test_a_loss_on_a_layer_trains_its_block_and_those_below_it_alone(encoder: AudioNTT) -> None:
    _, layers = encoder.with_layers(noise(2, 64, 16))
    layers[1].square().sum().backward()
    reached = [block[0].weight.grad is not None for block in encoder.blocks]
    assert reached == [True, True, False]
    assert all(parameter.grad is None for parameter in encoder.steps.parameters())
