"""Tasks: the card of a task, and the reader of its data set.

A card is a YAML file beside the module of its reader, named after the task. It fixes everything about the task that can
move a score. A convention that would give another score is a named variant, `task@variant`, and never shares a table
with the base card.
"""

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from lape_bench.core.config import Config
from lape_bench.core.errors import UserError, unknown
from lape_bench.core.printable import is_printable, printable
from lape_bench.core.regular_files import MOST_TABLE_BYTES, read_text
from lape_bench.metrics import METRICS, ROC_AUC

LONGEST_CLASS = 200  # characters of a class's name
MOST_NUMBERED = 10**5

SplitName = Literal["train", "val", "test"]
Domain = Literal["speech", "sound", "music", "bioacoustics"]
SIDES: tuple[SplitName, ...] = ("train", "val", "test")
SIDE_NAMES: dict[str, SplitName] = {  # common names of the sides, in lower case
    **dict.fromkeys(["train", "training"], "train"),
    **dict.fromkeys(["val", "valid", "validation", "dev"], "val"),
    **dict.fromkeys(["test", "testing", "eval", "evaluation"], "test"),
}
Decibels = Annotated[float, Field(ge=-80, le=0)]
DEPTH = 2  # levels of folders that a user or an archive may put around a data set


class Source(Config):
    """A file of a task's data set."""

    file: str = Field(description="name of the archive on disk")
    url: str | None = Field(
        None, description="address to download it from; None if it cannot be downloaded"
    )
    mirrors: tuple[str, ...] = Field((), description="other addresses of the same file")
    bytes: int | None = Field(None, gt=0, description="size, if it is known")
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$", description="none: unknown")
    md5: str | None = Field(None, pattern="^[0-9a-f]{32}$", description="if only that is known")
    pinned: bool = Field(
        True,
        description="whether the first download fixes the checksum, if the card has none; false for an archive that its server creates on each request",
    )
    note: str = Field("", description="what a user should know about this file")

    @model_validator(mode="after")
    def _mirrors_go_with_a_url(self) -> Self:
        if self.mirrors and self.url is None:
            raise ValueError("'mirrors' has no meaning without a url")
        return self


class SplitRule(Config):
    """How clips are assigned to the sides of the split."""

    rule: Literal["official", "folds", "drawn"] = Field(
        description="official: the reader returns train, test and perhaps val; folds: it returns a fold; drawn: the harness draws the sides, the same on every machine, and keeps groups whole if the card has groups"
    )
    folds: int | None = Field(None, ge=2, description="number of folds, if the rule is folds")
    shares: dict[SplitName, float] | None = Field(
        None, description="share of each class on each side, if the rule is drawn"
    )
    seed: int = Field(0, description="seed of the split, if the rule is drawn")
    may_share: tuple[SplitName, ...] = Field(
        (), description="sides that share groups because the official split was made so"
    )
    may_overlap: bool = Field(
        False, description="clips of one recording on two sides may share audio"
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
    """The columns of a table. Without `split` and `fold` the sides are drawn."""

    path: str = Field("path", description="the recording, relative to the folder of them all")
    label: str = Field("label", description="the clip's class")
    split: str | None = Field(None, description="train, val or test")
    fold: str | None = Field(None, description="a number, from 1 or from 0")
    group: str | None = Field(
        None, description="group that must stay on one side, such as a speaker"
    )
    start_seconds: str | None = Field(None, description="start of the clip in its recording")
    seconds: str | None = Field(None, description="the clip's length")
    end_seconds: str | None = Field(
        None, description="end of the clip in its recording, instead of its length"
    )


class Recordings(Config):
    """The recordings of a user's own task, whose card needs no reader.

    Without a table, each folder is a class; folders for the sides may be above them.
    """

    folder: Path = Field(description="the folder of all recordings; IDs are paths relative to it")
    table: Path | None = Field(None, description="a CSV file, one clip per line")
    columns: Columns = Field(default_factory=Columns)

    @field_validator("folder", "table")
    @classmethod
    def _is_absolute(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_absolute():
            raise ValueError("must be an absolute path")
        return path


class Expected(Config):
    """Expected contents of the whole data set. A difference is reported but not refused."""

    clips: int = Field(gt=0)
    per_class: int | dict[str, int] | None = Field(
        None, description="clips per class: one number for all classes, or one for each"
    )
    per_side: dict[str, int] = Field(
        default_factory=dict, description="clips of train, val and test, or of fold 1, 2, ..."
    )


class Variant(Config):
    """Changes of a named variant to its base card."""

    about: str = Field(description="what differs, and why it is useful")
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
        """Return every name, in order.

        Raises:
            ValueError: there are too many, or the pattern has no place for a number.
            LookupError: the pattern has a place for something else.
        """
        if self.last - self.first >= MOST_NUMBERED:
            raise ValueError(f"more than {MOST_NUMBERED:,} classes")
        return [self.pattern.format(number) for number in range(self.first, self.last + 1)]


class TaskCard(Config):
    """A task: its classes, clips, split and metric."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9-]*$")
    version: int = Field(ge=1, description="raised whenever a score could change")
    title: str
    about: str = Field("", description="what the recordings are")
    suite: str = Field(description="suite that it belongs to: open, synthetic, lape or own")
    domain: Domain
    data: Literal["real", "synthetic"] = "real"
    classes: tuple[str, ...] = Field(min_length=2)
    window_seconds: float = Field(
        ge=0.1, allow_inf_nan=False, description="length of a training window"
    )
    shortest_seconds: float = Field(
        0.1, gt=0, description="shorter clips are refused, since they are mostly padding"
    )
    level_dbfs: Decibels | None = Field(
        None,
        description="RMS to which every clip is scaled when it is read, in decibels relative to full scale, such as -26; None: no scaling",
    )
    metric: str = Field(description="metric that systems are ranked by")
    split: SplitRule
    group: str | None = Field(
        None, description="kind of group that stays on one side, such as speaker or recording"
    )
    sources: tuple[Source, ...] = ()
    recordings: Recordings | None = Field(
        None, description="place of the recordings, in a card that `bench tasks new` wrote"
    )
    obtain: str = Field(
        "", description="how a user gets the recordings if they cannot be downloaded"
    )
    license: str
    citation: str
    expected: Expected
    variants: dict[str, Variant] = Field(default_factory=dict)
    variant: str = Field("", exclude=True, description="set by `with_variant`, not in the file")

    @field_validator("classes", mode="before")
    @classmethod
    def _numbers_are_spelled_out(cls, classes: Any) -> Any:
        if not isinstance(classes, dict):
            return classes
        try:
            return NumberedClasses.model_validate(classes).names()
        except (LookupError, ValueError) as error:
            raise ValueError(
                f"needs a list of names, or pattern, first and last (at most {MOST_NUMBERED:,} classes), such as "
                "{pattern: 'id{:05d}', first: 1, last: 20}"
            ) from error

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        twice = sorted(label for label, count in Counter(classes).items() if count > 1)
        if twice:
            raise ValueError(f"{', '.join(twice)} appears twice")
        return classes

    @field_validator("classes")
    @classmethod
    def _classes_can_be_shown(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        # A record with such a name could not be read again.
        for label in classes:
            if not is_printable(label) or "\n" in label or len(label) > LONGEST_CLASS:
                shown = printable(label[:40]).replace("\n", "\\n")
                raise ValueError(
                    f"the class '{shown}' holds control characters, or more than {LONGEST_CLASS} characters"
                )
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
        """Hash of the fields that decide the audio and the split of an own card, which its user may edit; empty for
        other cards.
        """
        if self.recordings is None:
            return ""
        without_end = self.recordings.columns.end_seconds is None  # as cards of before it existed
        decides = self.model_dump_json(
            include={"recordings", "split", "group", "shortest_seconds", "level_dbfs"},
            exclude={"recordings": {"columns": {"end_seconds"}}} if without_end else None,
        )
        return hashlib.sha256(decides.encode()).hexdigest()

    @property
    def reference(self) -> str:
        """The name of the task on the command line: `name` or `name@variant`."""
        return f"{self.name}@{self.variant}" if self.variant else self.name

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds of a run, from 1; a single 0 if the split is official."""
        return tuple(range(1, self.split.folds + 1)) if self.split.folds else (0,)

    def check_fold(self, fold: int) -> None:
        """Raise a `UserError` if the task has no such fold."""
        if fold not in self.folds:
            folds = (
                f"1 to {self.split.folds}" if self.split.folds else "none, its split is official"
            )
            raise UserError(f"{self.reference} has no fold {fold}", allowed=f"its folds: {folds}")

    def with_variant(self, name: str) -> "TaskCard":
        """Return the card of a variant. An empty name gives this card."""
        if not name:
            return self
        if name not in self.variants:
            raise unknown("variant", name, self.variants, where=f"the task {self.name}")
        variant = self.variants[name]
        changed: dict[str, Any] = {
            field: getattr(variant, field) for field in variant.model_fields_set - {"about"}
        }
        values = {field: getattr(self, field) for field in type(self).model_fields}
        return TaskCard.model_validate({**values, **changed, "variant": name})


class Segment(NamedTuple):
    """A part of a longer recording."""

    start_seconds: float
    seconds: float


class ClipEntry(NamedTuple):
    """A clip as a reader finds it, before its audio is read."""

    clip_id: str  # the same for all formats and machines: the relative path without its extension
    path: Path  # below the root given to the reader
    label: str
    split: SplitName | None  # for rule: official
    fold: int | None  # for rule: folds, from 1
    group: str | None
    segment: Segment | None = None  # None: the whole file


class Reader(ABC):
    """Reads the folder layout of a data set."""

    @abstractmethod
    def read(self, root: Path, card: TaskCard) -> list[ClipEntry]:
        """List the clips of the task below `root`.

        Args:
            root: the folder a user gave or an archive was unpacked to.
            card: the card, or the card of a variant.

        Raises:
            UserError: the folder does not have the layout of the data set.
        """


class IndexedReader(Reader):
    """A reader of a data set that comes in many small archives, listed in one of the card's sources.

    Some of these archives may be missing or damaged. A folder from a user may hold them at any depth. The reader sees
    the folder of an archive as part of the path.
    """

    index: ClassVar[str]  # the source that lists the archives

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
        """Write the data set below the empty folder `root`. The same card gives the same bytes."""


def folders(root: Path, marker: str) -> Iterator[Path]:
    """Yield the folders that hold `marker`, sorted: `root` and folders up to `DEPTH` levels below it.

    Archives often add a level, and a data set may consist of several archives. Hidden folders, folders below one that
    holds the marker, and folders that cannot be read, such as the `lost+found` of a disk, are not searched.

    Args:
        root: a folder.
        marker: a pattern, relative to the folder, that must match a path in it.
    """
    level = [root]
    for _ in range(DEPTH + 1):
        holding = [any(folder.glob(marker)) for folder in level]
        yield from itertools.compress(level, holding)
        without = (folder for folder, holds in zip(level, holding, strict=True) if not holds)
        level = [below for folder in without for below in _subfolders(folder)]


def _subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted; none if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and may_hold_data(path))
    except PermissionError:
        return []


def may_hold_data(folder: Path) -> bool:
    """Return True if a folder may hold recordings, by its name. Archives from macOS have a folder that repeats every
    name.
    """
    return folder.name != "__MACOSX" and not folder.name.startswith(".")


def leads_back(path: Path) -> bool:
    """Return True if a path is a link to a folder that it lies in, perhaps through other links, so that a walk through
    links would not end.
    """
    if not path.is_symlink():
        return False
    target = path.resolve()
    return any(folder.resolve().is_relative_to(target) for folder in path.parents)


def read_list(path: Path, errors: str = "strict") -> str:
    """Read a text file that a data set comes with, in UTF-8.

    Args:
        path: the file.
        errors: what to do with bytes that are not UTF-8, as for `bytes.decode`.

    Raises:
        UserError: it is missing, is not a regular file, or cannot be read.
        UnicodeDecodeError: it is not UTF-8.
    """
    try:
        return read_text(path, MOST_TABLE_BYTES, errors)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error


def locate(root: Path, marker: str) -> Path:
    """Return the first of the `folders` that hold `marker`.

    Raises:
        UserError: there is none.
    """
    folder = next(folders(root, marker), None)
    if folder is None:
        raise UserError(
            f"{root} does not have the expected layout: no {marker} in it, nor up to {DEPTH} folders further down",
            next_step="give the folder or archive as the data set's authors publish it",
        )
    return folder
