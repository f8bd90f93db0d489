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
    },
    "start_seconds": {"start", "starts", "onset", "begin", "begins"},
}  # fmt: skip


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
            has_one = getattr(used, key) is not None or key in decided
            if key in ("split", "fold") and (used.split or used.fold):
                has_one = True
            if not has_one and _may_be(key, name, texts):
                yield name, key
                break


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
    return key != "start_seconds" or all(map(_is_number, different))


def _words(name: str) -> set[str]:
    """Return the words of a name such as "cvFold", "CV-fold" or "speaker_id"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|[\W_\d]+", " ", name).casefold().split()
    return {*spaced, "".join(spaced)}


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True
