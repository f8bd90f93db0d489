"""Which clips a cell trains on, validates on and is tested on.

Official splits and folds come from the manifest; a validation hold-out and the label fraction are
drawn here, from the run's seed and the task alone, so that every system sees the same labels.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lape_bench.core.errors import UserError
from lape_bench.core.seeding import Seeds
from lape_bench.data.manifest import Manifest
from lape_bench.task import TaskCard

HELD_OUT = 0.1  # share of train that validates where the task has no validation split

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Rows of a manifest by what they are for, sorted, disjoint but for `labeled`.

    Attributes:
        train: clips whose audio may be trained on.
        labeled: those of them whose labels may be used too.
        validation: clips that selection sees; empty where nothing is selected.
        test: clips that are scored once, at the end.
        validation_origin: "official", "held out of train" or "none".
    """

    train: Indices
    labeled: Indices
    validation: Indices
    test: Indices
    validation_origin: str


def make_split(
    manifest: Manifest,
    card: TaskCard,
    fold: int,
    seed: int,
    label_fraction: float = 1.0,
    uses_validation: bool = True,
) -> Split:
    """Draw the split of one cell.

    Args:
        manifest: the task's clips.
        card: its card.
        fold: the fold to test on, from 1; 0 for an official split.
        seed: the run's seed.
        label_fraction: share of train whose labels are used, in (0, 1].
        selects: whether the system chooses anything on validation. Where it does not and the task has no
            validation split of its own, holding clips out would only waste their labels: they stay in train.

    Raises:
        UserError: the task has no such fold, or a side is empty.
    """
    card.check_fold(fold)
    clips = manifest.clips
    is_test = is_tested(manifest, card, fold)
    if card.split.folds:
        is_validation = np.zeros(len(clips), bool)
    else:
        is_validation = (clips["split"] == "val").to_numpy()
    train = np.flatnonzero(~is_test & ~is_validation)
    test, validation = np.flatnonzero(is_test), np.flatnonzero(is_validation)
    if not len(train) or not len(test):
        raise UserError(
            f"{card.reference} has {len(train)} clips to train on and {len(test)} to test"
        )
    seeds = Seeds(seed, card.reference, fold)
    origin = "official" if len(validation) else "held out of train"
    # With a fraction of the labels nothing is gained by keeping all of train, and drawing from what is left
    # after the hold-out gives every system the same labels.
    if not len(validation) and (uses_validation or label_fraction < 1):
        held_out = hold_out(clips.iloc[train], seeds.numpy("validation"))
        train, validation = train[~held_out], train[held_out]
    if not uses_validation:
        validation = validation[:0]
    if not len(validation):
        origin = "none"
    labels = clips["label"].iloc[train].to_numpy()
    rank = label_order(labels, seeds.numpy("labels"))
    labeled = train[take_fraction(rank, labels, label_fraction)]
    return Split(train, labeled, validation, test, origin)


def is_tested(manifest: Manifest, card: TaskCard, fold: int) -> NDArray[np.bool_]:
    """Tell of each clip whether a cell of this fold is tested on it; fold 0 is an official split."""
    clips = manifest.clips
    tested: NDArray[np.bool_] = (
        clips["fold"].to_numpy() == fold
        if card.split.folds
        else (clips["split"] == "test").to_numpy()
    )
    return tested


def hold_out(train: pd.DataFrame, random: np.random.Generator) -> NDArray[np.bool_]:
    """Choose about a tenth of train for validation: stratified by class, whole groups only.

    Without groups, each class gives a tenth of its clips, at least one if it has two. With groups,
    groups are taken in random order, each if it brings the class counts nearer to a tenth than leaving
    it does, until a tenth is reached. A class that has none yet then gives its smallest group, so that a choice on
    validation is one between all classes. Every class keeps a clip in train: a group is left where that would take the
    last.

    Args:
        train: rows of a manifest.
        random: drawn from for the order alone.

    Returns:
        Shape (clips,), true for those held out.
    """
    if train["group"].isna().all():
        return _hold_out_clips(train, random)
    labels, _ = pd.factorize(train["label"], sort=True)
    groups, names = pd.factorize(train["group"].fillna(train["clip_id"]), sort=True)
    counts = np.zeros((len(names), labels.max() + 1), np.int64)
    np.add.at(counts, (groups, labels), 1)
    total = counts.sum(axis=0)
    target = np.where(total > 1, np.maximum(1, np.round(HELD_OUT * total)), 0)
    taken = np.zeros(len(names), bool)
    held = np.zeros_like(total)
    for group in random.permutation(len(names)):
        with_it = held + counts[group]
        if held.sum() >= target.sum():
            break
        nearer = np.abs(with_it - target).sum() < np.abs(held - target).sum()
        if nearer and (with_it < total).all():
            taken[group], held = True, with_it
    sizes = counts.sum(axis=1)
    for label in np.flatnonzero(target):
        # Groups much larger than a tenth, such as four speakers, or four birds of each species.
        if held[label] > 0:
            continue
        having = np.flatnonzero(counts[:, label])
        fitting = [group for group in having if (held + counts[group] < total).all()]
        if fitting:
            smallest = [group for group in fitting if sizes[group] == sizes[fitting].min()]
            group = random.choice(smallest)
            taken[group], held = True, held + counts[group]
    return taken[groups]


def _hold_out_clips(train: pd.DataFrame, random: np.random.Generator) -> NDArray[np.bool_]:
    """Hold out the first tenth of each class in random order."""
    rank = label_order(train["label"].to_numpy(), random)
    sizes = train["label"].map(train["label"].value_counts()).to_numpy()
    target = np.where(sizes > 1, np.maximum(1, np.round(HELD_OUT * sizes)), 0)
    held: NDArray[np.bool_] = rank < target
    return held


def label_order(labels: NDArray[np.object_], random: np.random.Generator) -> Indices:
    """Order clips so that a prefix of each class is its share of any label fraction.

    Returns:
        Rank of each clip within its class, shape (clips,), from 0.
    """
    position = np.empty(len(labels), np.int64)
    position[random.permutation(len(labels))] = np.arange(len(labels))
    return pd.Series(position).groupby(labels).rank(method="first").to_numpy(np.int64) - 1


def take_fraction(rank: Indices, labels: NDArray[np.object_], fraction: float) -> NDArray[np.bool_]:
    """Take a share of each class by rank: at least one clip a class, nested from share to share."""
    sizes = pd.Series(labels).map(pd.Series(labels).value_counts()).to_numpy()
    return rank < np.maximum(1, np.round(fraction * sizes))


def random_like(split: Split, labels: NDArray[np.object_], random: np.random.Generator) -> Split:
    """Deal the same number of clips of each class to each side at random, without regard to groups.

    What a benchmark does that ignores official folds; only the audit uses it.
    """
    unlabeled = np.setdiff1d(split.train, split.labeled)
    sides = (split.labeled, unlabeled, split.validation, split.test)
    dealt: list[list[Indices]] = [[] for _ in sides]
    pool = np.concatenate(sides)
    for label in np.unique(labels[pool].astype(str)):
        shuffled = random.permutation(pool[labels[pool] == label])
        for target, side in zip(dealt, sides, strict=True):
            count = int((labels[side] == label).sum())
            target.append(shuffled[:count])
            shuffled = shuffled[count:]
    labeled, unlabeled, validation, test = (np.sort(np.concatenate(parts)) for parts in dealt)
    return Split(np.union1d(labeled, unlabeled), labeled, validation, test, "random")
