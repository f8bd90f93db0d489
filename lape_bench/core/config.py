"""Configuration: frozen pydantic models, read from YAML or `--set` pairs, checked once at the edge."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from lape_bench.core.errors import UserError, did_you_mean
from lape_bench.core.regular_files import read_text

DEEPEST, MOST_VALUES, LARGEST_INTEGER = 50, 1_000_000, 2**63 - 1  # limits of a YAML file
MOST_BYTES = 2**26  # largest size of a YAML file
SURROGATE = re.compile("[\ud800-\udfff]")  # YAML may escape them
LONGEST_VALUE = 80  # characters of a value in an error
# Numbers as in YAML 1.2 and JSON. In YAML 1.1, which PyYAML reads, 1:30 is 90, 010 is 8, and 1e-3 is text.
NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"
        r"|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
    ),
}


class Frozen(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Config(Frozen):
    """A model that people write as YAML: a nested mapping changes the keys that it names, and the others keep their
    defaults.
    """

    @model_validator(mode="before")
    @classmethod
    def _change_nested_defaults(cls, values: Any) -> Any:
        """Merge a nested mapping into its field's default, which may differ from the default of the nested model.

        A truth value is refused if the field is a number; pydantic would read `yes` as 1.
        """
        if not isinstance(values, Mapping):
            return values
        changed, fields = dict(values), cls.model_fields
        for name, value in values.items():
            if value is None or isinstance(value, str | float) or name not in fields:
                continue  # most values; a sweep of many cells reads thousands of models
            field = fields[name]
            if _is_truth_for_number(value, field.annotation):
                raise ValueError(f"'{name}' is {value}, and must be a number")
            if isinstance(value, Mapping) and not field.is_required():
                default = field.get_default(call_default_factory=True)
                if isinstance(default, BaseModel):
                    changed[name] = merge(default.model_dump(), value)
        return changed


def _is_truth_for_number(value: Any, annotation: Any) -> bool:
    """Return True if a value is or holds True or False, and the annotation is of numbers."""
    parts = value if isinstance(value, list | tuple) else (value,)
    if not any(isinstance(part, bool) for part in parts):
        return False
    kinds = set(_plain_types(annotation))
    return bool(kinds & {int, float}) and not kinds & {bool, Any}


def _plain_types(annotation: Any) -> Iterator[Any]:
    parts = get_args(annotation)
    if parts:
        for part in parts:
            yield from _plain_types(part)
    else:
        yield annotation


ConfigT = TypeVar("ConfigT", bound=Config)


class _Loader(yaml.SafeLoader):
    """Reads YAML as `yaml.safe_load` does, but refuses a mapping with a repeated key."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping; its own keys override those that `<<` merges in."""
        own = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        repeated = sorted({key for key in own if key != "<<" and own.count(key) > 1})
        if repeated:
            raise yaml.constructor.ConstructorError(
                None, None, f"'{repeated[0]}' appears twice in one mapping", node.start_mark
            )
        return super().construct_mapping(node, deep)


# Dates stay text: no setting is a date, and PyYAML fails on one such as 2026-99-99.
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, NUMBERS.get(tag, pattern))
        for tag, pattern in resolvers
        if not tag.endswith(":timestamp")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _load_yaml(text: str) -> Any:
    """Read YAML of reasonable size.

    Raises:
        ValueError: the text is not YAML, a value does not fit its tag, or it is too large, nested too deeply, or
            contains itself; the message is one line.
    """
    try:
        value = yaml.load(text, Loader=_Loader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    # PyYAML raises all of these for texts that do not fit their tag, such as `!!bool x`.
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        raise ValueError("a value does not fit its tag, or has too many digits") from error
    _check_values(value)
    return value


def _check_values(value: Any) -> None:
    """Raise a `ValueError` if the data is too large, since aliases and long numbers expand a short file, or holds text
    that cannot be encoded.
    """
    waiting, values = [(value, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        values += 1
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        if values > MOST_VALUES:
            raise ValueError(f"it holds more than {MOST_VALUES:,} values")
        if isinstance(value, Mapping):
            waiting += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list | tuple | set):
            waiting += [(part, depth + 1) for part in value]
        elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
            raise ValueError(f"it holds an integer beyond {LARGEST_INTEGER:,}")
        elif isinstance(value, str) and SURROGATE.search(value):
            raise ValueError("it holds half of a surrogate pair, which is not a character")


def read_yaml(path: Path, model: type[ConfigT]) -> ConfigT:
    """Read one YAML mapping into `model`.

    Raises:
        UserError: the file is missing or is not YAML, or `model` refuses a key or value, which the message names by its
            path.
    """
    try:
        text = read_text(path, MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error})", next_step="check the path") from error
    try:
        values = _load_yaml(text)
    except ValueError as error:
        raise UserError(f"{path} is not valid YAML ({error})") from error
    return validate(values, model, where=str(path))


def validate(values: Any, model: type[ConfigT], where: str) -> ConfigT:
    """Check values against a model, and return the model with them.

    Args:
        values: a mapping of settings.
        model: the class of the settings.
        where: the source of `values`, named in errors.

    Raises:
        UserError: `values` is not a mapping, or the model refuses a key or value.
    """
    if not isinstance(values, Mapping):
        raise UserError(
            f"{where} holds {type(values).__name__}, not a mapping of keys to values",
            allowed=f"keys: {', '.join(model.model_fields)}",
        )
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {_explain(error, model)}") from error


def apply_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """Turn `["width=512", "finetune.epochs=3"]` into a nested mapping; values are read as YAML.

    Raises:
        UserError: a pair is not a setting, its value is not YAML, or it contradicts an earlier pair.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, separator, text = pair.partition("=")
        if not separator or not key.strip():
            raise UserError(
                f"--set '{pair}' is not a setting",
                allowed="write key=value, with dots for nested keys: --set finetune.epochs=12",
            )
        *parents, last = key.strip().split(".")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UserError(f"--set '{pair}' contradicts an earlier --set {parent}=...")
        try:
            value = _load_yaml(text)
        except ValueError as error:
            raise UserError(
                f"the value of --set '{_shortened(pair)}' cannot be read as YAML ({error})"
            ) from error
        before = node.get(last)
        if isinstance(before, dict) and not isinstance(value, dict):
            raise UserError(f"--set '{pair}' contradicts an earlier --set {key.strip()}....")
        node[last] = merge(before, value) if isinstance(before, dict) else value
    return values


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge a nested mapping into another; a value replaces only the one at the same path."""
    merged = dict(base)
    for key, value in changes.items():
        before = merged.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(before, value)
        else:
            merged[key] = value
    return merged


def changed_settings(values: Mapping[str, Any], model: type[Config], where: str) -> dict[str, Any]:
    """Return the settings that differ from the defaults, each in the spelling of `model`.

    `[1e-1]` becomes `[0.1]`, and a value that equals the default is left out.

    Args:
        values: settings that `model` accepts.
        model: the class of the settings.
        where: the source of `values`, named in errors.

    Raises:
        UserError: `model` refuses a key or value.
    """
    config = validate(values, model, where)
    dump, resolved = config.model_dump(mode="json"), _canonical(config)
    spelled = {path: _value_at(dump, path, value) for path, value in _leaves(values)}
    needed = spelled
    # A setting is not needed if the others alone give the same resolved settings.
    for path in sorted(spelled, key=str):
        others = {other: value for other, value in needed.items() if other != path}
        if _resolves_to(resolved, _nested(others), model):
            needed = others
    changed = _nested(needed)
    return changed if _resolves_to(resolved, changed, model) else dict(values)


def _resolves_to(resolved: str, values: Mapping[str, Any], model: type[Config]) -> bool:
    try:
        return _canonical(validate(values, model, "")) == resolved
    except UserError:  # a setting is required, or depends on one that was left out
        return False


def _canonical(config: Config) -> str:
    """Write resolved settings as text. If the setting is a float, 1 and 1.0 give the same text."""
    dump = config.model_dump(mode="json")
    with suppress(ValidationError):  # the class may not accept the values that it writes
        dump = type(config).model_validate(dump).model_dump(mode="json")
    return json.dumps(dump, sort_keys=True)


def _leaves(
    values: Mapping[str, Any], parents: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*parents, key))
        else:
            yield (*parents, key), value


def _value_at(values: Any, path: tuple[str, ...], default: Any) -> Any:
    for key in path:
        if not isinstance(values, Mapping) or key not in values:
            return default
        values = values[key]
    return values


def _nested(leaves: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for (*parents, last), value in leaves.items():
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return nested


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn a nested mapping into one level with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def as_pairs(values: Mapping[str, Any]) -> list[str]:
    """Write nested settings as `key=value`, as `apply_pairs` reads them."""
    return [f"{key}={_as_yaml(value)}" for key, value in flatten(values).items()]


def _as_yaml(value: Any) -> str:
    """Write a value in one line of YAML; a string without quotation marks, unless it would be read as something else."""
    with suppress(ValueError):
        if isinstance(value, str) and _load_yaml(value) == value:
            return value
    return json.dumps(value)


def describe(
    model: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None
) -> list[tuple[str, str, str]]:
    """List the settings of a model and of the models nested in it.

    Args:
        model: the class of the settings.
        prefix: comes before each key.
        defaults: replaces the model's own defaults, if the model is nested in another that has a default for it.

    Returns:
        (dotted key, default as text or "required", description) of each setting.
    """
    rows = []
    for name, field in model.model_fields.items():
        kind, required = field.annotation, field.is_required() and defaults is None
        own = field.get_default(call_default_factory=True)
        default = own if defaults is None else getattr(defaults, name)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            rows += describe(kind, f"{prefix}{name}.", None if required else default)
            continue
        shown = "required" if required else str(default)
        rows.append((prefix + name, shown, field.description or ""))
    return rows


def _explain(error: ValidationError, model: type[BaseModel]) -> str:
    first, *others = error.errors()
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _keys_at(model, first["loc"][:-1])
        hint = did_you_mean(str(first["loc"][-1]), known)
        message_text = f"'{path}' is not a known key" + (f": {hint}" if hint else "")
        message_text += f"; known: {', '.join(known)}"
    else:
        message = first["msg"].removeprefix("Value error, ")
        message = message.replace("a valid tuple", "a list").replace("valid dictionary", "mapping")
        message_text = f"'{path}': {message}" if path else message
        if not isinstance(first["input"], Mapping):
            message_text += f" (it is {_shortened(repr(first['input']))})"
    return message_text + (f"; and {len(others)} more" if others else "")


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _keys_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    for part in path:
        field = model.model_fields.get(str(part))
        model = (_model_in(field.annotation) if field else None) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Find the model in an annotation such as `tuple[Model, ...]` or `dict[str, Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
