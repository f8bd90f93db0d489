"""Names of tasks and systems, from entry points. A plug-in is loaded when it is first used.

The project's own tasks and systems are found in the same way as those of other packages. Three more kinds of names are
known: a class in a file, `path/to/file.py:MyEncoder`; a name with an argument, `hear:my_module`; and a class of this
    process, such as one from a notebook, once it is registered.
"""

import ast
import importlib.util
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from lape_bench.core.errors import FAILURES, UserError, summarize_error, unknown
from lape_bench.plugins import single_file
from lape_bench.plugins.isolated_import import isolated_import
from lape_bench.plugins.local_classes import LocalClass, describe


@lru_cache
def registered(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group. They are searched once per process, since that opens a file of each installed
    package.

    Args:
        group: name of the entry-point group.
        path: where packages are searched: `sys.path`.
    """
    return tuple(entry_points(group=group))


class Registry:
    """The names that installed packages register in one entry-point group.

    Args:
        group: the entry-point group.
        kind: "task" or "system", for messages.
    """

    def __init__(self, group: str, kind: str) -> None:
        self.group, self.kind = group, kind
        self._classes: dict[
            str, LocalClass
        ] = {}  # classes of this process; of each name, the last one

    def names(self) -> list[str]:
        """Return every registered name, sorted, without loading any."""
        return sorted({point.name for point in self._points()})

    def entry(self, name: str) -> EntryPoint:
        """Return the entry point of `name`, with or without an argument.

        Raises:
            UserError: no package, or more than one, registers the name.
        """
        if match := re.fullmatch(r"(.+\.py)(?::+(\w*).*)?", name):
            file, class_name = match.groups()
            raise UserError(
                f"{file} is a file, and a {self.kind} is a class in it",
                next_step=f"name its class too: {file}:{class_name or 'MyEncoder'}",
            )
        full_name, name = name, name.partition(":")[0]
        points = {point.value: point for point in self._points() if point.name == name}
        if not points:
            next_step = f"'bench {self.kind}s' lists them with their titles"
            if Path(f"{name}.py").is_file() and name != full_name:
                file, _, class_name = full_name.partition(":")
                next_step = f"if it is the file {file}.py, write {file}.py:{class_name}"
            raise unknown(self.kind, name, self.names(), next_step)
        if len(points) > 1:
            raise UserError(
                f"the {self.kind} name '{name}' is registered by "
                + " and ".join(f"{_origin(point)} ({point.value})" for point in points.values()),
                next_step="uninstall all but one of these packages, or rename theirs",
            )
        return next(iter(points.values()))

    def _points(self) -> tuple[EntryPoint, ...]:
        return registered(self.group, tuple(sys.path))

    def is_file(self, name: str) -> bool:
        """Return True if a name is a class in a file."""
        file, _, class_name = name.rpartition(":")
        return file.endswith(".py") and bool(class_name)

    def register_class(self, kind: type) -> str:
        """Register a class of this process, and return its name: the class name, or the name of its entry point.

        Raises:
            UserError: a package registers another class under that name.
        """
        place = f"{kind.__module__}:{kind.__qualname__}"
        for point in self._points():
            if point.value == place:
                return point.name
        if kind.__name__ in self.names():
            raise UserError(
                f"the class {kind.__name__} has the name of a registered {self.kind}",
                next_step="rename the class",
            )
        known = self._classes.get(kind.__name__)
        # Identified again even if it is known: a constant that it uses may have changed.
        if known is None or known.kind is not kind or known.has_source:
            self._classes[kind.__name__] = describe(kind)
        return kind.__name__

    def is_class(self, name: str) -> bool:
        """Return True if a name is a class that only this process knows."""
        return name in self._classes

    def has_source(self, name: str) -> bool:
        """Return True if the code behind `name` can be identified. It cannot for classes made by `exec`."""
        local = self._classes.get(name)
        return local is None or local.has_source

    def provenance(self, name: str) -> dict[str, str]:
        """Return what identifies the code of `name` if it is not in a package: the hash of a file, or of a class of
        this process.
        """
        if self.is_class(name):
            return {"source": self.origin(name)}
        return {"file": self.origin(name)} if self.is_file(name) else {}

    def argument(self, name: str) -> str:
        """Return the part after the colon of `KIND:ARGUMENT`, or an empty string."""
        return "" if self.is_file(name) else name.partition(":")[2]

    def load(self, name: str, accept: Callable[[Any], bool], expected: str) -> Any:
        """Import the object behind `name`.

        If a class has a method `from_argument`, `name` holds the argument, and the object is `from_argument(argument)`.

        Args:
            name: a registered name, with its argument if it takes one, or a class in a file.
            accept: returns True if the imported object is of the right kind.
            expected: describes the right kind in words.

        Raises:
            UserError: the name is unknown, its module cannot be imported, the object is of the wrong kind, or an
                argument is missing or not expected.
        """
        local = self._classes.get(name)
        if local is not None or self.is_file(name):
            loaded = single_file.load(name) if local is None else local.kind
            if not accept(loaded):
                kind = "" if isinstance(loaded, type) else f"of type {type(loaded).__name__}, "
                raise UserError(f"{name} is {kind}not {expected}")
            return loaded
        loaded = self.load_kind(name)
        if not accept(loaded):
            point = self.entry(name)
            raise UserError(
                f"the {self.kind} '{name}' of {_origin(point)}: {point.value} is not {expected}"
            )
        return self._with_argument(loaded, name)

    def load_kind(self, name: str) -> Any:
        """Import the object that a package registers for `name`, and ignore its argument.

        Raises:
            UserError: the name is unknown, or its module cannot be imported.
        """
        point = self.entry(name)
        try:
            with isolated_import():
                return point.load()
        except (
            FAILURES
        ) as error:  # a plug-in may fail in any way; it is named, and the harness continues
            raise UserError(
                f"the {self.kind} '{name}' of {_origin(point)} cannot be loaded: {point.value} raised "
                f"{summarize_error(error)}",
                next_step=f"fix or uninstall {_origin(point)}",
            ) from error

    def _with_argument(self, loaded: Any, name: str) -> Any:
        argument = self.argument(name)
        if hasattr(loaded, "from_argument") == bool(argument):
            return loaded.from_argument(argument) if argument else loaded
        plain = name.partition(":")[0]
        if argument:
            raise UserError(
                f"the {self.kind} '{plain}' takes no argument, but is given '{argument}'",
                next_step=f"name it '{plain}'",
            )
        raise UserError(
            f"the {self.kind} '{plain}' needs an argument",
            allowed=self.summary(plain).rstrip("."),
        )

    def source(self, name: str) -> Path | None:
        """Return the file of the module that `name` points to, without importing it."""
        if self.is_file(name):
            return single_file.plugin_file(name)
        point = self.entry(name)
        try:
            spec = importlib.util.find_spec(point.module)
        except FAILURES:  # it is gone or cannot be imported: the listing continues
            return None
        return Path(spec.origin) if spec and spec.origin else None

    def yaml_file(self, name: str, what: str) -> Path:
        """Return the file `<name>.yaml` beside the module that `name` points to.

        Raises:
            UserError: the file does not exist; `what` describes it in the message.
        """
        module = self.source(name)
        if module is None:
            raise UserError(
                f"the {self.kind} '{name}' of {self.origin(name)} is in a module that does not exist, "
                f"{self.entry(name).module}",
                next_step=f"fix its entry point, or uninstall {self.origin(name)}",
            )
        path = module.parent / f"{name}.yaml"
        if not path.is_file():
            raise UserError(
                f"the {self.kind} '{name}' of {self.origin(name)} has no {what}",
                allowed=f"a {what} belongs beside its module, as {path}",
            )
        return path

    def origin(self, name: str) -> str:
        """Return where `name` comes from: a package with its version, or a file or class with its SHA-256."""
        local = self._classes.get(name)
        if local is not None:
            return local.code
        if self.is_file(name):
            return f"file {single_file.describe_code(name)}"
        return _origin(self.entry(name))

    def summary(self, name: str) -> str:
        """Return the first line of the docstring of `name`'s module without importing the module."""
        path = self.source(name)
        if path is None or path.suffix != ".py":
            module = self.entry(name).value.partition(":")[0]
            return f"(module {module} of {self.origin(name)} was not found)"
        try:
            docstring = ast.get_docstring(ast.parse(path.read_bytes()))
        except (SyntaxError, OSError, ValueError, RecursionError) as error:
            return f"({path.name} of {self.origin(name)} cannot be read: {error})"
        return docstring.splitlines()[0] if docstring else ""


def _origin(point: EntryPoint) -> str:
    return f"package {point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"


TASKS = Registry("lape_bench.tasks", "task")
SYSTEMS = Registry("lape_bench.systems", "system")
PAPERS = Registry("lape_bench.papers", "paper")
