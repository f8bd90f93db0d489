"""The audit: scores that published shortcuts would have reported for the same run.

The shortcuts are the best epoch on test, one random crop per test clip, and random instead of official folds. Their
scores are recorded beside the real one and decide nothing.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lape_bench import metrics
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.learning.training.checkpoints import load_tensors, save_tensors


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
