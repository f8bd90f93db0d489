"""Task: what a card says, and what a reader of its data set's layout gives.

A card is a YAML file beside its reader's module, named after the task. It fixes everything about
the task that moves a score; a convention that would give another score is a named variant, asked
for as `task@variant`, and never shares a table with the base card.
"""

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from lape_bench.core.config import Config
from lape_bench.core.errors import UserError, unknown
from lape_bench.metrics import METRICS, ROC_AUC

SplitName = Literal["train", "val", "test"]
Domain = Literal["speech", "sound", "music", "bioacoustics"]
SIDES: tuple[SplitName, ...] = ("train", "val", "test")
SIDE_NAMES: dict[str, SplitName] = {  # what people call them, in lower case
    **dict.fromkeys(["train", "training"], "train"),
    **dict.fromkeys(["val", "valid", "validation", "dev"], "val"),
    **dict.fromkeys(["test", "testing", "eval", "evaluation"], "test"),
}
Decibels = Annotated[float, Field(ge=-80, le=0)]
DEPTH = 2  # folders that a user, or an archive, may put around a data set


class Source(Config):
    """One file that a task's data comes in."""

    file: str = Field(description="name of the archive on disk")
    url: str | None = Field(None, description="where it may be fetched from; none: it may not")
    mirrors: tuple[str, ...] = Field((), description="other addresses of the same file")
    bytes: int | None = Field(None, gt=0, description="size, where it is known")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="none: unknown")
    md5: str | None = Field(None, pattern="^[0-9a-f]{32}$", description="where only that is known")
    pinned: bool = Field(
        True,
        description="whether a checksum the card does not know is fixed by the first download; not for an "
        "archive that its server makes again on each request",
    )
    note: str = Field("", description="what a user should know of this file")

    @model_validator(mode="after")
    def _mirrors_go_with_a_url(self) -> Self:
        if self.mirrors and self.url is None:
            raise ValueError("'mirrors' has no meaning without a url")
        return self


class SplitRule(Config):
    """How clips come to their side."""

    rule: Literal["official", "folds", "drawn"] = Field(
        description="official: the reader gives train, test and perhaps val; folds: it gives a fold; drawn: "
        "the harness draws sides, whole groups only where the card has groups, the same on every machine"
    )
    folds: int | None = Field(None, ge=2, description="number of folds, for rule: folds")
    shares: dict[SplitName, float] | None = Field(
        None, description="share of each class on each side, for rule: drawn"
    )
    seed: int = Field(0, description="of the draw, for rule: drawn")
    may_share: tuple[SplitName, ...] = Field(
        (), description="sides that have groups in common by the design of who made the split"
    )
    may_overlap: bool = Field(
        False, description="stretches of one recording on two sides may share audio"
    )
    origin: str = Field(description="who made the split and from what")

    @model_validator(mode="after")
    def _details_go_with_the_rule(self) -> Self:
        for rule, name, value in (("folds", "folds", self.folds), ("drawn", "shares", self.shares)):
            if (self.rule == rule) != (value is not None):
                raise ValueError(
                    f"'{name}' is needed for rule: {rule} and has no meaning otherwise"
                )
        if self.shares is not None and (
            not {"train", "test"} <= set(self.shares)
            or min(self.shares.values()) <= 0
            or abs(sum(self.shares.values()) - 1) > 1e-9
        ):
            raise ValueError("'shares' must name train and test, each above 0, and sum to 1")
        return self


class Columns(Config):
    """Which column of a table says what; without `split` and `fold` the sides are drawn."""

    path: str = Field("path", description="the recording, relative to the folder of them all")
    label: str = Field("label", description="the clip's class")
    split: str | None = Field(None, description="train, val or test")
    fold: str | None = Field(None, description="a number, from 1 or from 0")
    group: str | None = Field(None, description="what never stands on two sides, such as a speaker")
    start_seconds: str | None = Field(None, description="where the clip begins in its recording")
    seconds: str | None = Field(None, description="the clip's length")


class Recordings(Config):
    """Where the recordings of a user's own task are; such a card needs no reader of its own.

    Without a table, each folder is a class, perhaps below folders for the sides.
    """

    folder: Path = Field(description="the folder of all recordings; ids are paths relative to it")
    table: Path | None = Field(None, description="a CSV file, one clip a line")
    columns: Columns = Field(default_factory=Columns)

    @field_validator("folder", "table")
    @classmethod
    def _is_absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute():
            raise ValueError("must be an absolute path")
        return path


class Expected(Config):
    """What the whole data set holds; a difference is named, not refused."""

    clips: int = Field(gt=0)
    per_class: int | dict[str, int] | None = Field(
        None, description="clips of every class, or of each"
    )
    per_side: dict[str, int] = Field(
        default_factory=dict, description="clips of train, val, test, or of fold 1, 2, ..."
    )


class Variant(Config):
    """What a named variant changes of its base card."""

    about: str = Field(description="what differs, and why somebody wants it")
    classes: tuple[str, ...] | None = None
    window_seconds: float | None = None
    level_dbfs: Decibels | None = None
    split: SplitRule | None = None
    group: str | None = None
    expected: Expected | None = None


class NumberedClasses(Config):
    """Classes named by consecutive numbers."""

    pattern: str = Field(description="a name, with the number in braces: id{:05d}")
    first: int
    last: int

    def names(self) -> list[str]:
        """Return every name, in order."""
        return [self.pattern.format(number) for number in range(self.first, self.last + 1)]


class TaskCard(Config):
    """A task: what is to be told apart, from which clips, scored how."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9-]*$")
    version: int = Field(ge=1, description="raised whenever a score could change")
    title: str
    about: str = Field("", description="what the recordings are")
    suite: str = Field(description="the suite it is listed under: open, synthetic, lape, own")
    domain: Domain
    data: Literal["real", "synthetic"] = "real"
    classes: tuple[str, ...] = Field(min_length=2)
    window_seconds: float = Field(
        ge=0.1, allow_inf_nan=False, description="length of a training window"
    )
    shortest_seconds: float = Field(
        0.1, gt=0, description="clips below are refused: there is little but padding to see"
    )
    level_dbfs: Decibels | None = Field(
        None,
        description="RMS that every clip is scaled to when it is read, in decibels relative to full scale, such as -26; "
        "none: clips are as recorded",
    )
    metric: str = Field(description="what the task is ranked by")
    split: SplitRule
    group: str | None = Field(
        None, description="what never stands on two sides: speaker, recording"
    )
    sources: tuple[Source, ...] = ()
    recordings: Recordings | None = Field(
        None, description="where they are, for a card that `bench tasks new` wrote"
    )
    obtain: str = Field("", description="what a user has to do by hand if nothing may be fetched")
    license: str
    citation: str
    expected: Expected
    variants: dict[str, Variant] = Field(default_factory=dict)
    variant: str = Field("", exclude=True, description="set by `with_variant`, not in the file")

    @field_validator("classes", mode="before")
    @classmethod
    def _numbers_are_spelled_out(cls, classes: Any) -> Any:
        return NumberedClasses(**classes).names() if isinstance(classes, dict) else classes

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
    def _metric_fits_the_classes(self) -> Self:
        if self.metric == ROC_AUC and len(self.classes) != 2:
            raise ValueError(
                f"the metric '{ROC_AUC}' is for 2 classes, and the task has {len(self.classes)}"
            )
        return self

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

    @model_validator(mode="after")
    def _groups_are_read_somewhere(self) -> Self:
        if self.recordings is not None and self.group is not None:
            columns = self.recordings.columns
            if self.recordings.table is None or not (columns.group or columns.start_seconds):
                raise ValueError(
                    "'group' needs a table with a column for it, recordings.columns.group"
                )
        return self

    @property
    def state(self) -> str:
        """A hash of what decides the audio and the split of an own card, which its user may edit; empty for other cards."""
        if self.recordings is None:
            return ""
        decides = self.model_dump_json(
            include={"recordings", "split", "group", "shortest_seconds", "level_dbfs"}
        )
        return hashlib.sha256(decides.encode()).hexdigest()

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


class Segment(NamedTuple):
    """A stretch of a longer recording."""

    start_seconds: float
    seconds: float


class ClipEntry(NamedTuple):
    """A clip as a reader finds it, before its audio is looked at."""

    clip_id: str  # stable across formats and machines: the relative path without its ending
    path: Path  # below the root given to the reader
    label: str
    split: SplitName | None  # for rule: official
    fold: int | None  # for rule: folds, from 1
    group: str | None
    segment: Segment | None = None  # none: the whole file


class Reader(ABC):
    """Knows one data set's folder layout."""

    @abstractmethod
    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the clips of the task below `root`.

        Args:
            root: the folder a user gave or an archive was unpacked to.
            card: the card, as its variant has it.

        Raises:
            UserError: the folder has not the layout of the data set.
        """


class IndexedReader(Reader):
    """A reader whose data set comes in many small archives, which a file of the card's sources names.

    Some of these archives may be missing or damaged. A folder that a user gives may hold them at any depth; where
    an archive lay is a part of the path that the reader sees.
    """

    index: ClassVar[str]  # the source file that names the archives

    @abstractmethod
    def read_index(self, path: Path) -> dict[str, str]:
        """Return the path of each archive, relative to the others, by its address.

        Args:
            path: the index as it was fetched.

        Raises:
            UserError: the file is not such an index.
        """


class Generator(Reader):
    """A reader whose data set is generated, so that it needs no download."""

    @abstractmethod
    def generate(self, root: Path, card: TaskCard) -> None:
        """Write the data set below the empty folder `root`: same card, same bytes."""


def folders(root: Path, marker: str) -> Iterator[Path]:
    """Yield the folders that hold `marker`, sorted: `root` and what is up to `DEPTH` folders below it.

    Archives often add a level, and a data set may come in several of them. What lies below a folder that
    holds the marker is not searched, nor are hidden folders.

    Args:
        root: a folder.
        marker: a pattern, relative to the folder sought, that must match something there.
    """
    level = [root]
    for _ in range(DEPTH + 1):
        holding = [any(folder.glob(marker)) for folder in level]
        yield from itertools.compress(level, holding)
        below = (
            sorted(path for path in folder.iterdir() if path.is_dir() and may_hold_data(path))
            for folder, holds in zip(level, holding, strict=True)
            if not holds
        )
        level = list(itertools.chain.from_iterable(below))


def may_hold_data(folder: Path) -> bool:
    """Tell by its name whether a folder may hold recordings; archives made on a Mac repeat every name in one."""
    return folder.name != "__MACOSX" and not folder.name.startswith(".")


def locate(root: Path, marker: str) -> Path:
    """Return the first of the `folders` that hold `marker`.

    Raises:
        UserError: none does.
    """
    folder = next(folders(root, marker), None)
    if folder is None:
        raise UserError(
            f"{root} has not the expected layout: no {marker} in it, nor up to {DEPTH} folders further down",
            next_step="give the folder or archive as the data set's authors publish it",
        )
    return folder
