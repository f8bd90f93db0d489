"""Find the shards that a corpus entry names: tar files of WebDataset, or Parquet files of Hugging Face data sets.

An entry is one shard, a pattern, or a folder without audio files of its own:

    shards/train-{0000..0099}.tar
    shards/train-*.tar
    shards/
"""

import glob
import re
from collections.abc import Iterable
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.data.audio_files import files_below, is_audio
from lape_bench.data.streams.parquet_shard import ParquetShard
from lape_bench.data.streams.shard import Shard
from lape_bench.data.streams.tar_shard import TarShard

KINDS: dict[str, type[Shard]] = {".tar": TarShard, ".parquet": ParquetShard}
SHARD_SUFFIXES = tuple(KINDS)
COMPRESSED = re.compile(r"\.(tgz|tbz2?|txz|tar\.\w+)$")
NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")


def find_shards(entry: str) -> list[Shard] | None:
    """Return the shards that an entry names, sorted by path; None if it names none.

    Raises:
        UserError: a pattern matches no shard or leaves one out, or a shard is compressed.
    """
    if not entry.strip():  # an empty path would be the current folder
        return None
    path = Path(entry).expanduser().absolute()
    if path.is_dir():
        paths = _in_folder(path)
    elif NUMBERS.search(entry) or glob.has_magic(entry):
        paths = _matched(str(path))
    else:
        paths = [path] if path.is_file() and _may_be_shard(path) else []
    return [KINDS[each.suffix.lower()](each) for each in paths] or None


def _in_folder(folder: Path) -> list[Path]:
    """List the shards below a folder; none if it holds audio files, which are then the corpus."""
    shards: list[Path] = []
    for path in files_below(folder):
        if is_audio(path):
            return []
        if path.is_file() and _may_be_shard(path):
            shards.append(path)
    return sorted(shards)


def _matched(pattern: str) -> list[Path]:
    names = _expanded(pattern)
    found: dict[Path, None] = {}
    missing = []
    for name in names:
        shards = [path for path in _glob(Path(name)) if path.is_file() and _may_be_shard(path)]
        found |= dict.fromkeys(shards)
        if not shards:
            missing.append(name)
    if missing:
        raise UserError(
            f"the corpus names {pattern}, and {len(missing)} of {len(names)} shards are missing, such as {missing[0]}",
            allowed="numbers as in {0000..0099}, * and ?, of files that end in .tar or .parquet",
        )
    return sorted(found)


def _glob(path: Path) -> Iterable[Path]:
    if not glob.has_magic(str(path)):
        return [path]
    return Path(path.anchor).glob(str(path.relative_to(path.anchor)))


def _expanded(pattern: str) -> list[str]:
    """Write out the ranges of numbers in a pattern: a-{08..10} is a-08, a-09 and a-10."""
    range_ = NUMBERS.search(pattern)
    if range_ is None:
        return [pattern]
    first, last = range_.groups()
    before, after = pattern[: range_.start()], pattern[range_.end() :]
    numbers = range(int(first), int(last) + 1)
    return [
        name for number in numbers for name in _expanded(f"{before}{number:0{len(first)}}{after}")
    ]


def _may_be_shard(path: Path) -> bool:
    """Return True if the extension of a file is one of shards.

    Raises:
        UserError: it is a compressed tar file.
    """
    if COMPRESSED.search(path.name.lower()):
        raise UserError(
            f"{path} is compressed, and no clip in it can be read without all before it",
            allowed=".tar, in which audio may be compressed as FLAC, Ogg or MP3",
            next_step="uncompress it, such as with gunzip",
        )
    return path.suffix.lower() in KINDS
