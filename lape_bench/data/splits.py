"""The train, validation and test clips of a cell.

Official splits and folds come from the manifest. The label budget is drawn here. It depends only on the run's seed and
the task, so every system gets the same labels.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lape_bench.core.errors import UserError
from lape_bench.core.label_budget import LabelBudget
from lape_bench.core.seeding import Seeds
from lape_bench.data.manifest import Manifest
from lape_bench.task import TaskCard

HELD_OUT = (
    0.1  # share of train that validates if a validation set is asked for and the task has none
)
ALL_LABELS = LabelBudget()

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Rows of a manifest by their use. They are disjoint, except that `labeled` is part of `train`.

    Each side has a random order, the same in every cell of a task, since the order of a manifest follows the names of
    clips, which often reveal their classes.

    Attributes:
        train: clips whose audio may be used for training.
        labeled: the clips of `train` in the label budget, whose labels may be used to train and to select.
        validation: further labeled clips for selection; empty unless the budget includes them (`+validation`).
        test: clips that are scored once, at the end.
        validation_origin: "official", "held out of train" or "none".
    """

    train: Indices
    labeled: Indices
    validation: Indices
    test: Indices
    validation_origin: str


def make_split(
    manifest: Manifest, card: TaskCard, fold: int, seed: int, budget: LabelBudget = ALL_LABELS
) -> Split:
    """Draw the split of one cell.

    A smaller budget is a subset of a larger one with the same seed, and every system gets the same labels.

    Args:
        manifest: the task's clips.
        card: the task's card.
        fold: the fold to test on, from 1; 0 for an official split.
        seed: the run's seed.
        budget: the label budget.

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
    train, test = np.flatnonzero(~is_test & ~is_validation), np.flatnonzero(is_test)
    validation = np.flatnonzero(is_validation)
    if not len(train) or not len(test):
        raise UserError(
            f"{card.reference} has {len(train)} clips to train on and {len(test)} to test"
        )
    seeds = Seeds(seed, card.reference, fold)
    origin = "none"
    if not budget.validation:
        validation = validation[:0]
    elif len(validation):
        origin = "official"
    else:
        held_out = hold_out(clips.iloc[train], seeds.numpy("validation"))
        train, validation = train[~held_out], train[held_out]
        origin = "held out of train" if len(validation) else "none"
    labels = clips["label"].iloc[train].to_numpy()
    rank = label_order(labels, seeds.numpy("labels"))
    labeled = train[take_budget(rank, labels, budget)]
    train, labeled, validation, test = (
        shuffled(rows, manifest) for rows in (train, labeled, validation, test)
    )
    return Split(train, labeled, validation, test, origin)


def shuffled(rows: Indices, manifest: Manifest) -> Indices:
    """Return rows in a random order that is the same in every cell of a task."""
    order = Seeds(0, manifest.reference).numpy("order of clips").permutation(len(manifest))
    return rows[np.argsort(order[rows])]


def is_tested(manifest: Manifest, card: TaskCard, fold: int) -> NDArray[np.bool_]:
    """Return for each clip whether a cell of this fold is tested on it, shape (clips,); fold 0 is an official split."""
    clips = manifest.clips
    tested: NDArray[np.bool_] = (
        clips["fold"].to_numpy() == fold
        if card.split.folds
        else (clips["split"] == "test").to_numpy()
    )
    return tested


def hold_out(train: pd.DataFrame, random: np.random.Generator) -> NDArray[np.bool_]:
    """Choose about a tenth of train for validation, stratified by class, with whole groups.

    Without groups, a tenth of each class is held out, and at least one clip if the class has two. With groups, groups
    are tried in random order until a tenth is reached, and a group is held out if that brings the class counts closer
    to a tenth. Then, for each class without a held-out clip, its smallest group is held out. Every class keeps at least
    one clip in train.

    Args:
        train: rows of a manifest.
        random: decides the order only.

    Returns:
        Shape (clips,), True for held-out clips.
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
    """Rank the clips of each class. A label budget takes the first clips of each class.

    Returns:
        Rank of each clip within its class, shape (clips,), from 0.
    """
    position = np.empty(len(labels), np.int64)
    position[random.permutation(len(labels))] = np.arange(len(labels))
    return pd.Series(position).groupby(labels).rank(method="first").to_numpy(np.int64) - 1


def take_budget(
    rank: Indices, labels: NDArray[np.object_], budget: LabelBudget
) -> NDArray[np.bool_]:
    """Take the first clips of each class by rank, at least one per class. Smaller budgets are subsets of larger
    ones.
    """
    sizes = pd.Series(labels).value_counts()
    counts = {label: budget.count(int(size)) for label, size in sizes.items()}
    return rank < pd.Series(labels).map(counts).to_numpy(np.int64)


def random_like(split: Split, labels: NDArray[np.object_], random: np.random.Generator) -> Split:
    """Assign the same number of clips of each class to each side at random, ignoring groups.

    A benchmark that ignores official folds does this. Only the audit uses it.
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
