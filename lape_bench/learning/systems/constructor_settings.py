"""The keyword arguments of an encoder's constructor as settings of its system."""

import inspect
import warnings
from typing import Any

from pydantic import Field, create_model
from pydantic.errors import PydanticUserError
from pydantic_core import to_jsonable_python

from lape_bench.core.errors import FAILURES, UserError, summarize_error
from lape_bench.learning.systems.encoder_system import EncoderConfig, ProbeConfig


def constructor_settings(kind: type, base: type[ProbeConfig]) -> type[ProbeConfig]:
    """Return a settings class with the keyword arguments of an encoder's constructor.

    Args:
        kind: the class of the encoder.
        base: the settings of the system that is made of it; the arguments are added to them.

    Raises:
        UserError: an argument has no default, or cannot be a setting.
    """
    own: dict[str, Any] = {}
    for parameter in _signature(kind).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        _insist_on_a_setting(parameter, kind)
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        if isinstance(annotation, str):  # an annotation whose name cannot be evaluated
            annotation = Any
        own[parameter.name] = (annotation, Field(parameter.default, description="of the encoder"))
    try:
        for name, (annotation, field) in own.items():
            # `weights: str = None` is common. A record holds the default, and reading it must accept it.
            if field.default is None:
                own[name] = (annotation | None, field)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # of names that pydantic uses itself, such as copy
            settings: type[ProbeConfig] = create_model(
                f"{kind.__name__}Settings", __base__=base, **own
            )
    except (PydanticUserError, ValueError, TypeError, NameError) as error:
        raise UserError(
            f"the arguments of the encoder {kind.__name__} cannot be settings ({summarize_error(error)})",
            next_step="annotate them with plain types, such as int, float, str, bool or Path, or not at all",
        ) from error
    return settings


def _signature(kind: type) -> inspect.Signature:
    """Return the signature of a constructor, with annotations as types if they can be evaluated."""
    try:
        return inspect.signature(kind, eval_str=True)
    except FAILURES:
        return inspect.signature(kind)


def _insist_on_a_setting(parameter: inspect.Parameter, kind: type) -> None:
    where = f"the argument '{parameter.name}' of the encoder {kind.__name__}"
    if parameter.default is parameter.empty:
        raise UserError(
            f"{where} has no default, so that it cannot be built",
            next_step="give every argument of its constructor a default; they become settings",
        )
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise UserError(f"{where} cannot be given by its name", next_step="take the / out")
    if parameter.name in EncoderConfig.model_fields or parameter.name.startswith("_"):
        raise UserError(
            f"{where} cannot be a setting: the harness has that name for its own, or it is private",
            next_step="give it another name",
        )
    try:
        to_jsonable_python(parameter.default)
    except ValueError as error:
        raise UserError(
            f"{where} has the default {parameter.default!r}, which no record can hold",
            allowed="numbers, strings, true or false, None, and lists and mappings of them",
            next_step="take a name instead, and build what it names in the constructor",
        ) from error
