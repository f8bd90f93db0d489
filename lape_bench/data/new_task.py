"""Write a card for new recordings: a folder of class folders, or a table of clips.

The card fixes what can move a score: classes, window and split. If there is no split, sides are drawn by hashing IDs.
"""

import os
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lape_bench.core.config import validate
from lape_bench.core.errors import UserError, unknown
from lape_bench.core.paths import require_exists, write_text
from lape_bench.data.audio import SUFFIXES, seconds_of
from lape_bench.data.audio_files import files_below, is_audio
from lape_bench.data.catalog import own_card, own_names, task_names
from lape_bench.data.clip_names import caseless, named_alike, shortened, spaces_shown
from lape_bench.data.draft_checks import check_sides
from lape_bench.data.drawn_split import draw_split, missed_shares
from lape_bench.data.readers import class_folders, clip_table
from lape_bench.data.readers.synthetic import SUFFIX
from lape_bench.data.similar_columns import similar_columns
from lape_bench.task import SIDES, ClipEntry, Columns, Recordings, SplitName, TaskCard

SHARES: dict[SplitName, float] = {"train": 0.6, "val": 0.2, "test": 0.2}
MOST_MEASURED = 500  # files whose length is read, evenly spaced
LONGEST_WINDOW = 10.0  # seconds; a longer window has to be given
LONGEST_NAME = 60  # characters of a task name, which files and folders have too

HEAD = """\
# Written by `bench tasks new`; {window}.
# Raise `version` when you change what could move a score: classes, window, split, group. Then `bench data prepare {name}`.
"""


class NewTask(NamedTuple):
    """A card before it is written.

    Attributes:
        card: the card.
        window: how its window was chosen.
        places: number of clips on each side or in each fold.
        notes: what was left out or should be checked, one sentence each.
    """

    card: TaskCard
    window: str
    places: dict[str, int]
    notes: tuple[str, ...]

    def write(self) -> Path:
        """Write the card to the folder of own cards, and return its path."""
        values = self.card.model_dump(mode="json", exclude_defaults=True)
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)
        path = own_card(self.card.name)
        write_text(path, HEAD.format(name=self.card.name, window=self.window) + text)
        return path


def new_task(
    name: str,
    source: Path,
    columns: dict[str, str],
    audio: Path | None = None,
    window_seconds: float | None = None,
    may_overlap: bool = False,
    **keys: str,
) -> NewTask:
    """Draft a card for recordings.

    Args:
        name: name of the task.
        source: a folder of class folders, or a CSV file with one clip a line.
        columns: names of the columns that are not called `path`, `label` and so on in the table; an empty name omits an
            optional column.
        audio: the folder of the recordings, if it is not the folder of the table.
        window_seconds: length of a training window; None: the median length of the clips, at most `LONGEST_WINDOW`.
        may_overlap: clips of one recording on two sides may overlap.
        keys: other keys of the card, such as title and metric.

    Raises:
        UserError: the name is taken or not valid, no file can be read, a value is not allowed, or there are too few
            classes or clips for a split.
    """
    refuse_name(name)
    source = _normal(require_exists(source, "the folder or table"))
    if source.is_dir():
        recordings, listing, notes = _folder(source, columns, audio)
    else:
        recordings, listing, notes = _table(source, columns, audio)
    listing = [named_alike(clip) for clip in listing]
    classes = _classes(source, listing)
    window_seconds, window = _window(listing, window_seconds)
    values = _card_values(name, listing, recordings)
    values["split"] |= {"may_overlap": may_overlap}
    values |= {
        "classes": classes,
        "window_seconds": window_seconds,
        **keys,
    }
    card = validate(values, TaskCard, where=f"the card of {name}")
    if card.split.rule == "drawn":
        listing = draw_split(listing, card)
    notes = [*notes, *check_sides(card, listing)]
    counts = _per_side(listing)
    if card.split.shares and (missed := missed_shares(counts, len(classes), card.split.shares)):
        notes.append(f"the drawn split has {missed}, since clips that share a group stay together")
    places = (
        {f"fold {fold}": counts[str(fold)] for fold in card.folds} if card.split.folds else counts
    )
    return NewTask(card, window, places, tuple(notes))


def _card_values(name: str, listing: Sequence[ClipEntry], recordings: Recordings) -> dict[str, Any]:
    """Return the keys of a card that the user need not give."""
    columns = recordings.columns
    group = columns.group or ("recording" if columns.start_seconds else None)
    return {
        "name": name,
        "version": 1,
        "title": name,
        "suite": "own",
        "domain": "sound",
        "metric": "accuracy",
        "split": _split(listing, group),
        "group": group,
        "recordings": recordings.model_dump(),
        "obtain": f"bench data prepare {name}, which takes your own recordings",
        "license": "not stated",
        "citation": "not stated",
        "expected": {
            "clips": len(listing),
            "per_class": dict(Counter(clip.label for clip in listing)),
            "per_side": _per_side(listing),
        },
    }


def refuse_name(name: str) -> None:
    """Raise a `UserError` if a new task cannot have this name."""
    allowed = "lowercase letters, digits and hyphens, such as bird-calls"
    spelled = name.lower().replace("_", "-").replace(" ", "-")
    is_name = (
        spelled.isascii() and spelled.replace("-", "").isalnum() and not spelled.startswith("-")
    )
    if spelled != name or not is_name:
        hint = f": did you mean '{spelled}'?" if is_name else ""
        raise UserError(f"'{name}' is not a name for a task{hint}", allowed=allowed)
    if len(name) > LONGEST_NAME:
        raise UserError(
            f"the task's name has {len(name)} letters", allowed=f"{LONGEST_NAME} at most"
        )
    if name.endswith(SUFFIX):
        raise UserError(
            f"'{name}' is not a name for a task",
            allowed=f"names that end in {SUFFIX} are those of synthetic versions",
        )
    if name in own_names():
        raise UserError(
            f"there is an own task '{name}' already: {own_card(name)}",
            next_step="edit or delete that file, or choose another name",
        )
    if name in task_names():
        raise UserError(
            f"there is a task '{name}' already",
            next_step="choose another name; 'bench tasks' lists them",
        )


def _folder(
    root: Path, columns: dict[str, str], audio: Path | None
) -> tuple[Recordings, list[ClipEntry], list[str]]:
    if columns or audio is not None:
        raise UserError(f"--column and --audio go with a table, and {root} is a folder")
    with_sides = class_folders.has_sides(root)
    listing = class_folders.list_clips(root, with_sides)
    return Recordings(folder=root), listing, _left_out(root, listing, with_sides)


def _table(
    table: Path, given: dict[str, str], audio: Path | None
) -> tuple[Recordings, list[ClipEntry], list[str]]:
    if table.suffix.lower() not in (".csv", ".tsv", ".txt"):
        raise UserError(
            f"{table} is neither a folder nor a table",
            allowed="a folder of class folders, or a CSV file; an archive has to be unpacked first",
        )
    root = _normal(require_exists(audio, "the folder")) if audio is not None else table.parent
    if not root.is_dir():
        raise UserError(f"{root} is not a folder", next_step="give the folder of the recordings")
    columns = _columns(table, given)
    listing = clip_table.list_clips(table, columns, root)
    if not listing:
        raise UserError(
            f"{table} has no line below the names of its columns", allowed="a line for each clip"
        )
    missing = sorted(clip.clip_id for clip in listing if not _is_there(clip.path))
    if listing and len(missing) == len(listing):
        raise UserError(
            f"none of the {len(listing)} recordings that {table} names is there, such as {listing[0].path}",
            next_step="give the folder that its paths are relative to: --audio FOLDER",
        )
    notes = [f"not there, of {len(listing)} recordings: {shortened(missing)}"] if missing else []
    return Recordings(folder=root, table=table, columns=columns), listing, notes


def _columns(table: Path, given: dict[str, str]) -> Columns:
    """Return the given columns, and any others that the table has under their usual name."""
    known = list(Columns.model_fields)
    for key in given:
        if key not in known:
            raise unknown("column of a clip", key, known)
        if key in ("path", "label") and not given[key]:
            raise UserError(
                f"--column {key}= leaves out what every clip needs", allowed=f"{key}=NAME"
            )
    names = clip_table.column_names(table)
    name_of = {key: key for key in known if key in names} | given
    required = {key: name_of.get(key) or key for key in ("path", "label")}
    columns = Columns(**{**{key: name_of.get(key) or None for key in known}, **required})
    similar = list(similar_columns(clip_table.column_texts(table), columns, list(given)))
    if similar:
        uses = [f"--column {key}='{name}'" for name, key in similar]
        keys = dict.fromkeys(key for _, key in similar)
        raise UserError(
            f"{table} has columns that the task would not use: "
            + ", ".join(f"'{name}' may be its {key}" for name, key in similar),
            allowed=f"{' '.join(uses)} uses {'it' if len(similar) == 1 else 'them'}",
            next_step=f"choose, or do without: {' '.join(f'--column {key}=' for key in keys)}",
        )
    if columns.split and columns.fold:
        raise UserError(
            f"{table} has sides in '{columns.split}' and folds in '{columns.fold}'",
            allowed="a task has one of them",
            next_step="leave one out with --column split= or --column fold=",
        )
    _check_times(table, columns)
    return columns


def _check_times(table: Path, columns: Columns) -> None:
    """Raise a `UserError` if a table has a start without a length or an end, or the other way round, or both."""
    if columns.seconds and columns.end_seconds:
        raise UserError(
            f"{table} has lengths in '{columns.seconds}' and ends in '{columns.end_seconds}'",
            allowed="one of them",
            next_step="leave one out with --column seconds= or --column end_seconds=",
        )
    if bool(columns.start_seconds) != bool(columns.seconds or columns.end_seconds):
        raise UserError(
            f"{table} has only one of start_seconds and seconds",
            allowed="start_seconds and either seconds or end_seconds, for clips that are stretches of longer recordings, or none of them",
            next_step="name the other with --column, or leave this one out with --column seconds= or start_seconds=",
        )


def _classes(source: Path, listing: Sequence[ClipEntry]) -> list[str]:
    classes = sorted({clip.label for clip in listing})
    if not classes:
        raise UserError(
            f"{source} has no class with audio in it",
            allowed=f"a folder for each class, with files that end in {', '.join(sorted(SUFFIXES))}; or a CSV file",
            next_step="give the folder that holds the class folders",
        )
    if len(classes) < 2:
        raise UserError(
            f"{source} has one class only, '{classes[0]}'",
            allowed="two at least",
            next_step=f"if the class folders lie in '{classes[0]}', give that one"
            if source.is_dir()
            else "",
        )
    alike: dict[str, str] = {}
    for label in classes:
        other = alike.setdefault(caseless(label), label)
        if other != label:
            raise UserError(
                f"the classes '{spaces_shown(other)}' and '{spaces_shown(label)}' of {source} differ in capitals or "
                "spaces alone",
                next_step="give them one name, or two that are told apart by more",
            )
    return classes


def _split(listing: Sequence[ClipEntry], group: str | None) -> dict[str, Any]:
    if any(clip.split for clip in listing):
        return {"rule": "official", "origin": "as the recordings came"}
    folds = [clip.fold for clip in listing if clip.fold is not None]
    if folds:
        return {"rule": "folds", "folds": max(folds), "origin": "as the recordings came"}
    shares = ", ".join(f"{100 * share:.0f} % {side}" for side, share in SHARES.items())
    apart = f", all clips of one {group} on one side" if group else ""
    return {
        "rule": "drawn",
        "shares": SHARES,
        "origin": f"{shares} of each class, drawn by hashes of ids{apart}",
    }


def _per_side(listing: Sequence[ClipEntry]) -> dict[str, int]:
    folds = Counter(str(clip.fold) for clip in listing if clip.fold is not None)
    sides = Counter(clip.split for clip in listing)
    return {side: sides[side] for side in SIDES if sides[side]} | dict(sorted(folds.items()))


def _window(listing: Sequence[ClipEntry], given: float | None) -> tuple[float, str]:
    """Choose a window from the lengths of the clips unless one is given, and say how."""
    every = max(1, len(listing) // MOST_MEASURED)
    lengths = [length for clip in listing[::every] if (length := _length(clip)) > 0]
    if given is not None:
        if lengths and given > (longest := round(max(lengths), 2)):
            return given, (
                f"window_seconds was given; the longest of {len(lengths)} clips has {longest:g} s, "
                "and silence fills the rest"
            )
        return given, "window_seconds was given"
    if not lengths:
        raise UserError(
            f"none of the recordings can be read as audio, such as {listing[0].path}",
            allowed=f"files that end in {', '.join(sorted(SUFFIXES))}",
        )
    median = statistics.median(lengths)
    window = max(0.1, round(min(median, LONGEST_WINDOW), 1))
    least, most = min(lengths), max(lengths)
    if median > LONGEST_WINDOW:
        return window, (
            f"window_seconds is {LONGEST_WINDOW:g}, since the median of {len(lengths)} clips is {median:.1f} s"
        )
    return window, (
        f"window_seconds is the median length of {len(lengths)} clips ({least:.1f} to {most:.1f} s)"
    )


def _length(clip: ClipEntry) -> float:
    """Return the length of a clip in seconds; 0 if its file cannot be read or does not say."""
    if clip.segment is not None:
        return clip.segment.seconds
    return seconds_of(clip.path)  # `bench data prepare` says why a file cannot be read


def _left_out(root: Path, listing: Sequence[ClipEntry], with_sides: bool) -> list[str]:
    """Return notes on files below a folder that are not clips of the task."""
    taken = {clip.path for clip in listing}
    used = {parent for path in taken for parent in path.parents}
    other = [path for path in files_below(root) if path not in taken]
    audio = sorted(path.relative_to(root).as_posix() for path in other if is_audio(path))
    kinds = Counter(path.suffix.lower() or path.name for path in other if not is_audio(path))
    above = [root, *(class_folders.subfolders(root) if with_sides else ())]
    folders = [folder for parent in above for folder in class_folders.subfolders(parent)]
    empty = [folder.relative_to(root).as_posix() for folder in folders if folder not in used]
    notes = {
        "left out, in no class folder": audio,
        "left out, not read as audio": [f"{count} {kind}" for kind, count in kinds.most_common()],
        "no class, since no audio is in it": empty,
    }
    return [f"{what}: {shortened(names)}" for what, names in notes.items() if names]


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that no file can have
        return False


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path))  # relative paths must not hold ".."
