"""The audit: scores that published shortcuts would have reported for the same run.

The shortcuts are the best epoch on test, one random crop per test clip, and random instead of official folds. Their
scores are recorded beside the real one and decide nothing.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lape_bench import metrics
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.data.splits import random_like
from lape_bench.evaluation.evaluation_data import EvaluationData, training_data
from lape_bench.evaluation.plan import ResolvedCell
from lape_bench.evaluation.train_and_score import score, train_or_load
from lape_bench.learning.training.checkpoints import load_tensors, save_tensors
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.system import RunContext

EPOCH_SCORES = "epoch-scores"  # in the work folder


class EpochScores:
    """Scores the test clips after each epoch and stores the scores. `best_epoch` compares them with labels.

    A system has access to this object during training. So it holds the numbered test audio and no label.

    Args:
        test: the test clips.
        folder: folder for one file of scores per epoch, so that a resumed run has the scores of earlier epochs.
    """

    def __init__(self, test: Clips, folder: Path) -> None:
        self.test, self.folder = test.numbered(), folder

    def __call__(self, epoch: int, score: Callable[[Clips], Tensor]) -> None:
        """Keep the scores of an epoch, shape (clips, classes)."""
        save_tensors(self.folder / f"{epoch}.pt", {"scores": score(self.test)})


def best_epoch(folder: Path, labels: NDArray[np.int64], metric: str) -> dict[str, float] | None:
    """Return the metrics of the epoch that is best on test, and its number, as a benchmark that selects on test would.

    Args:
        folder: folder in which `EpochScores` stored the scores.
        labels: classes of the test clips, shape (clips,).
        metric: metric to select by; the first of equal epochs is chosen.

    Returns:
        None if there are no epochs.

    Raises:
        DamagedFile: a file of scores is damaged.
    """
    best: dict[str, float] | None = None
    for path in sorted(folder.glob("*.pt"), key=lambda path: int(path.stem)):
        of_epoch = load_tensors(path, torch.device("cpu"))["scores"].numpy()
        scores = {**metrics.score(of_epoch, labels), "epoch": float(path.stem)}
        if best is None or scores[metric] > best[metric]:
            best = scores
    return best


def one_random_crop(clips: Clips, window_seconds: float, seeds: Seeds) -> Clips:
    """Cut one random window from each clip, and keep shorter clips whole."""
    window = round(window_seconds * clips.rate)
    random = seeds.numpy("one random crop")
    waveforms = []
    for index in range(len(clips)):
        start = int(random.integers(0, max(1, int(clips.lengths[index]) - window + 1)))
        waveforms.append(clips[index][start : start + window])
    return Clips.pack(clips.ids, waveforms, clips.rate)


def score_shortcuts(
    resolved: ResolvedCell, data: EvaluationData, context: RunContext
) -> dict[str, dict[str, float]]:
    """Score the shortcuts. The last one trains again, on a random split of the same size."""
    system, scores = resolved.system, {}
    best = best_epoch(context.work_folder / EPOCH_SCORES, data.test_labels, resolved.card.metric)
    if best is not None:
        scores["best_epoch_on_test"] = best
    crops = one_random_crop(data.test, resolved.card.window_seconds, context.seeds)
    scores["one_random_crop"] = metrics.score(score(system, crops, context), data.test_labels)
    names = resolved.manifest.clips["label"].to_numpy(object)
    split = random_like(data.split, names, context.seeds.numpy("random split"))
    untrained = type(system)(system.settings, system.target, system.protocol)
    work = context.work_folder / "random-split"
    work.mkdir(exist_ok=True)
    own_context = replace(
        context,
        work_folder=work,
        profiler=StageProfiler(context.device),
        artifacts=[],
        resampled_train=data.resampled_train(split),
        train_groups=data.train_groups(split),
    )
    train_or_load(
        untrained, training_data(data.clips, data.labels, data.groups, split), own_context
    )
    log_probabilities = score(untrained, data.clips.select(split.test), own_context)
    scores["random_split"] = metrics.score(log_probabilities, data.labels[split.test])
    return scores
