"""How a probe's setting, such as its penalty, is selected: inside the labeled clips, then the probe is fitted to all of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lape_bench import metrics
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress, Running
from lape_bench.core.seeding import Seeds
from lape_bench.learning.training.inference import average_by_clip
from lape_bench.learning.training.label_folds import LabelFolds, label_folds


@dataclass(frozen=True)
class EmbeddedWindows:
    """Embeddings of the windows of labeled clips.

    Attributes:
        embeddings: shape (windows, features), float32, on the CPU.
        owner: index of each window's clip, shape (windows,), ascending.
        labels: class of each clip, shape (clips,).
        groups: code of each clip's group, shape (clips,).
    """

    embeddings: Tensor
    owner: Tensor
    labels: Tensor
    groups: Tensor

    def select(self, clips: NDArray[Any]) -> "EmbeddedWindows":
        """Return the windows of some clips, whose positions are ascending."""
        kept = torch.from_numpy(clips)
        position = torch.full((len(self.labels),), -1)
        position[kept] = torch.arange(len(kept))
        owner = position[self.owner]
        rows = owner >= 0
        return EmbeddedWindows(
            self.embeddings[rows], owner[rows], self.labels[kept], self.groups[kept]
        )

    def window_weights(self) -> Tensor:
        """Return weights by which each clip counts once, shape (windows,), float64."""
        return 1 / torch.bincount(self.owner).double()[self.owner]


class FittedProbe(NamedTuple):
    """A fitted probe and how its setting was selected.

    Attributes:
        head: from embeddings to class scores.
        selection: the selected setting and how, such as {"C = 0.01": "5-fold cross-validation of the 180 labeled clips"}. Empty
            if there was one value only.
        n_selection_clips: number of clips that selection used; 0 if nothing was selected.
        score: the task's metric in selection; None if nothing was scored.
    """

    head: nn.Module
    selection: dict[str, str]
    n_selection_clips: int
    score: float | None


Ranked = tuple[float, float]
"""The task's metric and the mean log-likelihood: more is better."""

Fit = Callable[[EmbeddedWindows, Sequence[float]], Iterable[nn.Module]]
"""From windows and values of a setting to a probe for each value."""


def select_and_fit(
    fit: Fit,
    setting: str,
    values: Iterable[float],
    train: EmbeddedWindows,
    validation: EmbeddedWindows | None,
    metric: str,
    seeds: Seeds,
    progress: Progress,
    cross_validated_clips: int,
) -> FittedProbe:
    """Select a setting's value, and fit a probe with it to all labeled clips.

    Each value is scored on clips that its probe was not fitted to: in folds of the labeled clips (`label_folds`; of many
    clips, in one hold-out), whose scores are pooled before the metric is computed. If there
    are validation clips, these decide instead.

    If the labeled clips cannot be divided, as with one clip a class, nothing is selected: the middle value is taken, the lower
    one of two.

    Args:
        fit: fits probes.
        setting: its name, for records.
        values: of the setting. Ties of the metric go to the higher mean log-likelihood, then to the lower value.
        train: the labeled windows.
        validation: windows of further labeled clips that select, or None.
        metric: the task's metric.
        seeds: of the run, for the folds.
        progress: shows the fits.
        cross_validated_clips: with more labeled clips, one hold-out selects. It takes a fifth of the time, and with many clips
            selects as well.

    Raises:
        UserError: all labels are of one class.
    """
    if len(torch.unique(train.labels)) < 2:
        raise UserError("the labeled clips are all of one class; a classifier needs two")
    ordered = sorted(set(values))
    if validation is not None:
        with progress.task("probe", len(ordered), "fits") as task:
            heads = [*_counted(fit(train, ordered), task)]
        ranked = [rank(_log_probabilities(h, validation), validation.labels, metric) for h in heads]
        best = _first_best(ranked)
        selection = {f"{setting} = {ordered[best]:g}": "validation"} if len(ordered) > 1 else {}
        n_clips = len(validation.labels) if selection else 0
        return FittedProbe(heads[best], selection, n_clips, ranked[best][0])
    if len(ordered) == 1:
        (head,) = fit(train, ordered)
        return FittedProbe(head, {}, 0, None)
    divided = label_folds(train.labels, train.groups, seeds)
    if divided.clips > cross_validated_clips:
        divided = divided.hold_out()
    best, score = (len(ordered) - 1) // 2, None
    how = divided.description
    with progress.task("probe", len(ordered) * len(divided.folds) + 1, "fits") as task:
        if divided.folds:
            ranked = _cross_validate(fit, ordered, train, divided, metric, task)
            best = _first_best(ranked)
            score = ranked[best][0]
        (head,) = _counted(fit(train, [ordered[best]]), task)
    selection = {f"{setting} = {ordered[best]:g}": how}
    return FittedProbe(head, selection, divided.n_scored, score)


def _cross_validate(
    fit: Fit,
    values: Sequence[float],
    train: EmbeddedWindows,
    divided: LabelFolds,
    metric: str,
    task: Running,
) -> list[Ranked]:
    """Return the rank of each value by the pooled scores of all folds."""
    rows: list[list[Tensor]] = [[] for _ in values]
    for fold in divided.folds:
        held = train.select(fold.held)
        heads = _counted(fit(train.select(fold.train), values), task)
        for value_rows, head in zip(rows, heads, strict=True):
            value_rows.append(_log_probabilities(head, held))
    labels = torch.cat([train.labels[fold.held] for fold in divided.folds])
    return [rank(torch.cat(value_rows), labels, metric) for value_rows in rows]


def _counted(heads: Iterable[nn.Module], task: Running) -> Iterator[nn.Module]:
    for head in heads:
        task.advance()
        yield head


@torch.no_grad()
def _log_probabilities(head: nn.Module, windows: EmbeddedWindows) -> Tensor:
    """Score clips as `inference.class_log_probabilities` does, shape (clips, classes)."""
    by_window = head.eval()(windows.embeddings).log_softmax(dim=1)
    return average_by_clip(by_window, windows.owner, len(windows.labels)).log_softmax(dim=1)


def rank(log_probabilities: Tensor, labels: Tensor, metric: str) -> Ranked:
    """Return what clips are selected by: the metric, and the mean log-likelihood of their classes."""
    value = metrics.score(log_probabilities.numpy(), labels.numpy())[metric]
    return value, float(log_probabilities.gather(1, labels[:, None]).mean())


def _first_best(ranked: Sequence[Ranked]) -> int:
    return max(range(len(ranked)), key=ranked.__getitem__)
