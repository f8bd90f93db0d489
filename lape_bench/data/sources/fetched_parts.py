"""The parts of a data set that `bench data fetch` has downloaded."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from lape_bench.core.errors import DamagedFile, UserError
from lape_bench.core.folder_checksums import find_damage
from lape_bench.core.paths import discard_folder
from lape_bench.data.sources import archives
from lape_bench.data.sources.parts import Archive, UnpackedPart
from lape_bench.task import TaskCard

logger = logging.getLogger(__name__)


def fetched_parts(card: TaskCard) -> Iterator[UnpackedPart | Archive]:
    """Yield the parts that `bench data fetch` has downloaded.

    Raises:
        UserError: files are missing, or what an archive was unpacked to is damaged and the archive was deleted.
    """
    downloads = archives.downloads(card)
    _refuse_missing(card, downloads)
    for download in without_index(card, downloads):
        folder, source = download.unpacked(), download.source
        if folder is not None and not _is_unpacked_again(download, folder):
            yield UnpackedPart(folder, download.place, f"{source.file} sha256:{source.sha256}")
        elif not download.path.is_file():
            continue  # one of many
        elif archives.is_archive(download.path):
            check = partial(archives.check_fetched, download)
            yield Archive(download.path, download.place, check, download.is_optional)
        else:
            yield fetched_file(download)


def _is_unpacked_again(download: archives.Download, folder: Path) -> bool:
    """Return True if a folder is damaged, so that its archive has to be unpacked again.

    Raises:
        UserError: the archive was deleted.
    """
    damage = find_damage(folder, checksums=archives.checksums_of(folder))
    if damage and not download.path.is_file():
        discard_folder(folder)
        raise DamagedFile(
            f"the unpacked files of {download.source.file} are damaged, and the archive was deleted: {damage}",
            next_step="fetch it again with 'bench data fetch'",
        )
    return damage != ""


def _refuse_missing(card: TaskCard, downloads: Sequence[archives.Download]) -> None:
    """Raise a `UserError` if a file of a data set is missing. Of many archives some may be missing, but not all."""
    absent = [download for download in downloads if not download.is_here()]
    some = any(download.is_optional and download.is_here() for download in downloads)
    missing = [download for download in absent if not (download.is_optional and some)]
    if len(missing) == len(downloads):
        files = ", ".join(source.file for source in card.sources)
        by_hand = card.obtain or f"run 'bench data fetch {card.name}' first"
        raise UserError(
            f"'bench data prepare {card.name}' was not told where the recordings are",
            allowed=f"--from an archive ({files}) or the folder it unpacks to",
            next_step=f"give --from, or {by_hand}" if downloads else by_hand,
        )
    if missing:
        raise UserError(
            f"of {card.name}, {len(missing)} of {len(downloads)} files are not fetched, such as "
            f"{missing[0].source.file}",
            next_step=f"run 'bench data fetch {card.name}'",
        )
    if absent:
        logger.warning(
            f"{len(absent)} of {len(downloads)} files of {card.name} are not fetched and left out; "
            f"'bench data fetch {card.name}' tries them again"
        )


def without_index(
    card: TaskCard, downloads: Sequence[archives.Download]
) -> Iterator[archives.Download]:
    """Return downloads without the index of archives."""
    reader = archives.index_reader(card)
    index = None if reader is None else reader.index
    return (download for download in downloads if download.source.file != index)


def fetched_file(download: archives.Download) -> UnpackedPart:
    """Return a downloaded file that is not an archive as a part, after comparing it with its checksum."""
    archives.check_fetched(download)
    return UnpackedPart(download.path, download.source.file, download.source.file)
