"""The audit: what published shortcuts would have reported for the same run.

Best epoch on test, one random crop a test clip, and random instead of official folds. Their figures stand
beside the honest one in the record and decide nothing.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lape_bench import metrics
from lape_bench.core.paths import write_text
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips


class EpochsOnTest:
    """Scores test after each epoch, as a benchmark does that picks its epoch there.

    Args:
        test: the test clips.
        labels: their classes, shape (clips,).
        metric: what to pick by.
        path: where scores are kept, so that a resumed run has those of the epochs before.
    """

    def __init__(self, test: Clips, labels: NDArray[np.int64], metric: str, path: Path) -> None:
        self.test, self.labels, self.metric, self.path = test, labels, metric, path
        self.by_epoch: dict[str, dict[str, float]] = (
            json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        )

    def __call__(self, epoch: int, score: Callable[[Clips], Tensor]) -> None:
        """Note the scores of an epoch."""
        self.by_epoch[str(epoch)] = metrics.score(score(self.test).numpy(), self.labels)
        write_text(self.path, json.dumps(self.by_epoch))

    def best(self) -> dict[str, float] | None:
        """Return the scores of the best epoch on test and its number; none where there are no epochs."""
        if not self.by_epoch:
            return None
        epoch = max(self.by_epoch, key=lambda key: self.by_epoch[key][self.metric])
        return {**self.by_epoch[epoch], "epoch": float(epoch)}


def one_random_crop(clips: Clips, window_seconds: float, seeds: Seeds) -> Clips:
    """Cut one random window from each clip, and keep shorter clips whole."""
    window = round(window_seconds * clips.rate)
    random = seeds.numpy("one random crop")
    waveforms = []
    for index in range(len(clips)):
        start = int(random.integers(0, max(1, int(clips.lengths[index]) - window + 1)))
        waveforms.append(clips[index][start : start + window])
    return Clips.pack(clips.ids, waveforms, clips.rate)
