"""Folds of the labeled clips: what is selected inside a label budget is selected by them.

Folds are stratified by class and keep groups, such as speakers, whole, so that a fold measures what test measures: classes of
clips from groups that were not trained on. See `label_folds` for classes that are too small.
"""

import warnings
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lape_bench.core.seeding import Seeds

FOLDS = 5  # at most, so that about a fifth is held out


class LabelFold(NamedTuple):
    """One division of the labeled clips.

    Attributes:
        train: positions of the clips to train on, ascending.
        held: positions of the clips to score, ascending; each is of a class that `train` has too.
        n_classes: number of classes that `held` has.
    """

    train: NDArray[np.int64]
    held: NDArray[np.int64]
    n_classes: int


@dataclass(frozen=True)
class LabelFolds:
    """Divisions of the labeled clips for cross-validation.

    Attributes:
        folds: no clip is held by two folds. Empty if the labeled clips cannot be divided.
        clips: number of labeled clips.
        remark: how groups were treated, or why there are no folds, for records.
    """

    folds: tuple[LabelFold, ...]
    clips: int
    remark: str = ""

    @property
    def n_scored(self) -> int:
        """Return the number of clips that a fold holds."""
        return _n_scored(self.folds)

    @property
    def description(self) -> str:
        """Return how a choice is made with these folds, such as "5-fold cross-validation of the 180 labeled clips"."""
        if not self.folds:
            return f"a default, since there are {self.remark}"
        if len(self.folds) == 1:
            text = f"a hold-out of {self.n_scored:,} of the {self.clips:,} labeled clips"
        else:
            text = f"{len(self.folds)}-fold cross-validation of the {self.clips:,} labeled clips"
            if self.n_scored < self.clips:
                text += f" ({self.n_scored:,} scored)"
        return f"{text}, {self.remark}" if self.remark else text

    def hold_out(self) -> "LabelFolds":
        """Return the fold that holds the most classes, the first of several, alone: about a fifth, more if classes are small."""
        most = max((fold.n_classes for fold in self.folds), default=0)
        return replace(self, folds=tuple(f for f in self.folds if f.n_classes == most)[:1])


def label_folds(labels: Tensor, groups: Tensor, seeds: Seeds) -> LabelFolds:
    """Divide labeled clips into up to `FOLDS` folds, stratified by class, with whole groups.

    There are no more folds than the largest class has groups. Special cases:

    - A clip whose class is not among a fold's train clips, such as the only clip of its class, is not scored there.
    - If whole groups leave most clips unscored, as when each class has a single group, the folds divide groups, and `remark`
      says so.
    - With one clip a class, or clips of a single class, there are no folds.

    Args:
        labels: class of each clip, shape (clips,), int64.
        groups: code of each clip's group, shape (clips,), int64; a clip without a group has a code of its own.
        seeds: of the run; the folds follow from it and from the order of the clips.
    """
    classes = np.unique(labels.numpy(), return_inverse=True)[1]
    codes = np.unique(groups.numpy(), return_inverse=True)[1]
    seed = int(seeds.numpy("label folds").integers(2**31))
    folds, remark = _split(classes, codes, seed), ""
    if len(np.unique(codes)) < len(codes):
        remark = "groups kept whole"
        divided = _split(classes, np.arange(len(classes)), seed)
        if 2 * _n_scored(folds) < _n_scored(divided):
            folds = divided
            remark = "groups divided because whole groups would leave classes without train clips"
    if len({int(c) for fold in folds for c in classes[fold.held]}) < 2:
        return LabelFolds((), len(classes), "too few labeled clips to hold any out")
    return LabelFolds(folds, len(classes), remark)


def _n_scored(folds: tuple[LabelFold, ...]) -> int:
    return sum(len(fold.held) for fold in folds)


def _split(
    classes: NDArray[np.int64], groups: NDArray[np.int64], seed: int
) -> tuple[LabelFold, ...]:
    """Split by scikit-learn, and leave out what cannot be scored."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # slow to import

    pairs = np.unique(np.stack([classes, groups]), axis=1)
    n_folds = min(FOLDS, int(np.bincount(pairs[0]).max()))
    if n_folds < 2:
        return ()
    one_clip_each = len(np.unique(groups)) == len(groups)
    # Without groups the result is as good, and the other splitter takes long with many groups.
    kind = StratifiedKFold if one_clip_each else StratifiedGroupKFold
    splitter = kind(n_folds, shuffle=True, random_state=seed)
    folds = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer clips than folds
        for train, held in splitter.split(np.zeros(len(classes)), classes, groups):
            known = held[np.isin(classes[held], classes[train])]
            if len(known) and len(np.unique(classes[train])) > 1:
                n_classes = len(np.unique(classes[known]))
                folds.append(LabelFold(np.sort(train), np.sort(known), n_classes))
    return tuple(folds)
