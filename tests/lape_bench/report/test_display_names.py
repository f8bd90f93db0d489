"""Names in reports: just as long as it takes to tell rows apart."""

import pandas as pd
import pytest

from lape_bench.core.errors import UserError
from lape_bench.report.display_names import (
    data_set,
    distinguishing_names,
    find_system,
    preparation_names,
    with_display_names,
)

ROW = {
    "task": "t",
    "data": "real",
    "protocol": "linear",
    "labels": "100%",
    "manifest_hash": "abcdef123",
    "card_version": 1,
    "protocol_version": 1,
    "system": "s",
    "system_version": 1,
    "provenance_hash": "",
    "parameters": 1000,
    "encoder_parameters": 900,
    "metric": "accuracy",
}


def shown(*changes: dict[str, object]) -> list[tuple[str, str]]:
    names = with_display_names(pd.DataFrame([ROW | change for change in changes]))
    return list(zip(names["task"], names["system"], strict=True))


def test_names_are_plain_where_they_tell_rows_apart() -> None:
    assert shown({}, {"task": "u"}, {"system": "r"}) == [("t", "s"), ("u", "s"), ("t", "r")]


@pytest.mark.parametrize(
    ("change", "first", "second"),
    [
        ({"metric": "macro_f1"}, ("t [accuracy]", "s"), ("t [macro_f1]", "s")),
        (
            {"encoder_parameters": 7},
            ("t", "s [900 parameters of the encoder]"),
            ("t", "s [7 parameters of the encoder]"),
        ),
        (
            {"manifest_hash": "987654321", "card_version": 1, "protocol_version": 1},
            ("t [abcdef]", "s"),
            ("t [987654]", "s"),
        ),
        (
            {"manifest_hash": "abcdef123", "card_version": 2, "protocol_version": 1},
            ("t [card 1]", "s"),
            ("t [card 2]", "s"),
        ),
        (
            {"manifest_hash": "abcdef123", "card_version": 1, "protocol_version": 3},
            ("t [protocol 1]", "s"),
            ("t [protocol 3]", "s"),
        ),
        (
            {"manifest_hash": "9", "card_version": 1, "protocol_version": 3},
            ("t [abcdef, protocol 1]", "s"),
            ("t [9, protocol 3]", "s"),
        ),
        ({"data": "synthetic"}, ("t", "s"), ("t [synthetic]", "s")),
        ({"system_version": 2}, ("t", "s [version 1]"), ("t", "s [version 2]")),
        ({"provenance_hash": "abcdef12"}, ("t", "s [version 1]"), ("t", "s [version 1-abcdef]")),
        ({"parameters": 2000}, ("t", "s [1,000 parameters]"), ("t", "s [2,000 parameters]")),
    ],
    ids=str,
)
def test_what_may_not_be_mixed_has_another_name(
    change: dict[str, object], first: tuple[str, str], second: tuple[str, str]
) -> None:
    assert shown({}, change) == [first, second]


def test_a_system_that_needs_another_classifier_on_another_task_keeps_its_name() -> None:
    assert shown({}, {"task": "u", "parameters": 2000}) == [("t", "s"), ("u", "s")]


def test_variants_and_tasks_of_one_archive_are_one_data_set() -> None:
    assert data_set("fsdd-digits@leveled") == data_set("fsdd-digits@official")
    assert data_set("sc-v2-12") == data_set("sc-v2-35") != data_set("sc-v1-12")
    assert data_set("esc10") != data_set("us8k")
    assert data_set("nobodys@other") == "nobodys"


def test_one_preparation_has_no_name() -> None:
    assert preparation_names(pd.DataFrame([ROW, ROW])) == {("abcdef123", 1, 1): ""}


def systems(*names: str) -> pd.DataFrame:
    return pd.DataFrame(
        {"display_name": names, "system": [name.partition(" [")[0] for name in names]}
    )


def test_a_system_is_found_by_its_name_or_by_as_much_of_it_as_is_clear() -> None:
    frame = systems("a (x=1)", "b (x=1)", "b (x=2)", "c [version 1]", "c [version 2]")
    assert find_system(frame, "a") == find_system(frame, "a (x=1)") == "a (x=1)"
    with pytest.raises(UserError, match=r"'b' has 2 variants; one of 'b \(x=1\)', 'b \(x=2\)'"):
        find_system(frame, "b")
    with pytest.raises(UserError, match=r"'c' has 2 variants on t"):
        find_system(frame, "c", " on t")
    with pytest.raises(UserError, match="there is no system with results 'd'"):
        find_system(frame, "d")


def test_a_setting_that_is_none_is_not_one_that_is_absent() -> None:
    cells = pd.DataFrame({"name": ["s", "s"], "settings": ['{"x": null}', "{}"], "label": ["", ""]})
    assert distinguishing_names(cells).tolist() == ["s (x=None)", "s"]


def test_distinguishing_names_leave_out_the_settings_that_all_variants_share() -> None:
    cells = pd.DataFrame(
        [
            ("unfused", '{"clusters": 8, "student_width": 64}'),
            ("unfused", '{"clusters": 8, "downstream_encoder": "teacher", "student_width": 64}'),
            ("supervised", '{"width": 64}'),
            ("moco", '{"width": 64}'),
            ("moco", '{"width": 32}'),
        ],
        index=[4, 3, 2, 1, 0],
        columns=["name", "settings"],
    ).assign(label=["", "", "floor", "", ""])
    assert distinguishing_names(cells).to_dict() == {
        4: "unfused",
        3: "unfused (downstream_encoder=teacher)",
        2: "floor",
        1: "moco (width=64)",
        0: "moco (width=32)",
    }
