import copy
import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lape_bench.core.errors import UserError
from lape_bench.data.catalog import load_card, load_reader, read_card
from lape_bench.plugins.registry import TASKS
from lape_bench.task import Reader, TaskCard, folders, locate

CARD: dict[str, Any] = {
    "name": "birds",
    "version": 2,
    "title": "Birds",
    "suite": "open",
    "domain": "bioacoustics",
    "classes": ["robin", "wren"],
    "window_seconds": 1.5,
    "metric": "macro_f1",
    "split": {"rule": "folds", "folds": 3, "origin": "the authors"},
    "group": "site",
    "sources": [{"file": "birds.zip", "bytes": 10}],
    "license": "CC0",
    "citation": "A. Nonymous, 2024",
    "expected": {"clips": 6, "per_class": 3, "per_side": {"1": 2, "2": 2, "3": 2}},
    "variants": {"mono": {"about": "one microphone", "window_seconds": 0.5}},
}


def written(folder: Path, values: object, name: str = "birds") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def changed(**changes: object) -> dict[str, Any]:
    """The card with some keys set; two underscores step into a mapping or list."""
    values = copy.deepcopy(CARD)
    for key, value in changes.items():
        *parents, last = key.split("__")
        node: Any = values
        for parent in parents:
            node = node[int(parent)] if isinstance(node, list) else node[parent]
        node[last] = value
    return values


def refusal(folder: Path, values: object, name: str = "birds") -> str:
    path = written(folder, values, name)
    with pytest.raises(UserError) as caught:
        read_card(path)
    said = str(caught.value)
    assert "\n" not in said
    assert str(path) in said
    return said


def test_a_card_is_read_as_it_is_written(tmp_path: Path) -> None:
    card = read_card(written(tmp_path, CARD))
    assert (card.name, card.version, card.metric) == ("birds", 2, "macro_f1")
    assert (card.classes, card.window_seconds) == (("robin", "wren"), 1.5)
    assert (card.folds, card.group) == ((1, 2, 3), "site")
    assert (card.reference, card.data) == ("birds", "real")
    assert card.expected.per_side == {"1": 2, "2": 2, "3": 2}
    assert card.sources[0].url is None


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("metrics", "metric"),
        ("window_second", "window_seconds"),
        ("split__orign", "origin"),
        ("expected__per_clas", "per_class"),
        ("sources__0__sha265", "sha256"),
        ("variants__mono__abuot", "about"),
    ],
)
def test_a_misspelled_key_is_named_by_its_path_with_the_nearest(
    path: str, meant: str, tmp_path: Path
) -> None:
    said = refusal(tmp_path, changed(**{path: "x"}))
    assert f"'{path.replace('__', '.')}'" in said
    assert f"did you mean '{meant}'?" in said


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("metric", "acuracy", "did you mean 'accuracy'?"),
        ("window_seconds", "one second", "number"),
        ("window_seconds", 0.05, "greater than or equal to 0.1"),
        ("window_seconds", float("nan"), "finite"),
        ("window_seconds", float("inf"), "finite"),
        ("version", 0, "greater than or equal to 1"),
        ("version", 1.5, "integer"),
        ("name", "Birds!", "pattern"),
        ("classes", ["robin"], "at least 2"),
        ("classes", ["robin", "wren", "robin"], "robin appears twice"),
        ("classes", ["robin", True], "string"),  # what YAML makes of an unquoted yes
        ("domain", "birds", "'speech', 'sound', 'music' or 'bioacoustics'"),
        ("data", "generated", "'real' or 'synthetic'"),
        ("expected__clips", 0, "greater than 0"),
        ("expected__per_side__1", "two", "integer"),
        ("sources__0__sha256", "abc", "pattern"),
        ("sources__0__bytes", -1, "greater than 0"),
    ],
)
def test_a_wrong_value_is_named_by_its_path_with_what_is_allowed(
    path: str, value: object, reason: str, tmp_path: Path
) -> None:
    said = refusal(tmp_path, changed(**{path: value}))
    assert f"'{path.replace('__', '.')}" in said
    assert reason in said


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("window_seconds", 0),
        ("window_seconds", None),
        ("classes", ["robin"]),
        ("classes", ["robin", "robin"]),
        ("classes", None),
        ("split", None),
        ("split", {"rule": "folds", "origin": "ours"}),
        ("expected", None),
    ],
    ids=str,
)
def test_a_variant_is_held_to_the_rules_of_its_card(
    field: str, value: object, tmp_path: Path
) -> None:
    said = refusal(tmp_path, changed(**{f"variants__mono__{field}": value}))
    assert "mono" in said
    assert field in said


def test_the_area_under_the_roc_curve_ranks_tasks_of_two_classes_alone(tmp_path: Path) -> None:
    assert read_card(written(tmp_path, changed(metric="roc_auc"))).metric == "roc_auc"
    three = changed(metric="roc_auc", classes=["robin", "wren", "crow"])
    assert "'roc_auc' is for 2 classes, and the task has 3" in refusal(tmp_path, three)


@pytest.mark.parametrize("missing", ["metric", "split", "license", "expected"])
def test_a_missing_key_is_named(missing: str, tmp_path: Path) -> None:
    values = changed()
    del values[missing]
    said = refusal(tmp_path, values)
    assert f"'{missing}'" in said
    assert "required" in said


@pytest.mark.parametrize(
    "split",
    [
        {"rule": "folds", "origin": "ours"},
        {"rule": "official", "folds": 3, "origin": "ours"},
        {"rule": "folds", "folds": 1, "origin": "ours"},
    ],
    ids=["folds without a number", "official with a number", "one fold"],
)
def test_a_number_of_folds_that_does_not_fit_the_rule_is_refused(
    split: dict[str, object], tmp_path: Path
) -> None:
    said = refusal(tmp_path, changed(split=split))
    assert "'split" in said
    assert "folds" in said


def test_a_card_of_another_name_than_its_files_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, CARD, name="bird-song")
    assert "'birds'" in said
    assert "'bird-song'" in said


def test_a_card_cannot_name_itself_a_variant(tmp_path: Path) -> None:
    assert "'variant' is not a key" in refusal(tmp_path, changed(variant="mono"))


@pytest.mark.parametrize("values", [None, ["birds"], "birds"], ids=["empty", "list", "text"])
def test_a_file_that_is_no_mapping_is_no_card(values: object, tmp_path: Path) -> None:
    assert "not a mapping" in refusal(tmp_path, values)


def test_a_card_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_card(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("reference", "kind", "meant"),
    [
        ("fsdd-digit", "there is no task 'fsdd-digit'", "did you mean 'fsdd-digits'?"),
        ("esc-10", "there is no task 'esc-10'", "did you mean 'esc10'?"),
        ("ecs10@official", "there is no task 'ecs10'", "did you mean 'esc10'?"),
        (
            "fsdd-digits@offical",
            "there is no variant 'offical' in the task fsdd-digits",
            "did you mean 'official'?",
        ),
        ("esc10@official", "there is no variant 'official' in the task esc10", "known: none"),
        ("", "there is no task ''", "known: asc-keywords"),
    ],
)
def test_an_unknown_task_or_variant_is_refused_with_the_nearest(
    reference: str, kind: str, meant: str
) -> None:
    with pytest.raises(UserError) as caught:
        load_card(reference)
    said = str(caught.value)
    assert kind in said
    assert meant in said
    assert "\n" not in said


def every_card() -> list[TaskCard]:
    cards = [load_card(name) for name in TASKS.names()]
    return [
        each
        for card in cards
        for each in [card, *(card.with_variant(name) for name in card.variants)]
    ]


@pytest.mark.parametrize("name", TASKS.names())
def test_every_registered_task_has_a_card_of_its_name_and_a_reader(name: str) -> None:
    card = load_card(name)
    assert card.name == name
    assert isinstance(load_reader(card), Reader)


def test_all_tasks_of_the_open_suite_are_registered() -> None:
    assert {"fsdd-digits", "asc-keywords", "asc-speaker", "esc10"} <= {
        card.name for card in every_card() if card.suite == "open"
    }


@pytest.mark.parametrize("card", every_card(), ids=lambda card: card.reference)
def test_the_counts_of_every_card_agree_with_each_other(card: TaskCard) -> None:
    expected = card.expected
    assert len(set(card.classes)) == len(card.classes)
    if isinstance(expected.per_class, int):
        assert expected.per_class * len(card.classes) == expected.clips
    elif expected.per_class is not None:
        assert set(expected.per_class) == set(card.classes)
        assert sum(expected.per_class.values()) == expected.clips
    if expected.per_side:
        assert sum(expected.per_side.values()) == expected.clips
    if card.split.folds:
        assert set(expected.per_side) <= {str(fold) for fold in card.folds}
    elif card.split.rule == "official":
        assert {"train", "test"} <= set(expected.per_side) <= {"train", "val", "test"}
    else:
        assert not expected.per_side, "sides that are drawn follow from their shares"


@pytest.mark.parametrize("card", every_card(), ids=lambda card: card.reference)
def test_every_card_names_where_its_real_recordings_come_from(card: TaskCard) -> None:
    assert bool(card.sources) == (card.data == "real")
    assert card.data == "synthetic" or card.obtain or any(source.url for source in card.sources)
    for source in card.sources:
        is_known = source.sha256 or source.md5 or (source.url and source.pinned)
        assert is_known or source.note, "an archive without a checksum says why"


def test_a_variant_changes_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    base = read_card(written(tmp_path, CARD))
    mono = base.with_variant("mono")
    assert (mono.reference, mono.window_seconds) == ("birds@mono", 0.5)
    same = base.model_dump(exclude={"window_seconds"})
    assert mono.model_dump(exclude={"window_seconds"}) == same


def test_a_variant_may_take_the_group_away() -> None:
    base, official = load_card("fsdd-digits"), load_card("fsdd-digits@official")
    assert (base.group, official.group) == ("speaker", None)
    assert (base.folds, official.folds) == ((1, 2, 3), (0,))
    said = {"group", "split", "expected"}
    assert official.model_dump(exclude=said) == base.model_dump(exclude=said)


def test_an_empty_variant_is_the_card_itself() -> None:
    assert load_card("fsdd-digits@") == load_card("fsdd-digits")


@pytest.mark.parametrize("level", ["", "data-set-main", "archives/data-set-main"])
def test_a_layout_is_found_at_the_top_or_up_to_two_folders_down(level: str, tmp_path: Path) -> None:
    (tmp_path / level / "recordings").mkdir(parents=True)
    (tmp_path / "another").mkdir()
    assert locate(tmp_path, "recordings") == tmp_path / level


def test_a_folder_that_cannot_be_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk" / "wav").mkdir(parents=True)
    (tmp_path / "lost+found").mkdir()
    entries = Path.iterdir

    def iterdir(folder: Path) -> Iterator[Path]:  # permissions do not bind an administrator
        if folder.name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return entries(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    assert list(folders(tmp_path, "wav")) == [tmp_path / "disk"]


def test_a_layout_three_folders_down_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "one" / "two" / "three" / "recordings").mkdir(parents=True)
    with pytest.raises(UserError, match="no recordings in it") as caught:
        locate(tmp_path, "recordings")
    assert str(tmp_path) in str(caught.value)
