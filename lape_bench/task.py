"""Task: a card, read and checked, and the reader of its data set's layout.

A card is a YAML file beside its reader's module, named after the task. It fixes everything about
the task that moves a score; a convention that would give another score is a named variant, asked
for as `task@variant`, and never shares a table with the base card.
"""

from abc import ABC, abstractmethod
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from lape_bench.config import Config, read_yaml
from lape_bench.errors import UserError, unknown
from lape_bench.metrics import METRICS
from lape_bench.registry import TASKS

Side = Literal["train", "val", "test"]


class Source(Config):
    """One file that a task's data comes in."""

    file: str = Field(description="name of the archive on disk")
    url: str | None = Field(None, description="where it may be fetched from; none: it may not")
    mirrors: tuple[str, ...] = Field((), description="other addresses of the same file")
    bytes: int | None = Field(None, gt=0, description="size, where it is known")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="none: unknown")
    note: str = Field("", description="what a user should know of this file")

    @model_validator(mode="after")
    def _mirrors_go_with_a_url(self) -> Self:
        if self.mirrors and self.url is None:
            raise ValueError("'mirrors' has no meaning without a url")
        return self


class SplitRule(Config):
    """How clips come to their side."""

    rule: Literal["official", "folds"] = Field(
        description="official: the reader gives train, test and perhaps val; folds: it gives a fold"
    )
    folds: int | None = Field(None, ge=2, description="number of folds, for rule: folds")
    origin: str = Field(description="who made the split and from what")

    @model_validator(mode="after")
    def _folds_go_with_the_rule(self) -> Self:
        if (self.rule == "folds") != (self.folds is not None):
            raise ValueError("'folds' is needed for rule: folds and has no meaning otherwise")
        return self


class Expected(Config):
    """What the whole data set holds; a difference is named, not refused."""

    clips: int = Field(gt=0)
    per_class: int | None = Field(
        None, gt=0, description="clips of every class, where all are equal"
    )
    per_side: dict[str, int] = Field(
        default_factory=dict, description="clips of train, val, test, or of fold 1, 2, ..."
    )


class Variant(Config):
    """What a named variant changes of its base card."""

    about: str = Field(description="what differs, and why somebody wants it")
    classes: tuple[str, ...] | None = None
    window_seconds: float | None = None
    split: SplitRule | None = None
    group: str | None = None
    expected: Expected | None = None


class TaskCard(Config):
    """A task: what is to be told apart, from which clips, scored how."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9-]*$")
    version: int = Field(ge=1, description="raised whenever a score could change")
    title: str
    suite: str = Field(description="the suite it is listed under: open, synthetic, lape")
    domain: Literal["speech", "sound", "music", "bioacoustics"]
    data: Literal["real", "synthetic"] = "real"
    classes: tuple[str, ...] = Field(min_length=2)
    window_seconds: float = Field(
        gt=0, allow_inf_nan=False, description="length of a training window"
    )
    metric: str = Field(description="what the task is ranked by")
    split: SplitRule
    group: str | None = Field(
        None, description="what never stands on two sides: speaker, recording"
    )
    sources: tuple[Source, ...] = ()
    licence: str
    citation: str
    expected: Expected
    variants: dict[str, Variant] = Field(default_factory=dict)
    variant: str = Field("", exclude=True, description="set by `with_variant`, not in the file")

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted({label for label in classes if classes.count(label) > 1})
        if twice:
            raise ValueError(f"{', '.join(twice)} stands twice")
        return classes

    @field_validator("metric")
    @classmethod
    def _metric_is_known(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(unknown("metric", metric, METRICS).what)
        return metric

    @model_validator(mode="after")
    def _variants_keep_the_rules(self) -> Self:
        for name in self.variants if not self.variant else ():
            try:
                self.with_variant(name)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in ("variants", name, *first["loc"]))
                raise ValueError(f"{where}: {first['msg']}") from error
        return self

    @property
    def reference(self) -> str:
        """The task as a user asks for it: `name`, or `name@variant`."""
        return f"{self.name}@{self.variant}" if self.variant else self.name

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds a run goes through, from 1; a single 0 where the split is official."""
        return tuple(range(1, self.split.folds + 1)) if self.split.folds else (0,)

    def check_fold(self, fold: int) -> None:
        """Raise a `UserError` if the task has no such fold."""
        if fold not in self.folds:
            folds = (
                f"1 to {self.split.folds}" if self.split.folds else "none, its split is official"
            )
            raise UserError(f"{self.reference} has no fold {fold}", allowed=f"its folds: {folds}")

    def with_variant(self, name: str) -> "TaskCard":
        """Return this card as its variant `name` has it; an empty name is the card itself."""
        if not name:
            return self
        if name not in self.variants:
            raise unknown(f"variant of {self.name}", name, self.variants)
        variant = self.variants[name]
        changed: dict[str, Any] = {
            field: getattr(variant, field) for field in variant.model_fields_set - {"about"}
        }
        values = {field: getattr(self, field) for field in type(self).model_fields}
        return TaskCard.model_validate({**values, **changed, "variant": name})


class Listed(NamedTuple):
    """A clip as a reader finds it, before its audio is looked at."""

    clip_id: str  # stable across formats and machines: the relative path without its ending
    path: Path  # below the root given to the reader
    label: str
    split: Side | None  # for rule: official
    fold: int | None  # for rule: folds, from 1
    group: str | None


class Reader(ABC):
    """Knows one data set's folder layout."""

    @abstractmethod
    def read(self, root: Path, card: TaskCard) -> list[Listed]:
        """List the clips of the task below `root`.

        Args:
            root: the folder a user gave or an archive was unpacked to.
            card: the card, as its variant has it.

        Raises:
            UserError: the folder has not the layout of the data set.
        """


class Generator(Reader):
    """A reader whose data set is generated, so that it needs no download."""

    @abstractmethod
    def generate(self, root: Path, card: TaskCard) -> None:
        """Write the data set below the empty folder `root`: same card, same bytes."""


def load_card(reference: str) -> TaskCard:
    """Read the card of `name` or `name@variant`; its reader is not imported.

    Raises:
        UserError: unknown task or variant (the nearest is named), or a card that does not hold.
    """
    name, _, variant = reference.partition("@")
    return _card(name).with_variant(variant)


@cache
def _card(name: str) -> TaskCard:
    module = TASKS.source(name)
    path = (module.parent if module else Path()) / f"{name}.yaml"
    if module is None or not path.is_file():
        raise UserError(
            f"the task '{name}' has no card",
            allowed=f"a card stands beside its reader's module, as {path}",
        )
    return read_card(path)


def read_card(path: Path) -> TaskCard:
    """Read and check one card file; its name must be the task's."""
    card = read_yaml(path, TaskCard)
    if card.name != path.stem:
        raise UserError(
            f"{path}: 'name' is {card.name!r}", allowed=f"the file's own: {path.stem!r}"
        )
    if card.variant:
        raise UserError(f"{path}: 'variant' is not a key of the file; known: variants")
    return card


def load_reader(card: TaskCard) -> Reader:
    """Import the reader of a card's data set."""
    kind: type[Reader] = TASKS.load(
        card.name,
        lambda loaded: isinstance(loaded, type) and issubclass(loaded, Reader),
        "a class derived from lape_bench.task.Reader",
    )
    return kind()


def locate(root: Path, marker: str) -> Path:
    """Return `root`, or the first of its subfolders that holds `marker` (archives often add a level).

    Args:
        root: a folder.
        marker: a pattern, relative to the folder sought, that must match something there.

    Raises:
        UserError: neither holds it.
    """
    subfolders = [path for path in sorted(root.iterdir()) if path.is_dir()]
    for folder in [root, *subfolders]:
        if any(folder.glob(marker)):
            return folder
    raise UserError(
        f"{root} has not the expected layout: no {marker} in it, nor one folder further down",
        next_step="give the folder or archive as the data set's authors publish it",
    )
