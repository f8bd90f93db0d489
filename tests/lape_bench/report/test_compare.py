"""Two systems, paired by seed and clip; figures by hand, from scipy and from statsmodels."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console
from scipy import stats
from sklearn.metrics import f1_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from lape_bench.core.errors import UserError
from lape_bench.records.record import ArtifactUse
from lape_bench.report.compare import Comparison, compare, compare_over_tasks
from lape_bench.report.comparison_view import comparison_view
from lape_bench.report.stats.crossed import GroupSizes, crossed_mean
from lape_bench.report.system_pair import find_pair
from lape_bench.results.load import load_results
from tests.lape_bench.report.stats.test_board_statistics import (
    labels_of,
    write_answers,
    write_right,
)
from tests.lape_bench.report.stats.test_crossed import bell_mccaffrey
from tests.lape_bench.report.test_leaderboard import write

Bench = Callable[..., tuple[int, str, str]]
SEEDS = range(3)


def compared(
    out: Path, a: str = "a", b: str = "b", clips: int = 10, margin: float | None = None, **how: Any
) -> Comparison:
    return compare(find_pair(load_results([out]), a, b, "t", **how), clips, margin)


def text_of(comparison: Comparison, width: int = 80) -> str:
    console = Console(width=width, markup=False, highlight=False)
    with console.capture() as captured:
        console.print(comparison_view(comparison))
    return captured.get()


@pytest.fixture
def right(tmp_path: Path) -> NDArray[np.bool_]:
    """What two systems have right, shape (systems, seeds, clips); their records lie in `tmp_path`."""
    drawn = np.random.default_rng(0).random((2, 3, 80)) < np.array([0.8, 0.6])[:, None, None]
    for system, rows in zip("ab", drawn, strict=True):
        for seed, row in enumerate(rows):
            write_right(tmp_path, system, row, seed)
    return drawn


def test_scores_and_difference_are_means_over_seeds(
    right: NDArray[np.bool_], tmp_path: Path
) -> None:
    found = compared(tmp_path)
    by_seed = right.mean(axis=2)
    for side, accuracies in zip((found.a, found.b), by_seed, strict=True):
        assert side.scores == {"accuracy": pytest.approx(accuracies.mean())}
        assert side.stds == {"accuracy": pytest.approx(accuracies.std(ddof=1))}
    assert found.verdict.difference == pytest.approx(by_seed[0].mean() - by_seed[1].mean())
    assert (found.seeds, found.folds, found.clips) == ((0, 1, 2), (0,), 80)


def test_without_groups_the_unit_is_the_clip_and_the_interval_is_that_of_both_sources(
    right: NDArray[np.bool_], tmp_path: Path
) -> None:
    a, b = right
    found = compared(tmp_path)
    differences = a.mean(axis=1) - b.mean(axis=1)
    by_clip = a.astype(float) - b
    over_seeds = stats.t.ppf(0.975, 2) * stats.sem(differences)
    mean = crossed_mean(
        differences,
        GroupSizes(np.full(80, 1 / 80), np.full(80, 1 / 80**2)).deviations(
            (by_clip - differences[:, None]) / 80
        ),
        79,
    )
    assert found.verdict.interval is not None
    low, high = found.verdict.interval
    assert (high - low) / 2 == pytest.approx(float(mean.half_width()))
    assert (high - low) / 2 >= over_seeds
    assert found.verdict.p == pytest.approx(float(mean.p()))
    assert (found.groups, found.grouped, found.by_group) == (80, False, ())
    assert "The interval is over 80 clips and 3 seeds." in text_of(found)


def test_one_seed_has_an_interval_of_these_two_runs_and_no_test(
    right: NDArray[np.bool_], tmp_path: Path
) -> None:
    write_right(tmp_path / "one", "a", right[0, 0])
    write_right(tmp_path / "one", "b", right[1, 0])
    found = compared(tmp_path / "one", margin=0.02)
    expected = stats.ttest_1samp(right[0, 0].astype(float) - right[1, 0], 0)
    assert found.verdict.interval == pytest.approx(tuple(expected.confidence_interval()))
    verdict = found.verdict
    assert (verdict.p, verdict.p_not_worse, verdict.p_equivalent, verdict.detectable) == (None,) * 4
    assert found.a.stds == {"accuracy": None}
    words = " ".join(text_of(found).split())
    assert "over 80 clips, of these two runs alone" in words
    assert "No test of the systems: one seed does not show how runs vary." in words
    assert "told apart" not in words


# By speaker, of two systems on fsdd-digits: 500 clips each, two speakers a fold.
FSDD = {
    "george": 10.6,
    "jackson": -2.6,
    "lucas": 14.4,
    "nicolas": 2.0,
    "theo": -37.6,
    "yweweler": -47.8,
}


def write_fsdd(out: Path, seeds: range) -> None:
    for seed in seeds:
        for fold in (1, 2, 3):
            speakers = [*FSDD][2 * fold - 2 : 2 * fold]
            groups = np.repeat(speakers, 500).tolist()
            better = np.concatenate([np.arange(500) < 400 + 5 * min(FSDD[s], 0) for s in speakers])
            other = np.concatenate([np.arange(500) < 400 - 5 * max(FSDD[s], 0) for s in speakers])
            for system, row in (("a", better), ("b", other)):
                write_right(out, system, row, seed, fold, folds=3, groups=groups)


def test_six_speakers_who_disagree_prove_nothing_however_many_clips_they_say(
    tmp_path: Path,
) -> None:
    write_fsdd(tmp_path, range(3))
    found = compared(tmp_path)
    assert found.verdict.difference == pytest.approx(-0.1017, abs=1e-4)
    by_speaker = {
        each.name: round(100 * (each.accuracy_a - each.accuracy_b), 1) for each in found.by_group
    }
    assert by_speaker == FSDD
    # Before, clips were drawn again as if they were independent.
    differences = np.repeat([*FSDD.values()], 500) / 100
    p_of_clips = stats.ttest_1samp(differences, 0).pvalue
    assert p_of_clips < 0.0002
    # Runs are alike here, so it is the t-test over the six speakers.
    expected = stats.ttest_1samp([*FSDD.values()], 0)
    assert found.verdict.p == pytest.approx(expected.pvalue)
    assert found.verdict.p is not None
    assert found.verdict.p > 0.35
    low, high = (end / 100 for end in expected.confidence_interval())
    assert found.verdict.interval == pytest.approx((low, high))
    words = " ".join(text_of(found).split())
    assert "3,000 clips of 6 groups" in words
    assert "-37.6 to +17.2" in words
    assert "A and B cannot be told apart; a difference of about" in words
    assert "yweweler 500 32.2 80.0 -47.8" in words


def test_with_one_seed_the_same_has_an_interval_over_speakers_and_no_p(tmp_path: Path) -> None:
    write_fsdd(tmp_path, range(1))
    found = compared(tmp_path)
    assert found.verdict.p is None
    expected = stats.ttest_1samp([*FSDD.values()], 0).confidence_interval()
    assert found.verdict.interval == pytest.approx((expected.low / 100, expected.high / 100))


def test_groups_count_by_their_clips(tmp_path: Path) -> None:
    groups = np.repeat(["one", "two", "three"], [60, 20, 20]).tolist()
    right = np.random.default_rng(3).random((2, 3, 100)) < np.array([0.9, 0.5])[:, None, None]
    for system, rows in zip("ab", right, strict=True):
        for seed, row in enumerate(rows):
            write_right(tmp_path, system, row, seed, groups=groups)
    found = compared(tmp_path)
    assert found.verdict.difference == pytest.approx(right[0].mean() - right[1].mean())
    assert [(each.name, each.clips) for each in found.by_group] == [
        ("one", 60),
        ("two", 20),
        ("three", 20),
    ]
    assert found.by_group[0].accuracy_a == pytest.approx(right[0, :, :60].mean())


def test_unequal_groups_have_the_jackknife_s_error_and_fewer_degrees_of_freedom(
    tmp_path: Path,
) -> None:
    sizes = [60, 20, 12, 8]
    groups = np.repeat(["one", "two", "three", "four"], sizes)
    right = np.random.default_rng(3).random((2, 100)) < np.array([0.9, 0.5])[:, None]
    for system, row in zip("ab", right, strict=True):
        for seed in range(2):  # runs that do not vary, so that groups alone count
            write_right(tmp_path, system, row, seed, groups=groups.tolist())
    difference = right[0].astype(float) - right[1]
    without = np.array([difference[groups != name].mean() for name in np.unique(groups)])
    error = np.sqrt(3 / 4 * ((without - difference.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, bell_mccaffrey(sizes)) * error
    interval = (difference.mean() - half, difference.mean() + half)
    assert compared(tmp_path).verdict.interval == pytest.approx(interval)


def test_a_margin_asks_whether_a_is_hardly_worse_and_whether_both_are_alike(tmp_path: Path) -> None:
    for seed in range(5):
        random = np.random.default_rng(seed)
        right = random.random(2_000) < 0.8
        for system in "ab":
            write_right(tmp_path, system, right ^ (random.random(2_000) < 0.01), seed)
    found = compared(tmp_path, margin=0.02).verdict
    assert found.p is not None
    assert found.p > 0.05
    assert found.p_not_worse is not None
    assert found.p_equivalent is not None
    assert found.p_not_worse <= found.p_equivalent < 0.05
    words = " ".join(text_of(compared(tmp_path, margin=0.02)).split())
    assert "A is at least as good as B, less 2 points (one-sided p " in words
    assert "A and B differ by less than 2 points (p " in words
    far = " ".join(text_of(compared(tmp_path, margin=0.0001)).split())
    assert "A is not shown to be at least as good as B, less 0.01 points (one-sided p " in far
    assert "A and B are not shown to differ by less than 0.01 points (p " in far


def test_a_fixed_upstream_is_named_below_the_difference(tmp_path: Path) -> None:
    for seed in SEEDS:
        used = (ArtifactUse(kind="upstream", hash="ab"),)
        own = (ArtifactUse(kind="upstream", hash=f"c{seed}"),)
        write_answers(tmp_path, "a", 0.9, seed, artifacts=used)
        write_answers(tmp_path, "b", 0.8, seed, artifacts=own)
    found = compared(tmp_path)
    assert (found.a.fixed_upstream, found.b.fixed_upstream) == (True, False)
    words = " ".join(text_of(found).split())
    assert "All seeds of a rest on one pre-trained upstream: how much another" in words


def test_over_tasks_a_seed_is_paired_with_itself_and_the_tasks_own_spread_is_told(
    tmp_path: Path, bench: Bench
) -> None:
    by_task: dict[str, list[float]] = {"t": [], "u": [], "v": []}
    for accuracy, (task, differences) in zip((0.7, 0.8, 0.9), by_task.items(), strict=True):
        for seed in range(4):
            a = write_answers(tmp_path, "a", accuracy, seed, task=task)
            differences.append(a - write_answers(tmp_path, "b", 0.6, seed, task=task))
    write_answers(tmp_path, "a", 0.8, 9)
    write_answers(tmp_path, "b", 0.8, 9)
    pairs = [find_pair(load_results([tmp_path]), "a", "b", task) for task in by_task]
    found = compare_over_tasks(pairs)
    table = np.array([*by_task.values()])  # (tasks, seeds)
    assert found.seeds == (0, 1, 2, 3)
    assert found.verdict.difference == pytest.approx(table.mean())
    assert found.by_task == pytest.approx(tuple(table.mean(axis=1)))
    over_tasks = stats.ttest_1samp(table.mean(axis=1), 0)
    assert found.task_std == pytest.approx(table.mean(axis=1).std(ddof=1))
    assert found.task_interval == pytest.approx(tuple(over_tasks.confidence_interval()))
    assert found.verdict.interval is not None
    half = found.verdict.interval[1] - found.verdict.difference
    assert half >= stats.t.ppf(0.975, 3) * stats.sem(table.mean(axis=0)) * (1 - 1e-9)
    words = ["compare", "a", "b", *(w for task in by_task for w in ("--task", task))]
    code, out, _ = bench(*words, "--out", str(tmp_path), "--format", "json")
    assert code == 0
    told = json.loads(out)
    assert told["over_tasks"][0]["verdict"]["p_holm"] == pytest.approx(found.verdict.p)
    ps = [each["verdict"]["p"] for each in told["comparisons"]]
    assert [each["verdict"]["p_holm"] for each in told["comparisons"]] == pytest.approx(
        multipletests(ps, method="holm")[1]
    )
    code, out, _ = bench(*words, "--out", str(tmp_path))
    assert code == 0
    assert "over tasks alone the 95 % interval is" in out
    assert "it says nothing of other tasks" in out


def test_tasks_without_a_common_seed_cannot_be_averaged(tmp_path: Path) -> None:
    for seed, task in enumerate(("t", "u")):
        for system in "ab":
            write_answers(tmp_path, system, 0.8, seed, task=task)
    pairs = [find_pair(load_results([tmp_path]), "a", "b", task) for task in ("t", "u")]
    with pytest.raises(UserError, match="share no seed that was run on every one of these tasks"):
        compare_over_tasks(pairs)


def test_each_seed_has_mcnemar_s_test_of_its_own(right: NDArray[np.bool_], tmp_path: Path) -> None:
    for row, a, b in zip(compared(tmp_path).by_seed, *right, strict=True):
        table = [[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]]
        assert (row.only_a, row.only_b) == (table[0][1], table[1][0])
        exact = row.only_a + row.only_b < 25
        assert row.p == pytest.approx(mcnemar(table, exact=exact, correction=True).pvalue)


def test_flips_are_counted_by_class_over_seeds(right: NDArray[np.bool_], tmp_path: Path) -> None:
    labels = labels_of(0, 80)
    a, b = right
    for number, row in enumerate(compared(tmp_path).by_class):
        here = labels == number
        assert (row.name, row.clips) == ("abc"[number], here.sum())
        assert row.accuracy_a == pytest.approx(a[:, here].mean())
        assert (row.only_a, row.only_b) == ((a > b)[:, here].sum(), (b > a)[:, here].sum())


def test_the_clips_that_flip_most_often_are_named_and_those_that_never_flip_are_not(
    tmp_path: Path,
) -> None:
    # Clip 0 never flips; 1 does once, 2 twice in both directions, 3 twice in one, 4 in every seed.
    a = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 1, 0], [1, 1, 1, 1, 0]], dtype=np.bool_)
    b = np.array([[1, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 1, 1, 1, 1]], dtype=np.bool_)
    for seed in SEEDS:
        write_right(tmp_path, "a", a[seed], seed)
        write_right(tmp_path, "b", b[seed], seed)
    flips = compared(tmp_path).by_clip
    assert [(f.clip, f.only_a, f.only_b) for f in flips] == [
        ("4", 0, 3),
        ("3", 2, 0),
        ("2", 1, 1),
        ("1", 1, 0),
    ]
    assert [f.label for f in flips] == ["abc"[labels_of(0, 5)[int(f.clip)]] for f in flips]
    assert compared(tmp_path, clips=2).by_clip == flips[:2]


def test_only_seeds_and_folds_that_both_have_are_paired(tmp_path: Path) -> None:
    scores: dict[str, list[float]] = {"a": [], "b": []}
    for fold in (1, 2, 3):
        for seed in SEEDS:
            scores["a"].append(write_answers(tmp_path, "a", 0.9, seed, fold, folds=3))
    for fold in (1, 2):
        for seed in (1, 2, 5):
            scores["b"].append(write_answers(tmp_path, "b", 0.8, seed, fold, folds=3))
    found = compared(tmp_path)
    assert (found.seeds, found.folds, found.clips) == ((1, 2), (1, 2), 200)
    a = np.array(scores["a"]).reshape(3, 3)[:2, 1:]  # (folds, seeds)
    b = np.array(scores["b"]).reshape(2, 3)[:, :2]
    assert found.verdict.difference == pytest.approx(a.mean() - b.mean())
    said = " ".join(text_of(found).split())
    assert "paired in seeds 1 and 2; 2 of 3 folds; cells without a partner: 5 of A, 2 of B" in said


def test_folds_count_alike_and_their_clips_keep_ids_and_folds(tmp_path: Path) -> None:
    for fold, clip, clips in ((1, 3, 5), (2, 1, 10)):
        right = np.ones(clips, dtype=np.bool_)
        write_right(tmp_path, "a", right, fold=fold, folds=2)
        right[clip] = False
        write_right(tmp_path, "b", right, fold=fold, folds=2)
    found = compared(tmp_path)
    assert [(f.fold, f.clip, f.only_a) for f in found.by_clip] == [(1, "3", 1), (2, "1", 1)]
    accuracy = pytest.approx((4 / 5 + 9 / 10) / 2)
    assert found.b.scores["accuracy"] == found.by_seed[0].accuracy_b == accuracy
    assert 1 - found.verdict.difference == accuracy


def test_the_other_order_tells_the_same(right: NDArray[np.bool_], tmp_path: Path) -> None:
    there, back = compared(tmp_path), compared(tmp_path, "b", "a")
    assert back.verdict.p == there.verdict.p
    assert there.verdict.interval is not None
    low, high = there.verdict.interval
    assert back.verdict.interval == pytest.approx((-high, -low))
    assert [(f.clip, f.only_b, f.only_a) for f in back.by_clip] == [
        (f.clip, f.only_a, f.only_b) for f in there.by_clip
    ]


def test_systems_are_compared_by_the_task_s_metric(
    tmp_path: Path,
) -> None:
    right = np.random.default_rng(0).random((2, 60)) < 0.7
    for system, row in zip("ab", right, strict=True):
        write_right(tmp_path, system, row, metric="macro_f1")
    found = compared(tmp_path)
    labels = labels_of(0, 60)
    f1 = [
        f1_score(labels, np.where(row, labels, (labels + 1) % 3), average="macro") for row in right
    ]
    assert found.a.scores == {"accuracy": pytest.approx(right[0].mean()), "macro_f1": f1[0]}
    assert found.verdict.difference == pytest.approx(f1[0] - f1[1])
    assert "The difference is of macro f1; the tables" in " ".join(text_of(found).split())


def test_a_comparison_stands_within_a_terminal_of_80_characters(
    right: NDArray[np.bool_], tmp_path: Path
) -> None:
    for seed in SEEDS:
        how = {"settings": {"student_width": 1536, "teacher": "delores-s"}}
        write_right(tmp_path, "c", right[0, seed], seed, **how)
    text = text_of(compared(tmp_path, "c"))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "c (student_width=1536, teacher=delores-s)" in text


def test_of_many_classes_the_most_one_sided_are_shown_and_the_rest_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lape_bench.report.comparison_view.ROWS_SHOWN", 1)
    labels = labels_of(0, 60)
    write_right(tmp_path, "a", labels == 1)
    write_right(tmp_path, "b", np.zeros(60, dtype=np.bool_))
    lines = text_of(compared(tmp_path, clips=0)).splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("class"))
    assert lines[start + 1].split()[:2] == ["b", str((labels == 1).sum())]
    assert lines[start + 2 :] == ["... of 3 classes, the most one-sided; --format json has all"]


def test_a_variant_is_named_as_on_the_leaderboard_or_by_its_system_alone(tmp_path: Path) -> None:
    write_answers(tmp_path, "a", 0.9, settings={"width": 3})
    write_answers(tmp_path, "b", 0.8)
    for name in ("a", "a (width=3)"):
        assert compared(tmp_path, name).a.system == "a (width=3)"
    write_answers(tmp_path, "a", 0.9, settings={"width": 4})
    with pytest.raises(UserError, match=r"'a' has 2 variants on t; one of 'a \(width=3\)', 'a \("):
        compared(tmp_path)
    write_answers(tmp_path, "a", 0.7)
    assert compared(tmp_path).a.system == "a"


def test_versions_of_a_system_are_compared_by_the_names_of_the_leaderboard(tmp_path: Path) -> None:
    right = np.random.default_rng(0).random((2, 50)) < 0.7
    for number, row in enumerate(right):
        write_right(tmp_path / str(number), "a", row, provenance={"weights": str(number)})
    with pytest.raises(UserError, match=r"2 variants on t; one of 'a \[version 1-"):
        compared(tmp_path, "a", "a")
    cells = load_results([tmp_path]).cells
    names = [
        f"a [version 1-{provenance[:6]}]" if provenance else "a [version 1]"
        for provenance in cells["provenance_hash"]
    ]
    found = compared(tmp_path, *names)
    assert found.verdict.difference == pytest.approx(cells["accuracy"][0] - cells["accuracy"][1])


def test_what_is_left_open_is_taken_where_one_answer_fits_and_else_asked_for(
    tmp_path: Path,
) -> None:
    for system in "ab":
        write_answers(tmp_path, system, 0.8, protocol="knn", labels="10%")
    write_answers(tmp_path, "a", 0.9)
    assert compared(tmp_path).a.protocol == "knn"
    write_answers(tmp_path, "b", 0.9)
    with pytest.raises(UserError) as caught:
        compared(tmp_path)
    assert str(caught.value) == (
        "a and b can be compared in 2 ways; real knn 10%, real linear 100%; choose by --protocol, --labels "
        "and --data, or of two preparations (in brackets) by --out."
    )
    assert compared(tmp_path, protocol="linear").labels == "100%"
    assert compared(tmp_path, labels="10%").a.protocol == "knn"


def test_systems_under_two_protocols_are_paired_like_two_under_one(
    right: NDArray[np.bool_], tmp_path: Path, bench: Bench
) -> None:
    other = tmp_path / "other"
    for seed, rows in enumerate(zip(*right, strict=True)):
        write_right(other, "a", rows[0], seed, protocol="finetune")
        write_right(other, "a", rows[1], seed, protocol="linear")
        write_right(other, "b", rows[1], seed, protocol="linear")
    across: dict[str, Any] = {"protocol": "finetune", "other_protocol": "linear"}
    expected = compared(tmp_path, clips=3)
    for b in "ba":  # a probe of another system, and of the system itself
        found = compared(other, "a", b, clips=3, **across)
        assert (found.a.protocol, found.b.protocol) == ("finetune", "linear")
        assert found.verdict == expected.verdict
        assert (found.by_seed, found.by_class, found.by_clip) == (
            expected.by_seed,
            expected.by_class,
            expected.by_clip,
        )
    words = ["compare", "a", "b", "--task", "t", "--out", str(other), "--protocol", "finetune"]
    code, out, _ = bench(*words, "--other-protocol", "linear")
    assert code == 0
    assert out.startswith("t, A finetune and B linear: 80 clips")
    assert "no protocol with results 'knn'; known: " in refused(
        other, protocol="finetune", other_protocol="knn"
    )
    assert "the protocol of 'b' is given, linear, and not that of 'a'; give both" in refused(
        other, other_protocol="linear"
    )
    write_right(other, "c", right[1, 0], 0, protocol="linear", labels="10%")
    assert "a and c share no label budget on one preparation of the task; a has real 100%; c has real 10%" in refused(other, "a", "c", **across)  # fmt: skip


def refused(out: Path, *names: str, **how: Any) -> str:
    with pytest.raises(UserError) as caught:
        compared(out, *names, **how)
    return str(caught.value)


def test_what_cannot_be_compared_is_refused_with_what_there_is(tmp_path: Path) -> None:
    write_answers(tmp_path, "a", 0.9)
    write_answers(tmp_path, "b", 0.9, protocol="knn")
    write(tmp_path, 0, system="other-clips")
    write_answers(tmp_path, "other-seed", 0.9, 7)
    write_answers(tmp_path, "new-data", 0.9, manifest_hash="n" * 64)
    write_answers(tmp_path, "elsewhere", 0.9, task="u")
    assert "share no protocol and label budget on one preparation of the task; a has real linear 100%;" in refused(tmp_path)  # fmt: skip
    assert "share no protocol" in refused(tmp_path, "a", "new-data")
    assert "'a' and 'a' are one system, a" in refused(tmp_path, "a", "a")
    assert "there is no system with results on t 'elsewhere'" in refused(tmp_path, "a", "elsewhere")
    assert "no protocol with results 'finetune'; known: knn, linear" in refused(tmp_path, protocol="finetune")  # fmt: skip
    same_clips = "a and other-clips share no seed and fold with the same test clips"
    assert same_clips in refused(tmp_path, "a", "other-clips")
    assert "a has seeds 0 in folds 0; other-seed has seeds 7" in refused(
        tmp_path, "a", "other-seed"
    )


def test_cells_of_a_table_cannot_be_compared(tmp_path: Path) -> None:
    for system in "ab":
        write_answers(tmp_path, system, 0.9)
    table = tmp_path / "cells.csv"
    load_results([tmp_path]).cells.to_csv(table, index=False)
    assert "cells of a come from a table" in refused(table)


def test_the_command_tells_it_in_text_and_json(
    right: NDArray[np.bool_], tmp_path: Path, bench: Bench
) -> None:
    words = ["compare", "a", "b", "--task", "t", "--out", str(tmp_path), "--clips", "1"]
    code, out, _ = bench(*words)
    assert code == 0
    expected = compared(tmp_path, clips=1)
    assert out == text_of(expected, width=200)
    code, out, _ = bench(*words, "--format", "json")
    assert code == 0
    assert json.loads(out) == json.loads(expected.model_dump_json())
    code, _, err = bench(*words, "--format", "csv")
    assert (code, err) == (2, "bench: there is no format 'csv'; known: json, terminal.\n")
    code, _, err = bench("compare", "a", "b", "--task", "T", "--out", str(tmp_path))
    assert (code, err) == (
        2,
        "bench: there is no task with results 'T': did you mean 't'?; known: t.\n",
    )
