"""The protocol `mlp`: a classifier with one hidden layer on the embeddings of a frozen encoder, as HEAR's probe.

HEAR (arXiv:2203.03022, and its code `hear-eval-kit`) trains a hidden layer of 1,024 features with batch norm, ReLU and
dropout 0.1 from Xavier-uniform weights, by Adam in batches of 1,024. It selects among learning rates of 1e-4 to 3.2e-3
and further architectures with all labels of a validation set, which also stops the training. Here the labeled clips
select the rate, and the number of steps is fixed, with a cosine schedule. HEAR's smallest rate is left out: it needs
more steps than these.

Embeddings are centered and divided by one number, so that their unit does not matter. They are not standardized, as HEAR
does not: with few clips a feature that hardly varies among them would dominate others.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from pydantic import Field, PositiveFloat
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F

from lape_bench.core.config import Config
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.learning.encoders.heads import HiddenLayerClassifier, layer_of_present_classes
from lape_bench.learning.training.probe_selection import (
    EmbeddedWindows,
    FittedProbe,
    select_and_fit,
)
from lape_bench.runtime.optimizers import Adam

# With more labeled clips, one hold-out selects: a fit takes about ten times that of a regression.
CROSS_VALIDATED_CLIPS = 500


class MlpConfig(Config):
    """The probe with a hidden layer; hidden features, dropout, batch size and rates are HEAR's."""

    learning_rates: tuple[PositiveFloat, ...] = Field(
        (3.2e-4, 1e-3, 3.2e-3),
        min_length=1,
        description="of Adam, at the start of a cosine; of several, the labeled clips select one, or the middle one is taken if "
        "there are too few of them",
    )
    hidden: int = Field(1024, ge=1, description="features of the hidden layer")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of hidden features dropped")
    batch_size: int = Field(
        1024,
        ge=3,
        description="largest number of windows per step; from 3 on, no batch has a single window",
    )
    epochs: int = Field(20, ge=1, description="passes through the windows")
    min_steps: int = Field(
        100, ge=1, description="smallest number of steps; with few windows, more passes are made"
    )


def fit_mlp(
    train: EmbeddedWindows,
    validation: EmbeddedWindows | None,
    classes: int,
    metric: str,
    config: MlpConfig,
    seeds: Seeds,
    progress: Progress,
    device: torch.device,
) -> FittedProbe:
    """Fit a classifier with one hidden layer to embeddings, and select its learning rate (`select_and_fit`).

    Args:
        train: the labeled windows.
        validation: windows of further labeled clips that select the rate, or None to select inside the labeled ones.
        classes: number of classes.
        metric: selects the rate.
        config: how to train.
        seeds: of the run, for the folds, initial weights, batches and dropout. Every fit draws the same numbers.
        progress: shows the fits.
        device: where to train; the result is on the CPU.

    Raises:
        UserError: all labels are of one class.
    """

    def fit(windows: EmbeddedWindows, rates: Sequence[float]) -> Iterator[nn.Module]:
        return fit_learning_rates(windows, rates, classes, config, seeds, device)

    return select_and_fit(
        fit,
        "learning rate",
        config.learning_rates,
        train,
        validation,
        metric,
        seeds,
        progress,
        CROSS_VALIDATED_CLIPS,
    )


def fit_learning_rates(
    windows: EmbeddedWindows,
    rates: Sequence[float],
    classes: int,
    config: MlpConfig,
    seeds: Seeds,
    device: torch.device,
) -> Iterator[HiddenLayerClassifier]:
    """Train one classifier with each learning rate; each clip counts once, however many windows it has.

    Args:
        windows: examples.
        rates: learning rates.
        classes: number of classes. Those without a clip never win.
        config: how to train.
        seeds: for initial weights, batches and dropout.
        device: where to train; the results are on the CPU.
    """
    mean = windows.embeddings.double().mean(dim=0)
    centered = windows.embeddings.double() - mean
    scale = centered.square().mean().sqrt().clamp(min=torch.finfo(torch.float32).tiny)
    basis = _span_basis(centered, seeds)
    inputs = centered / scale if basis is None else centered @ (basis / scale)
    inputs = inputs.float().to(device)
    present, targets = torch.unique(windows.labels, return_inverse=True)
    targets = targets[windows.owner].to(device)
    weights = windows.window_weights().float().to(device)
    for rate in rates:
        with seeds.globally("mlp probe"):
            model = HiddenLayerClassifier(
                inputs.shape[1], config.hidden, len(present), config.dropout
            ).to(device)
            _train(model, inputs, targets, weights, rate, config, seeds)
            head = _on_embeddings(model.cpu(), mean, scale, basis, present, classes)
        yield head


def _span_basis(centered: Tensor, seeds: Seeds) -> Tensor | None:
    """Return a random orthonormal basis of the span of few examples, shape (features, examples), or None for many.

    Nothing can be learned of directions in which no example varies, but Adam would spend most of its time on them. The basis is
    random, as the features of an embedding have no order either.
    """
    examples, features = centered.shape
    if 2 * examples > features:
        return None
    turn = seeds.numpy("mlp probe").standard_normal((examples, examples))
    with threadpool_limits(1):
        span, _ = np.linalg.qr(centered.numpy().T)
        return torch.from_numpy(span @ np.linalg.qr(turn)[0])


def _train(
    model: HiddenLayerClassifier,
    inputs: Tensor,
    targets: Tensor,
    weights: Tensor,
    rate: float,
    config: MlpConfig,
    seeds: Seeds,
) -> None:
    """Train in place by Adam with a cosine schedule; batch sizes differ by at most one window."""
    random = seeds.torch("mlp probe")
    n_batches = -(-len(inputs) // config.batch_size)
    steps = max(config.min_steps, config.epochs * n_batches)
    optimizer = Adam(model.parameters(), rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches: list[Tensor] = []
    for _ in range(steps):
        if not batches:
            order = torch.randperm(len(inputs), generator=random)
            batches = [*order.to(inputs.device).tensor_split(n_batches)]
        batch = batches.pop()
        losses = F.cross_entropy(model(inputs[batch]), targets[batch], reduction="none")
        loss = (losses * weights[batch]).sum() / weights[batch].sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def _on_embeddings(
    model: HiddenLayerClassifier,
    mean: Tensor,
    scale: Tensor,
    basis: Tensor | None,
    present: Tensor,
    classes: int,
) -> HiddenLayerClassifier:
    """Return the same classifier as layers on embeddings, with an output for every class."""
    weight = model.hidden.weight.double() / scale
    weight = weight if basis is None else weight @ basis.T
    whole = HiddenLayerClassifier(len(mean), len(weight), classes)
    whole.hidden.weight.copy_(weight)
    whole.hidden.bias.copy_(model.hidden.bias.double() - weight @ mean)
    whole.norm.load_state_dict(model.norm.state_dict())
    output = model.output
    whole.output = layer_of_present_classes(output.weight, output.bias, present, classes)
    return whole.eval()
