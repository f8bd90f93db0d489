"""Folds of labeled clips: stratified, groups kept whole, and defined for every small set of labels."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from torch import Tensor

from lape_bench.core.seeding import Seeds
from lape_bench.learning.training.label_folds import FOLDS, LabelFolds, label_folds


def folds_of(labels: list[int] | Tensor, groups: list[int] | Tensor | None = None) -> LabelFolds:
    labels = torch.as_tensor(labels)
    codes = torch.arange(len(labels)) if groups is None else torch.as_tensor(groups)
    return label_folds(labels, codes, Seeds(0))


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), min_size=1, max_size=40))
def test_folds_divide_the_clips_and_score_only_classes_that_were_trained_on(
    pairs: list[tuple[int, int]],
) -> None:
    labels, groups = ([pair[side] for pair in pairs] for side in (0, 1))
    divided = folds_of(labels, groups)
    assert len(divided.folds) <= FOLDS
    for train, held, n_classes in divided.folds:
        assert not set(train) & set(held)
        classes_held = {labels[clip] for clip in held}
        assert classes_held <= {labels[clip] for clip in train}
        assert len(classes_held) == n_classes
        if divided.remark == "groups kept whole":
            assert not {groups[i] for i in train} & {groups[i] for i in held}
    for one, other in combinations(divided.folds, 2):
        assert not set(one.held) & set(other.held)


def test_without_groups_the_folds_are_those_of_stratified_k_fold() -> None:
    labels = torch.arange(60) % 3
    seed = int(Seeds(0).numpy("label folds").integers(2**31))
    expected = StratifiedKFold(5, shuffle=True, random_state=seed).split(np.zeros(60), labels)
    divided = folds_of(labels)
    assert divided.description == "5-fold cross-validation of the 60 labeled clips"
    for fold, (train, held) in zip(divided.folds, expected, strict=True):
        assert np.array_equal(fold.train, train)
        assert np.array_equal(fold.held, held)


def test_with_groups_the_folds_are_those_of_stratified_group_k_fold() -> None:
    labels, groups = torch.arange(80) % 4, torch.arange(80) // 10
    seed = int(Seeds(0).numpy("label folds").integers(2**31))
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    expected = splitter.split(np.zeros(80), labels, groups)
    for fold, (train, held) in zip(folds_of(labels, groups).folds, expected, strict=True):
        assert np.array_equal(fold.train, train)
        assert np.array_equal(fold.held, held)


@pytest.mark.parametrize(
    ("labels", "groups", "sizes", "description"),
    [
        ([0, 1, 2], None, [], "a default, since there are too few labeled clips to hold any out"),
        ([0, 0, 0], None, [], "a default, since there are too few labeled clips to hold any out"),
        # Of the class with two clips alone nothing could be told apart.
        (
            [0, 1, 2, 2],
            None,
            [],
            "a default, since there are too few labeled clips to hold any out",
        ),
        ([0, 0, 1, 1], None, [2, 2], "2-fold cross-validation of the 4 labeled clips"),
        (
            [0, 0, 1, 1, 2],
            None,
            [2, 2],
            "2-fold cross-validation of the 5 labeled clips (4 scored)",
        ),
        (
            [0, 0, 1, 1] * 3,
            [0, 0, 1, 1] * 3,
            [2, 2, 2, 3, 3],
            "5-fold cross-validation of the 12 labeled clips, "
            "groups divided because whole groups would leave classes without train clips",
        ),
        (
            [0, 1] * 6,
            [0] * 6 + [1] * 6,
            [6, 6],
            "2-fold cross-validation of the 12 labeled clips, groups kept whole",
        ),
    ],
    ids=[
        "one a class",
        "one class",
        "one pair",
        "two a class",
        "a rare class",
        "class-pure groups",
        "two groups",
    ],
)
def test_small_sets_of_labels_are_defined(
    labels: list[int], groups: list[int] | None, sizes: list[int], description: str
) -> None:
    divided = folds_of(labels, groups)
    assert sorted(len(fold.held) for fold in divided.folds) == sizes
    assert divided.description == description


def test_the_hold_out_is_about_a_fifth_and_has_every_class() -> None:
    labels, groups = torch.arange(400) % 4, torch.arange(400) // 10
    alone = folds_of(labels, groups).hold_out()
    (fold,) = alone.folds
    assert 0.15 < len(fold.held) / 400 < 0.25
    assert fold.n_classes == 4
    size = len(fold.held)
    assert alone.description == f"a hold-out of {size} of the 400 labeled clips, groups kept whole"
    assert not folds_of([0, 1, 2]).hold_out().folds


def test_another_seed_draws_other_folds_and_the_same_seed_the_same() -> None:
    labels = torch.arange(100) % 5
    first, again, other = (label_folds(labels, torch.arange(100), Seeds(n)) for n in (0, 0, 1))
    assert all(
        np.array_equal(a.held, b.held) for a, b in zip(first.folds, again.folds, strict=True)
    )
    assert not np.array_equal(first.folds[0].held, other.folds[0].held)
