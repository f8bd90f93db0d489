import math
import os
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from lape_bench.core.config import (
    Config,
    apply_pairs,
    as_pairs,
    changed_settings,
    describe,
    flatten,
    read_yaml,
    validate,
)
from lape_bench.core.errors import UserError


class Inner(Config):
    epochs: int = Field(3, ge=1, description="passes")


class Outer(Config):
    width: int = 8
    finetune: Inner = Field(default_factory=Inner)


def test_pairs_become_nested_values_of_their_yaml_type() -> None:
    pairs = ["width=16", "finetune.epochs=5", "name=x=y", "grid=[0.1, 1]", "on=true"]
    assert apply_pairs(pairs) == {
        "width": 16,
        "finetune": {"epochs": 5},
        "name": "x=y",
        "grid": [0.1, 1],
        "on": True,
    }


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.1e-2", ".1e-2", "+1.e-3", "10e-4"])
def test_a_number_with_an_exponent_is_a_number(text: str) -> None:
    assert apply_pairs([f"rate={text}", f"rates=[{text}]", f"name='{text}'"]) == {
        "rate": 0.001,
        "rates": [0.001],
        "name": text,
    }


@pytest.mark.parametrize("text", ["1e", "e3", "1e3x", "1-e3", "v1e3"])
def test_a_text_that_resembles_a_number_is_a_text(text: str) -> None:
    assert apply_pairs([f"name={text}"]) == {"name": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", "010"),
        ("1:30", "1:30"),
        ("24:00:00", "24:00:00"),
        ("1:30.5", "1:30.5"),
        ("0", 0),
        ("-3", -3),
        ("1_000", 1000),
        ("0x10", 16),
        ("-0.5", -0.5),
        (".5", 0.5),
        ("1.0e-3", 0.001),
        ("-.inf", -math.inf),
    ],
)
def test_numbers_are_decimal_and_a_time_is_no_number(text: str, value: object) -> None:
    (read,) = apply_pairs([f"x={text}"]).values()
    assert (read, type(read)) == (value, type(value))


class Numbers(Config):
    count: int | None = None
    shares: tuple[Annotated[float, Field(gt=0)], ...] = ()
    switch: bool | int = False
    anything: dict[str, Any] = Field(default_factory=dict)


@pytest.mark.parametrize("pair", ["count=yes", "count=false", "shares=[0.1, true]"])
def test_a_truth_value_is_no_number(pair: str) -> None:
    with pytest.raises(UserError, match="must be a number"):
        validate(apply_pairs([pair]), Numbers, "here")


def test_a_truth_value_may_be_given_where_one_is_expected() -> None:
    numbers = validate(apply_pairs(["switch=on", "anything={a: yes}"]), Numbers, "here")
    assert (numbers.switch, numbers.anything) == (True, {"a": True})


def test_pairs_of_settings_are_read_as_the_settings() -> None:
    settings = {"width": 16, "inner": {"rate": 0.03, "name": "sgd", "on": False}, "grid": [0.1, 1]}
    assert apply_pairs(as_pairs(settings)) == settings
    small = {"rate": 1e-7, "rates": [1e-5, 1e22], "name": "1e-7"}
    assert apply_pairs(as_pairs(small)) == small
    texts = {"a": "null", "b": "1", "c": "x: y", "d": "", "e": "[", "f": "# x", "g": " y "}
    assert apply_pairs(as_pairs(texts)) == texts


@pytest.mark.parametrize(
    "pairs",
    [
        ["inner.a=1", "inner={b: 2}"],
        ["inner={b: 2}", "inner.a=1"],
        ["inner={a: 1}", "inner={b: 2}"],
    ],
)
def test_pairs_of_one_mapping_are_laid_together_in_either_order(pairs: list[str]) -> None:
    assert apply_pairs(pairs) == {"inner": {"a": 1, "b": 2}}


@pytest.mark.parametrize("pairs", [["a.b=1", "a=2"], ["a=2", "a.b=1"]])
def test_pairs_that_contradict_each_other_are_refused(pairs: list[str]) -> None:
    with pytest.raises(UserError, match="contradicts an earlier --set a"):
        apply_pairs(pairs)


@pytest.mark.parametrize("pair", ["width", "=3", "x=[1", "x={a: 1, a: 2}"])
def test_a_pair_that_is_no_setting_is_refused(pair: str) -> None:
    with pytest.raises(UserError, match="--set"):
        apply_pairs([pair])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"widht": 3}, r"here: 'widht' is not a known key: did you mean 'width'\?; known: width"),
        ({"finetune": {"epoch": 3}}, r"'finetune.epoch' is not a known key: did you mean 'epochs'"),
        ({"finetune": {"epochs": 0}}, r"'finetune.epochs': .*greater than or equal to 1 .it is 0"),
        ({"width": "wide"}, r"'width': .*integer.*'wide'"),
        (["width"], r"here holds list, not a mapping"),
    ],
    ids=str,
)
def test_a_wrong_value_is_named_by_its_path(values: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        validate(values, Outer, where="here")


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "width: 1\nfinetune: {}\nwidth: 2"])
def test_what_is_not_yaml_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match="not valid YAML") as caught:
        read_yaml(path, Outer)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml cannot be read"):
        read_yaml(tmp_path / "none.yaml", Outer)


def test_settings_are_described_with_dotted_keys_and_defaults() -> None:
    assert describe(Outer) == [("width", "8", ""), ("finetune.epochs", "3", "passes")]


def test_flattening_undoes_nesting() -> None:
    assert flatten({"a": 1, "b": {"c": 2, "d": {"e": 3}}}) == {"a": 1, "b.c": 2, "b.d.e": 3}


class Rate(Config):
    epochs: int = 3
    rate: float = 0.1


class Deep(Config):
    inner: Rate = Field(default_factory=lambda: Rate(epochs=7, rate=0.5))


def test_a_nested_change_leaves_the_field_s_own_defaults_around_it() -> None:
    # The field's default differs from the nested model's: one changed key must not bring back the latter.
    assert validate({"inner": {"rate": 0.1}}, Deep, where="here").inner == Rate(epochs=7, rate=0.1)
    assert validate({}, Deep, where="here").inner.epochs == 7


def test_the_defaults_that_are_described_are_those_that_are_used() -> None:
    described = {key: default for key, default, _ in describe(Deep)}
    used = {key: str(value) for key, value in flatten(Deep().model_dump()).items()}
    assert described == used == {"inner.epochs": "7", "inner.rate": "0.5"}


def test_an_unknown_nested_key_is_still_refused() -> None:
    with pytest.raises(UserError, match=r"'inner\.epoch' is not a known key.*epochs"):
        validate({"inner": {"epoch": 1}}, Deep, where="here")


@pytest.mark.parametrize(
    "text",
    [
        "2026-99-99",
        "2026-13-01T99:99:99",
        "!!timestamp x",
        "!!int abc",
        "!!float x",
        "!!bool x",
        "!!set x",
        "!!binary =",
        "!!python/object/apply:os.getcwd []",
        "0x_",
        "9" * 5000,
        "9" * 30,
        "-" + "9" * 30,
        "[" * 3000,
        "[" * 100 + "]" * 100,
        "&a [*a]",
        "&a {b: *a}",
        "{[1]: 2}",
        ".inf",
        r'"\udcff"',
    ],
    ids=lambda text: text[:20],
)
def test_a_value_that_is_no_sensible_number_is_refused_in_a_line_with_the_setting(
    text: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="width") as refusal:
        validate(apply_pairs([f"width={text}"]), Outer, "settings")
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400
    path = tmp_path / "card.yaml"
    path.write_text(f"width: {text}")
    with pytest.raises(UserError, match=r"card\.yaml") as refusal:
        read_yaml(path, Outer)
    assert "\n" not in str(refusal.value)


def test_a_few_lines_that_stand_for_billions_of_values_are_refused(tmp_path: Path) -> None:
    lines = ["a: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = tmp_path / "card.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match="values"):
        read_yaml(path, Outer)


@pytest.mark.parametrize("is_pipe", [True, False], ids=["pipe", "zeros"])
def test_what_is_no_regular_file_is_refused(is_pipe: bool, tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    os.mkfifo(path) if is_pipe else path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="not a regular file"):
        read_yaml(path, Outer)


def test_a_date_is_a_text() -> None:
    assert apply_pairs(["day=2026-11-29"]) == {"day": "2026-11-29"}


class Spelled(Config):
    rates: tuple[float, ...] = (0.1,)
    rate: float = 1  # an int, as people write it
    width: int = 8
    anything: Any = 1
    finetune: Inner = Field(default_factory=Inner)


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({}, {}),
        ({"rates": [1e-1]}, {}),
        ({"rates": [0.1, 2]}, {"rates": [0.1, 2.0]}),
        ({"rate": 1}, {}),
        ({"rate": 1.0, "width": "8"}, {}),
        ({"width": "9"}, {"width": 9}),
        ({"finetune": {}}, {}),
        ({"finetune": {"epochs": 3}}, {}),
        ({"finetune": {"epochs": 4.0}, "width": 8}, {"finetune": {"epochs": 4}}),
        ({"anything": 1.0}, {"anything": 1.0}),  # a plug-in may treat it otherwise
        ({"anything": True}, {"anything": True}),
    ],
    ids=str,
)
def test_only_settings_that_change_anything_are_kept_and_in_one_spelling(
    values: dict[str, Any], changed: dict[str, Any]
) -> None:
    kept = changed_settings(values, Spelled, "settings")
    assert repr(kept) == repr(changed)


class Needs(Config):
    width: int
    twice: int = 0


def test_a_setting_that_is_required_is_kept() -> None:
    assert changed_settings({"width": 3, "twice": 0}, Needs, "settings") == {"width": 3}
