"""Classes that this process alone knows, such as one defined in a notebook or a script, as systems with a name.

What a run rests on is the class's source (`class_source`). If the source is not known, nothing that was computed for
such a class before may be found again: two classes of one name could not be told apart.
"""

import hashlib
from typing import NamedTuple
from uuid import uuid4

from lape_bench.plugins.class_source import SourceNotFound, source_of


class LocalClass(NamedTuple):
    """A class of this process.

    Attributes:
        kind: the class.
        code: says in a line what its code is: name and SHA-256 of its source, or that it is not known.
        has_source: whether its source is known.
    """

    kind: type
    code: str
    has_source: bool


_codes: dict[str, str] = {}
"""What the code of each class is, by module and qualified name."""


def describe(kind: type) -> LocalClass:
    """Find out what the code of a class is, and keep that for `class_code`."""
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
    """Say what the code of such a class is, or of a system that was made of one; None for other classes."""
    return _codes.get(_place(kind))


def _place(kind: type) -> str:
    # Not the class itself: the system that is made of an encoder is another class, at the same place.
    return f"{kind.__module__}:{kind.__qualname__}"
