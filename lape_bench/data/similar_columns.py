"""Find columns that may be the split, folds, groups or times of clips under another name, so that the user is asked."""

import re
from collections.abc import Iterator, Mapping, Sequence

from lape_bench.task import SIDE_NAMES, Columns

WORDS = {
    "split": {"split", "splits", "set", "subset", "partition", "side", "phase", "usage"},
    "fold": {"fold", "folds", "kfold", "cv", "cvfold", "crossvalidation"},
    "group": {
        "group", "groups", "speaker", "speakers", "spk", "spkr", "subject", "patient", "participant", "user", "client",
        "talker", "singer", "artist", "author", "recordist", "person", "actor", "individual", "animal", "session",
        "recording", "source", "location", "site", "place", "station", "device", "album", "video", "youtube", "fsid",
        "song", "track", "piece", "dialogue", "dialog", "conversation", "interview", "episode", "chapter", "book", "child",
        "infant",
    },
    "start_seconds": {"start", "starts", "onset", "offset", "begin", "begins", "from", "xmin", "tmin"},
    "seconds": {"seconds", "length", "duration", "dur"},
    "end_seconds": {"end", "ends", "stop", "stops", "finish", "to", "until", "xmax", "tmax"},
}  # fmt: skip
ENDINGS = (
    "id",
    "ids",
    "name",
    "number",
    "time",
    "sec",
    "secs",
    "seconds",
    "ms",
)  # of words such as "speakerid"
LENGTHS = ("seconds", "end_seconds")  # one of them goes with a start


def similar_columns(
    columns: Mapping[str, Sequence[str]], used: Columns, decided: Sequence[str]
) -> Iterator[tuple[str, str]]:
    """Find columns that a task does not use although it may need them.

    Args:
        columns: texts of each column, by name.
        used: the columns that the task uses.
        decided: keys of `Columns` for which the user has named a column, or which the user has left out.

    Yields:
        Name of the column, and the key that it may be.
    """
    used_names = {name for name in used.model_dump().values() if name}
    for name, texts in columns.items():
        if name in used_names:
            continue
        for key in WORDS:
            if not _has_one(key, used, decided) and _may_be(key, name, texts):
                yield name, key
                break


def _has_one(key: str, used: Columns, decided: Sequence[str]) -> bool:
    """Return True if a task needs no other column for a key."""
    if key in ("split", "fold") and (used.split or used.fold):
        return True
    if key in LENGTHS and (used.start_seconds is None or used.seconds or used.end_seconds):
        return True
    return getattr(used, key) is not None or key in decided


def _may_be(key: str, name: str, texts: Sequence[str]) -> bool:
    different = {text.casefold() for text in texts if text}
    if len(different) < 2:
        return False
    if key == "split" and different <= SIDE_NAMES.keys():
        return True
    if not WORDS[key] & _words(name):
        return False
    if key == "group":  # a group must have at least two clips
        return len(different) < sum(bool(text) for text in texts)
    return key not in ("start_seconds", *LENGTHS) or all(map(_is_number, different))


def _words(name: str) -> set[str]:
    """Return the words of a name such as "cvFold", "CV-fold", "speaker_id" or "speakerid"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[\W_\d]+", " ", name).casefold().split()
    beginnings = {word.removesuffix(ending) for word in spaced for ending in ENDINGS}
    return {*spaced, "".join(spaced), *beginnings}


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True
