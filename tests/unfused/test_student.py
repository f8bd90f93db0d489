"""The student: what its heads take and give, what they teach the blocks, and how many parameters it has."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from lape_bench.core.errors import UserError
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.unfused.student import Student

D, K = 8, 5
LAYERS = (2048, 1024, 512)  # 64 channels times 32, 16 and 8 bands


def log_mels(generator: torch.Generator, clips: int = 3) -> Tensor:
    return torch.randn(clips, 64, 16, generator=generator)


def student(shallow_heads: bool = True) -> Student:
    torch.manual_seed(0)
    return Student(AudioNTT(D), K, shallow_heads)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def encoder_by_hand(d: int) -> int:
    """Three convolutions of 3 x 3 and their batch norms, then 512 -> d -> d."""
    convolutions = sum(64 * (9 * inputs + 1) + 2 * 64 for inputs in (1, 64, 64))
    return convolutions + (512 * d + d) + (d * d + d)


def test_classifier_and_three_shallow_heads_give_logits_of_every_cluster(
    generator: torch.Generator,
) -> None:
    z, shallow = student()(log_mels(generator))
    assert z.shape == (3, K)
    assert [tuple(z_i.shape) for z_i in shallow] == [(3, K)] * 3


def test_a_shallow_head_is_three_linear_layers_with_batch_norm_and_relu_between() -> None:
    linears, kinds = [], []
    for head in student().shallow:
        kinds.append([type(layer) for layer in head])
        sizes = [(m.in_features, m.out_features) for m in head if isinstance(m, nn.Linear)]
        linears.append(sizes)
    between = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert kinds == [[*between, *between, nn.Linear]] * 3
    assert linears == [[(size, K), (K, K), (K, K)] for size in LAYERS]


def test_logits_are_those_of_the_parts_one_after_the_other(generator: torch.Generator) -> None:
    model = student().eval()
    x = log_mels(generator)
    z, shallow = model(x)
    assert_close(z, model.classifier(model.encoder(x)))
    output = x.unsqueeze(1)
    for block, head, z_i in zip(model.encoder.blocks, model.shallow, shallow, strict=True):
        output = block(output)
        over_time = output.mean(dim=-1).flatten(1)
        assert_close(z_i, head(over_time))


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_shallow_head_teaches_its_own_block_and_those_before_it(
    place: int, generator: torch.Generator
) -> None:
    model = student()
    _, shallow = model(log_mels(generator))
    shallow[place].square().sum().backward()
    reached = [block[0].weight.grad is not None for block in model.encoder.blocks]
    assert reached == [number <= place for number in range(3)]
    assert all(
        float(block[0].weight.grad.abs().sum()) > 0 for block in model.encoder.blocks[: place + 1]
    )
    assert all(parameter.grad is None for parameter in model.classifier.parameters())
    assert all(parameter.grad is None for parameter in model.encoder.steps.parameters())
    others = [head for number, head in enumerate(model.shallow) if number != place]
    assert all(parameter.grad is None for head in others for parameter in head.parameters())


def test_without_shallow_heads_there_is_the_classifier_alone(generator: torch.Generator) -> None:
    plain = student(shallow_heads=False)
    z, shallow = plain(log_mels(generator))
    assert (tuple(z.shape), shallow) == ((3, K), ())
    assert count(plain) == encoder_by_hand(D) + D * K + K


@pytest.mark.parametrize("sizes", [LAYERS[:2], (2048, 1024, 256), (*LAYERS, 8)])
def test_block_outputs_of_other_sizes_than_the_encoder_names_are_refused(
    sizes: tuple[int, ...], generator: torch.Generator
) -> None:
    encoder = AudioNTT(D)
    encoder.layer_sizes = sizes
    with pytest.raises(UserError, match=r"returns block outputs of sizes \(2048, 1024, 512\)"):
        Student(encoder, K)(log_mels(generator))
    Student(encoder, K, shallow_heads=False)(log_mels(generator))


def test_parameters_are_those_by_hand() -> None:
    model = student()
    norm = 2 * K
    heads = sum((size * K + K) + norm + (K * K + K) + norm + (K * K + K) for size in LAYERS)
    assert count(model.encoder) == encoder_by_hand(D)
    assert count(model) == encoder_by_hand(D) + (D * K + K) + heads


def test_width_1536_has_39_percent_fewer_encoder_parameters_than_2048() -> None:
    narrow, wide = (count(AudioNTT(d)) for d in (1536, 2048))
    assert wide == encoder_by_hand(2048) == 5_321_856
    assert narrow == encoder_by_hand(1536)
    assert 1 - narrow / wide == pytest.approx(0.39, abs=0.005)
