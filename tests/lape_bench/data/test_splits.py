"""Properties of every split, over every registered task."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lape_bench.core.errors import UserError
from lape_bench.core.label_budget import LabelBudget
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import Manifest, load_manifest
from lape_bench.data.splits import HELD_OUT, Split, hold_out, make_split, random_like
from lape_bench.task import TaskCard
from tests.lape_bench.stand_ins import all_references, stand_in

every_task = pytest.mark.parametrize("reference", all_references())
seeds = st.integers(0, 1000)
fractions = st.floats(0.01, 1.0)
quick = settings(max_examples=8)


@cache
def task(reference: str) -> tuple[TaskCard, Manifest]:
    """A card and its stand-in; read only."""
    card = load_card(reference)
    return card, stand_in(card)


def hold_split_properties(
    card: TaskCard, manifest: Manifest, fold: int, split: Split, fraction: float
) -> None:
    """What must hold of any split of any task."""
    clips = manifest.clips
    hold_sides_apart(card, manifest, split)
    validation = clips.iloc[split.validation]
    assert not (validation["fold"] == fold).any() or not fold
    assert not (validation["split"] == "test").any()
    all_of = clips["label"].iloc[split.train].value_counts()
    taken = clips["label"].iloc[split.labeled].value_counts()
    for label in card.classes:
        assert taken[label] >= 1
        assert abs(taken[label] - fraction * all_of[label]) <= 0.5 or taken[label] == 1


def hold_sides_apart(card: TaskCard, manifest: Manifest, split: Split) -> None:
    clips = manifest.clips
    sides = [set(split.train), set(split.validation), set(split.test)]
    assert all(sides)
    assert sum(map(len, sides)) == len(clips)
    assert set().union(*sides) == set(range(len(clips)))
    assert set(split.labeled) <= set(split.train)
    contents = [set(clips["content"].iloc[list(side)]) for side in sides]
    assert sum(map(len, contents)) == len(set().union(*contents))
    if card.group is not None:
        groups = [set(clips["group"].iloc[list(side)]) for side in sides]
        assert not (groups[0] | groups[1]) & groups[2]
        if split.validation_origin == "held out of train":
            assert not groups[0] & groups[1]
    assert set(clips["label"].iloc[split.labeled]) == set(card.classes)


@every_task
@given(seed=seeds, fraction=fractions)
@quick
def test_sides_are_disjoint_and_whole_and_labels_stratified_and_no_test_clip_validates(
    reference: str, seed: int, fraction: float
) -> None:
    card, manifest = task(reference)
    for fold in card.folds:
        split = make_split(manifest, card, fold, seed, LabelBudget(fraction, validation=True))
        hold_split_properties(card, manifest, fold, split, fraction)


@pytest.mark.real_audio
@pytest.mark.parametrize("name", ["asc-keywords", "asc-speaker", "esc10", "fsdd-digits"])
def test_real_recordings_keep_the_same_properties(name: str, real_recordings: Path) -> None:
    base = load_card(name)
    for card in (base, *map(base.with_variant, base.variants)):
        manifest = load_manifest(card)
        for fraction in (0.1, 1.0):
            for fold in card.folds:
                split = make_split(manifest, card, fold, 0, LabelBudget(fraction, validation=True))
                hold_split_properties(card, manifest, fold, split, fraction)


@every_task
@given(seed=seeds, pair=st.tuples(fractions, fractions), validation=st.booleans())
@quick
def test_label_fractions_are_nested(
    reference: str, seed: int, pair: tuple[float, float], validation: bool
) -> None:
    card, manifest = task(reference)
    small, large = sorted(pair)
    for fold in card.folds:
        few, many = (
            make_split(manifest, card, fold, seed, LabelBudget(share, 0, validation)).labeled
            for share in (small, large)
        )
        assert set(few) <= set(many)


@every_task
def test_the_same_seed_draws_the_same_labels_and_another_seed_others(reference: str) -> None:
    card, manifest = task(reference)
    first, again, other = (
        make_split(manifest, card, card.folds[0], seed, LabelBudget(0.2)).labeled
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@every_task
@given(seed=seeds, shots=st.integers(1, 12))
@quick
def test_shots_are_clips_a_class_and_nested(reference: str, seed: int, shots: int) -> None:
    card, manifest = task(reference)
    labels = manifest.clips["label"]
    for fold in card.folds:
        few, many = (
            make_split(manifest, card, fold, seed, LabelBudget(shots=k)) for k in (shots, shots + 1)
        )
        sizes = labels.iloc[few.train].value_counts()
        taken = labels.iloc[few.labeled].value_counts()
        assert all(taken[label] == min(shots, sizes[label]) for label in card.classes)
        assert set(few.labeled) <= set(many.labeled)


@every_task
def test_inside_a_budget_nothing_is_held_out_of_train(reference: str) -> None:
    card, manifest = task(reference)
    clips = manifest.clips
    for fold in card.folds:
        split = make_split(manifest, card, fold, 0)
        official = int((clips["split"] == "val").sum())
        assert len(split.train) + len(split.test) + official == len(clips)
        assert set(split.labeled) == set(split.train)
        assert (len(split.validation), split.validation_origin) == (0, "none")


@every_task
def test_the_order_of_clips_says_nothing_and_is_one_for_all_cells(reference: str) -> None:
    card, manifest = task(reference)
    labels = manifest.clips["label"].to_numpy()
    fold = card.folds[0]
    split = make_split(manifest, card, fold, 0)
    assert np.array_equal(split.test, make_split(manifest, card, fold, 7).test)
    for rows in (split.train, split.test):
        changes = (labels[rows][1:] != labels[rows][:-1]).mean()
        by_class = 1 - (manifest.clips["label"].iloc[rows].value_counts(normalize=True) ** 2).sum()
        assert changes > by_class / 2


@pytest.mark.parametrize("reference", ["esc10", "fsdd-digits@official"])
def test_about_a_tenth_is_held_out_of_every_class(reference: str) -> None:
    card, manifest = task(reference)
    labels = manifest.clips["label"]
    split = make_split(manifest, card, card.folds[0], 0, LabelBudget(validation=True))
    share = labels.iloc[split.validation].value_counts() / (
        labels.iloc[split.validation].value_counts() + labels.iloc[split.train].value_counts()
    )
    assert share.max() <= 2 * HELD_OUT
    assert len(split.validation) / (len(split.validation) + len(split.train)) >= 0.5 * HELD_OUT


def test_four_large_groups_give_one_to_validation() -> None:
    card, manifest = task("fsdd-digits")
    clips = manifest.clips[manifest.clips["fold"] != 1].copy()
    clips["group"] = [f"speaker-{number % 4}" for number in range(len(clips))]
    # Every speaker says every class.
    clips["label"] = [card.classes[(number // 4) % 10] for number in range(len(clips))]
    held = hold_out(clips, np.random.default_rng(0))
    assert clips["group"][held].nunique() == 1
    assert held.sum() == len(clips) // 4


def test_groups_of_one_class_each_leave_no_class_out_of_validation() -> None:
    birds = [(f"s{kind}", f"s{kind}-{bird}") for kind in range(10) for bird in range(4)]
    clips = pd.DataFrame([bird for bird in birds for _ in range(25)], columns=["label", "group"])
    clips["clip_id"] = [str(number) for number in range(len(clips))]
    for seed in range(5):
        held = hold_out(clips, np.random.default_rng(seed))
        assert set(clips["label"][held]) == set(clips["label"][~held]) == set(clips["label"])
        assert not set(clips["group"][held]) & set(clips["group"][~held])
        assert held.sum() == 250  # a bird of each species


def test_a_class_of_one_group_stays_in_train() -> None:
    card, manifest = task("esc10")
    clips = manifest.clips[manifest.clips["fold"] != 1].copy()
    rare = clips["label"] == card.classes[0]
    clips.loc[rare, "group"] = "the only recording"
    for seed in range(5):
        held = hold_out(clips, np.random.default_rng(seed))
        assert not held[rare.to_numpy()].any()
        assert held.any()


def test_a_fold_that_the_task_does_not_have_is_refused_with_those_it_has() -> None:
    card, manifest = task("esc10")
    with pytest.raises(UserError, match=r"no fold 6; its folds: 1 to 5"):
        make_split(manifest, card, 6, 0)


def test_a_random_split_deals_the_whole_train_audio_also_where_labels_are_a_fraction() -> None:
    card, manifest = task("esc10")
    split = make_split(manifest, card, 1, 0, LabelBudget(0.2, validation=True))
    labels = manifest.clips["label"].to_numpy(object)
    dealt = random_like(split, labels, np.random.default_rng(0))
    assert len(dealt.train) == len(split.train) > len(dealt.labeled) == len(split.labeled)
    assert set(dealt.labeled) < set(dealt.train)
    assert not set(dealt.train) & {*dealt.test, *dealt.validation}


def test_a_random_split_keeps_class_counts_and_ignores_groups() -> None:
    card, manifest = task("esc10")
    split = make_split(manifest, card, 1, 0)
    labels = manifest.clips["label"].to_numpy(object)
    dealt = random_like(split, labels, np.random.default_rng(0))
    for side in ("labeled", "validation", "test"):
        own, random = getattr(split, side), getattr(dealt, side)
        assert sorted(labels[own]) == sorted(labels[random])
    groups = manifest.clips["group"].to_numpy(object)
    assert set(groups[dealt.labeled]) & set(groups[dealt.test])
    assert not set(dealt.labeled) & set(dealt.test)
