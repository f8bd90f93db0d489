"""Classes that only this process knows, such as one from a notebook or a script, as named systems.

A run is identified by the source of the class (`class_source`). If the source is not known, earlier results of such a
class are never reused, since two classes of the same name could not be distinguished.
"""

import hashlib
from typing import NamedTuple
from uuid import uuid4

from lape_bench.plugins.class_source import SourceNotFound, source_of


class LocalClass(NamedTuple):
    """A class of this process.

    Attributes:
        kind: the class.
        code: identifies its code in one line: its name and the SHA-256 of its source, or that the source is not known.
        has_source: whether its source is known.
    """

    kind: type
    code: str
    has_source: bool


_codes: dict[str, str] = {}
"""The line that identifies the code of each class, by module and qualified name."""


def describe(kind: type) -> LocalClass:
    """Identify the code of a class, and remember the result for `class_code`."""
    name = kind.__name__
    try:
        digest = hashlib.sha256(source_of(kind).encode()).hexdigest()
        described = LocalClass(kind, f"class {name}, SHA-256 {digest} of its source", True)
    except SourceNotFound as error:
        mark = f"class {name} {uuid4().hex[:12]} of one process, since the source of {error} is not known"
        described = LocalClass(kind, mark, False)
    _codes[_place(kind)] = described.code
    return described


def class_code(kind: type) -> str | None:
    """Return the line that identifies the code of such a class, or of a system made from one; None for other
    classes.
    """
    return _codes.get(_place(kind))


def _place(kind: type) -> str:
    # Not the class itself: the system made from an encoder is another class with the same module and name.
    return f"{kind.__module__}:{kind.__qualname__}"
