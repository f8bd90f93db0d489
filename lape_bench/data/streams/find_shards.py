"""Find the shards that a corpus entry names: tar files of WebDataset, or Parquet files of Hugging Face data sets.

An entry is one shard, a pattern, or a folder without audio files of its own:

    shards/train-{0000..0099}.tar
    shards/train-*.tar
    shards/
"""

import glob
import logging
import os
import re
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.data.audio_files import files_below, is_audio
from lape_bench.data.clip_names import printable
from lape_bench.data.streams.parquet_shard import ParquetShard
from lape_bench.data.streams.shard import Shard
from lape_bench.data.streams.tar_shard import TarShard

logger = logging.getLogger(__name__)

KINDS: dict[str, type[Shard]] = {".tar": TarShard, ".parquet": ParquetShard}
SHARD_SUFFIXES = tuple(KINDS)
COMPRESSED = re.compile(r"\.(tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst|lz4|lzma|br|z))$")
NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")


def find_shards(entry: str) -> list[Shard] | None:
    """Return the shards that an entry names, sorted by path; None if it names none.

    Raises:
        UserError: a pattern matches no shard or leaves one out, or a shard is compressed or not a file.
    """
    if not entry.strip():  # an empty path would be the current folder
        return None
    path = Path(entry).expanduser().absolute()
    if path.is_dir():
        paths = _in_folder(path)
    elif path.is_file():
        paths = [path] if _is_shard(path) else []
    else:
        paths = _matched(str(path)) if NUMBERS.search(entry) or glob.has_magic(entry) else []
    return [KINDS[each.suffix.lower()](each) for each in paths] or None


def _in_folder(folder: Path) -> list[Path]:
    """List the shards below a folder; none if it holds audio files, which are then the corpus."""
    paths = [*files_below(folder)]
    if not any(map(is_audio, paths)):
        return sorted(filter(_is_shard, paths))
    if shards := [path for path in paths if path.suffix.lower() in KINDS]:
        logger.warning(
            f"passed over: {len(shards)} shards below {printable(folder)}, which holds audio files too, such as "
            f"{printable(shards[0])}; name them by a pattern, such as {printable(shards[0].parent)}/*{shards[0].suffix}"
        )
    return []


def _matched(pattern: str) -> list[Path]:
    names = _expanded(pattern)
    found: dict[Path, None] = {}
    missing = []
    for name in names:
        shards = [path for path in _glob(name) if _is_shard(path)]
        found |= dict.fromkeys(shards)
        if not shards:
            missing.append(name)
    if missing:
        raise UserError(
            f"the corpus names {pattern}, and {len(missing)} of {len(names)} shards are missing, such as {missing[0]}",
            allowed="numbers as in {0000..0099}, *, ? and [], of files that end in .tar or .parquet",
        )
    return sorted(found)


def _glob(pattern: str) -> list[Path]:
    """Return the paths that match, without hidden ones; a path that exists matches itself alone."""
    if os.path.lexists(pattern):
        return [Path(pattern)]
    return [Path(name) for name in glob.glob(pattern, recursive=True)]  # noqa: PTH207  # Path.glob finds hidden files too


def _expanded(pattern: str) -> list[str]:
    """Write out the ranges of numbers in a pattern: a-{08..10} is a-08, a-09 and a-10."""
    range_ = NUMBERS.search(pattern)
    if range_ is None:
        return [pattern]
    first, last = range_.groups()
    if int(last) < int(first):
        raise UserError(
            f"the corpus names {pattern}, in which {range_.group()} runs backwards",
            allowed="the smaller number first, as in {0000..0099}",
        )
    before, after = pattern[: range_.start()], pattern[range_.end() :]
    numbers = range(int(first), int(last) + 1)
    return [
        name for number in numbers for name in _expanded(f"{before}{number:0{len(first)}}{after}")
    ]


def _is_shard(path: Path) -> bool:
    """Return True for a file with the extension of a shard.

    Raises:
        UserError: it is a compressed tar file, a link that leads nowhere, or a named pipe.
    """
    if path.is_dir():
        return False
    if COMPRESSED.search(path.name.lower()):
        raise UserError(
            f"{path} is compressed, and no clip in it can be read without all before it",
            allowed=".tar, in which audio may be compressed as FLAC, Ogg or MP3",
            next_step="uncompress it, such as with gunzip",
        )
    if path.suffix.lower() not in KINDS:
        return False
    if not path.is_file():
        raise UserError(
            f"the shard {path} is not a file, or a link that leads nowhere",
            next_step="copy or download it again, or remove it",
        )
    return True
