"""Linear evaluation: a logistic regression on the embeddings of a frozen encoder."""

import logging
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn.utils import skip_init

from lape_bench import metrics
from lape_bench.core.config import Config
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.learning.training.inference import average_by_clip

logger = logging.getLogger(__name__)

MAX_ITERATIONS = 5000


class LinearConfig(Config):
    """Linear evaluation: standardized embeddings, logistic regression with an L2 penalty."""

    C: tuple[PositiveFloat, ...] = Field(
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0),
        min_length=1,
        description="inverse strength of the L2 penalty; validation selects one if several are given",
    )


@dataclass(frozen=True)
class EmbeddedWindows:
    """Embeddings of the windows of labeled clips.

    Attributes:
        embeddings: shape (windows, features), float32, on the CPU.
        owner: index of each window's clip, shape (windows,).
        labels: class of each clip, shape (clips,).
    """

    embeddings: Tensor
    owner: Tensor
    labels: Tensor


class FittedProbe(NamedTuple):
    """A fitted classifier and how it was selected.

    Attributes:
        layer: scaler and regression as one linear layer.
        chosen: the selected C, such as "C = 0.01".
        validation: the metric on the validation clips; None without them.
    """

    layer: nn.Linear
    chosen: str
    validation: float | None


def fit_linear(
    train: EmbeddedWindows,
    validation: EmbeddedWindows | None,
    classes: int,
    metric: str,
    config: LinearConfig,
    progress: Progress,
) -> FittedProbe:
    """Fit a logistic regression on standardized embeddings, and select its penalty on validation.

    Every window is an example, weighted so that each clip counts once.

    Args:
        train: labeled windows; the scaler is fitted to them too.
        validation: windows that select C; may be None if `config` has one value.
        classes: number of classes.
        metric: selects C; ties go to the higher mean log-likelihood, then to the stronger penalty.
        config: the values of C.
        progress: shows the fits.

    Raises:
        UserError: there are several values and no validation clips, or all labels are of one class.
    """
    if validation is None and len(config.C) > 1:
        raise UserError(
            f"linear.C names {len(config.C)} values, but the task leaves no clips to choose on",
            next_step="give one value, such as --set linear.C=[1.0]",
        )
    if len(torch.unique(train.labels)) < 2:
        raise UserError("the labeled clips are all of one class; a classifier needs two")
    targets = train.labels[train.owner].numpy()
    weights = 1 / torch.bincount(train.owner)[train.owner].numpy()
    # In float64: in float32 the point where the solver stops depends on how sums are rounded.
    exact = train.embeddings.to(torch.float64, copy=True).numpy()
    scaler = StandardScaler(copy=False).fit(exact, sample_weight=weights)
    examples = scaler.transform(
        exact
    )  # in place: for a large task this is most of the memory of a run
    best: tuple[tuple[float, float], float, nn.Linear] | None = None
    with progress.task("logistic regression", len(config.C), "fits") as task:
        for value in sorted(config.C):
            model = _fit_regression(value, examples, targets, weights)
            candidate = _as_layer(scaler, model, classes)
            task.advance()
            quality = _quality(candidate, validation, metric) if validation else (0.0, 0.0)
            if best is None or quality > best[0]:
                best = quality, value, candidate
    assert best is not None
    (score, _), inverse_penalty, layer = best
    return FittedProbe(layer, f"C = {inverse_penalty:g}", score if validation else None)


def _fit_regression(
    inverse_penalty: float,
    examples: NDArray[np.float64],
    targets: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> LogisticRegression:
    """Fit one logistic regression, and report if it does not converge."""
    model = LogisticRegression(C=inverse_penalty, max_iter=MAX_ITERATIONS)
    # On one thread: more threads take longer, several times so if another process uses the cores.
    with threadpool_limits(1), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(examples, targets, sample_weight=weights)
    if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
        logger.warning(
            f"logistic regression with C = {inverse_penalty} stopped after {MAX_ITERATIONS} iterations"
        )
    return model


@torch.no_grad()
def _quality(layer: nn.Linear, windows: EmbeddedWindows, metric: str) -> tuple[float, float]:
    by_window = layer(windows.embeddings).log_softmax(dim=1)
    rows = average_by_clip(by_window, windows.owner, len(windows.labels)).log_softmax(dim=1)
    value = metrics.score(rows.numpy(), windows.labels.numpy())[metric]
    return value, float(rows.gather(1, windows.labels[:, None]).mean())


def _as_layer(scaler: StandardScaler, model: LogisticRegression, classes: int) -> nn.Linear:
    """Fold standardization and regression into one layer; a class without a label never wins."""
    coefficients, intercepts = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn keeps one row for two classes
        coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
        intercepts = np.concatenate([np.zeros_like(intercepts), intercepts])
    weight = coefficients / scaler.scale_
    # Random weights are skipped: every one is set below.
    layer: nn.Linear = skip_init(  # type: ignore[no-untyped-call]  # untyped in torch
        nn.Linear, weight.shape[1], classes
    )
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(-1e4)
        layer.weight[model.classes_] = torch.from_numpy(weight).float()
        layer.bias[model.classes_] = torch.from_numpy(intercepts - weight @ scaler.mean_).float()
    return layer
