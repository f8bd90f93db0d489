"""Import a Hugging Face data set as recordings and a table: `bench tasks new NAME --from hf:NAME_OR_FOLDER`.

pyarrow reads the two file formats (Parquet, and the Arrow files of `save_to_disk`), so that the library `datasets` is not
needed. huggingface_hub downloads. Audio files are written as they are in the data set, and decoded like any others.

    data/train-00000-of-00002.parquet      columns audio (bytes, path), label and others
    train/data-00000-of-00001.arrow        the same, by save_to_disk
    train/metadata.csv                     file_name, label and others, beside the audio files
"""

import csv
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lape_bench.core.errors import UserError, summarize_error
from lape_bench.core.folder_checksums import CHECKSUMS, find_damage, write_checksums
from lape_bench.core.paths import discard_folder, home, staged_folder
from lape_bench.data.audio import SUFFIXES
from lape_bench.data.cached_copies import IMPORTED
from lape_bench.data.clip_names import caseless
from lape_bench.data.sources.audio_rows import audio_column, features_of, read_rows
from lape_bench.task import SIDE_NAMES

logger = logging.getLogger(__name__)

PREFIX = "hf:"
TABLE, METADATA = "clips.csv", "metadata.csv"
CONVERTED = "refs/convert/parquet"  # the branch in which the hub stores a data set as Parquet
# The end of a file's name, such as -00000-of-00002, which earlier versions of `datasets` followed by a hash.
SHARD = re.compile(r"-\d+-of-\d+(-[0-9a-f]+)?$|[-_.]?\d+$")
LONGEST_TEXT = 1_000  # characters of a value; longer ones, such as transcripts, are left out
STARTS = {
    b"RIFF": ".wav",
    b"fLaC": ".flac",
    b"OggS": ".ogg",
    b"ID3": ".mp3",
    b"FORM": ".aiff",
    b"caff": ".caf",
}
DOWNLOADED = (
    "*.parquet",
    "*.arrow",
    "*.json",
    f"*{METADATA}",
    *(f"*{suffix}" for suffix in sorted(SUFFIXES)),
)


class ImportedDataset(NamedTuple):
    """A data set in a form that `new_task` takes.

    Attributes:
        source: a table of clips, or a folder of class folders.
        columns: which column of the table is the label, if it has another name.
        audio: the folder of the recordings, if it is not that of the table.
    """

    source: Path
    columns: dict[str, str]
    audio: Path | None = None


class _Part(NamedTuple):
    """A file of rows, with the split and the configuration in its name."""

    path: Path
    split: str
    configuration: str


def import_dataset(argument: str, name: str) -> ImportedDataset:
    """Convert a data set to recordings and a table.

    Args:
        argument: a folder, or a data set of the hub: owner/name, or owner/name/configuration.
        name: name of the new task.

    Raises:
        UserError: there is no such data set, it has no audio or several configurations, or huggingface_hub is not
            installed.
    """
    folder = Path(argument).expanduser().absolute()
    if not folder.is_dir():
        folder = _download(argument)
    parts = [*_parts(folder, "*.parquet"), *_parts(folder, "data-*.arrow")]
    if parts:
        return _from_rows(parts, argument, name)
    if list(folder.rglob(METADATA)):
        return _from_metadata(folder, name)
    return ImportedDataset(folder, {})


def _download(argument: str) -> Path:
    """Download a data set of the hub, and return its folder."""
    try:
        import huggingface_hub as hub  # of an extra
    except ImportError as error:
        raise UserError(
            f"{PREFIX}{argument} is not a folder, and huggingface_hub, which downloads data sets, is not installed",
            next_step="pip install 'lape_bench[hf]'",
        ) from error
    parts = argument.split("/", 2)
    repository, configuration = "/".join(parts[:2]), "".join(parts[2:])
    within = f"{configuration}/" if configuration else ""
    folder = None
    for revision in (None, CONVERTED):
        try:
            folder = Path(
                hub.snapshot_download(
                    repository,
                    repo_type="dataset",
                    revision=revision,
                    allow_patterns=[f"{within}{pattern}" for pattern in DOWNLOADED],
                )
            )
        except Exception as error:  # it raises many kinds of errors
            raise UserError(
                f"{PREFIX}{argument} is not a folder and cannot be downloaded ({summarize_error(error)})",
                allowed="a folder, or owner/name or owner/name/configuration of the hub",
            ) from error
        folder = folder / configuration
        kinds = {path.suffix.lower() for path in folder.rglob("*")}
        if kinds & {".parquet", ".arrow", *SUFFIXES}:
            return folder
    raise UserError(
        f"{PREFIX}{argument} holds neither Parquet files nor audio files",
        next_step="download it by other means, and give a CSV file or a folder of class folders",
    )


def _parts(folder: Path, pattern: str) -> list[_Part]:
    """List files of rows, sorted, with the split and the configuration in their paths."""
    parts = []
    for path in sorted(folder.rglob(pattern)):
        *above, file = path.relative_to(folder).parts
        if any(part.startswith(".") for part in (*above, file)):
            continue
        named = re.match(r"[^\W\d_]+", file)
        splits = [part for part in above if part.lower() in SIDE_NAMES]
        if not splits and named and not file.startswith("data-"):
            splits = [SHARD.sub("", path.stem)]
        configuration = "/".join(part for part in above if part not in (*splits, "data"))
        parts.append(_Part(path, splits[-1] if splits else "", configuration))
    return parts


def _from_rows(parts: Sequence[_Part], argument: str, name: str) -> ImportedDataset:
    """Write the audio of rows to files, and the other columns to a table."""
    configurations = sorted({part.configuration for part in parts})
    if len(configurations) > 1:
        raise UserError(
            f"{PREFIX}{argument} holds several configurations: {', '.join(configurations)}",
            next_step=f"name one: {PREFIX}{argument}/{configurations[0]}",
        )
    features = features_of(parts[0].path)
    split_column = _split_column([part.split for part in parts])
    label = [column for column, feature in features.items() if feature.get("_type") == "ClassLabel"]
    columns = {"label": label[0]} if len(label) == 1 and "label" not in features else {}
    rows: list[dict[str, str | None]] = []
    with staged_folder(home() / IMPORTED) as staging:
        uses: dict[str, int] = {}
        for part in parts:
            audio, features = audio_column(part.path), features_of(part.path)
            for row in read_rows(part.path):
                path = _write_audio(row.pop(audio), part, staging.path, uses)
                texts = {key: _text(value, features.get(key, {})) for key, value in row.items()}
                if split_column:
                    texts[split_column] = SIDE_NAMES.get(part.split.lower(), part.split)
                rows.append({**texts, "path": path})
        _write_table(rows, staging.path / TABLE)
        write_checksums(staging.path)
        digest = hashlib.sha256((staging.path / CHECKSUMS).read_bytes()).hexdigest()
        staging.name = f"{name}-{digest[:16]}"
        folder = home() / IMPORTED / staging.name
        if folder.is_dir() and (damage := find_damage(folder)):
            logger.warning(f"the imported recordings in the cache are replaced: {damage}")
            discard_folder(folder)
    return ImportedDataset(folder / TABLE, columns)


def _from_metadata(folder: Path, name: str) -> ImportedDataset:
    """Merge the tables of a folder of audio files."""
    rows: list[dict[str, str]] = []
    tables = sorted(folder.rglob(METADATA))
    place_of = {table: table.parent.relative_to(folder) for table in tables}
    split_column = _split_column(
        [place.parts[0] if place.parts else "" for place in place_of.values()]
    )
    for table, place in place_of.items():
        try:
            with table.open(newline="", encoding="utf-8-sig") as file:
                listed = list(csv.DictReader(file, strict=True))
        except (csv.Error, UnicodeDecodeError, OSError) as error:
            raise UserError(f"{table} cannot be read ({error})") from error
        for number, row in enumerate(listed, 2):
            file_name = row.pop("file_name", None)
            if not file_name or None in row:
                raise UserError(f"{table}, line {number} has no file_name, or too many columns")
            split = {split_column: place.parts[0]} if split_column else {}
            rows.append({**row, **split, "path": (place / file_name).as_posix()})
    with staged_folder(home() / IMPORTED) as staging:
        _write_table(rows, staging.path / TABLE)
        digest = hashlib.sha256((staging.path / TABLE).read_bytes()).hexdigest()
        staging.name = f"{name}-{digest[:16]}"
    return ImportedDataset(home() / IMPORTED / staging.name / TABLE, {}, folder)


def _split_column(splits: Sequence[str]) -> str:
    """Return the name of the column for splits. A single split is not a split, and the user is asked about unusual
    names.
    """
    different = {split.lower() for split in splits}
    if len(different) < 2:
        return ""
    return "split" if different <= SIDE_NAMES.keys() else "hf_split"


def _write_audio(audio: Any, part: _Part, folder: Path, uses: dict[str, int]) -> str:
    """Write one audio file, and return its path below the folder."""
    content: bytes | None = (audio or {}).get("bytes")
    given = str((audio or {}).get("path") or "")
    if content is None:
        beside = part.path.parent / given
        if not given or not beside.is_file():
            raise UserError(
                f"{part.path} names the audio file '{given}', which is neither in the file nor beside it",
                next_step="save the data set with its audio in it",
            )
        content = beside.read_bytes()
    inner = Path(given.replace("\\", "/"))
    suffix = inner.suffix.lower()
    if suffix not in SUFFIXES:
        suffix = next((kind for start, kind in STARTS.items() if content.startswith(start)), ".wav")
    stem = re.sub(r"[^\w.-]+", "_", inner.stem)[:100].strip(".") or "clip"
    place = re.sub(r"[^\w.-]+", "_", part.split).strip(".") or "all"
    name = _unused(f"{place}/{stem}", uses)
    (folder / place).mkdir(exist_ok=True)
    (folder / f"{name}{suffix}").write_bytes(content)
    return f"{name}{suffix}"


def _unused(name: str, uses: dict[str, int]) -> str:
    """Return a name that no other row has, perhaps with a number: many rows may use one file name.

    Args:
        name: the name that is asked for.
        uses: how often each name was asked for, in lower case, since some file systems do not tell capitals apart.
    """
    asked, found = caseless(name), name
    while caseless(found) in uses:
        uses[asked] += 1
        found = f"{name}-{uses[asked]}"
    uses[caseless(found)] = 1
    return found


def _text(value: Any, feature: Mapping[str, Any]) -> str | None:
    """Return a value as text for the table; None if it cannot be in the table."""
    names = feature.get("names")
    if isinstance(names, list) and isinstance(value, int):
        # Rows without a label have the class -1.
        return str(names[value]) if 0 <= value < len(names) else ""
    if value is None:
        return ""
    if not isinstance(value, str | int | float | bool):
        return None
    text = str(value)
    return "" if len(text) > LONGEST_TEXT else text.replace("\0", "")


def _write_table(rows: Sequence[Mapping[str, str | None]], path: Path) -> None:
    columns = dict.fromkeys(key for row in rows for key, text in row.items() if text is not None)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [*columns], extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
