"""The parts of a data set that a user gave, or that lie in a folder that a user gave."""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.core.paths import require_exists
from lape_bench.data.sources import archives
from lape_bench.data.sources.fetched_parts import fetched_file, without_index
from lape_bench.data.sources.parts import Archive, UnpackedPart
from lape_bench.task import TaskCard, may_hold_data

logger = logging.getLogger(__name__)


def given_parts(card: TaskCard, given: Sequence[Path]) -> Iterator[UnpackedPart | Archive]:
    """Yield the parts that a user gave, and downloaded lists and labels.

    Args:
        card: the base card.
        given: archives, folders and files.

    Raises:
        UserError: a path does not exist, or is neither a part of the data set nor a folder or archive.
    """
    given = [require_exists(path, "the folder or archive") for path in given]
    _refuse_foreign(card, given)
    if archives.index_reader(card) is None:
        yield from _named_parts(card, given)
    else:
        for path in given:
            yield from _parts_of_many(card, path)
    names = {path.name for path in given} | {
        inside.name for path in given if path.is_dir() for inside in path.iterdir()
    }
    for download in without_index(card, archives.downloads(card)):
        is_loose = not (download.is_optional or archives.is_archive(download.path))
        if is_loose and download.path.is_file() and download.path.name not in names:
            yield fetched_file(download)


def _refuse_foreign(card: TaskCard, given: Sequence[Path]) -> None:
    """Raise a `UserError` for files that are neither archives nor named by the card.

    A file of labels may have another name than in the card. Such a file is accepted together with other parts. As the
    only part it is a mistake.
    """
    named = {source.file for source in card.sources}
    foreign = [
        path
        for path in given
        if not (path.is_dir() or archives.is_archive(path) or path.name in named)
    ]
    for path in foreign:
        if len(foreign) == len(given) or not path.is_file():
            raise UserError(
                f"{path} is neither a folder nor an archive",
                allowed=f"archives end in {', '.join(archives.ARCHIVES)}",
            )


def _named_parts(card: TaskCard, given: Sequence[Path]) -> Iterator[UnpackedPart | Archive]:
    """Yield the parts of a data set whose archives the card names.

    A folder with such archives gives the archives and the other files in their folders. Any other folder is a part itself.
    """
    named = {source.file for source in card.sources}
    loose_names: set[str] = set()  # of files that the card does not name
    for path in given:
        if not path.is_dir():
            yield _given_file(card, path)
            continue
        inside = sorted(path.iterdir())
        archived = [file for file in inside if archives.is_archive(file) and file.name in named]
        if not archived:
            yield UnpackedPart(path, path.name, f"folder {path.name}")
            continue
        for file in archived:
            yield _given_file(card, file)
        for file in inside:
            if _is_loose(file) and file.name not in loose_names:
                if file.name not in named:
                    loose_names.add(file.name)  # two folders may hold a README each
                yield _given_file(card, file)


def _parts_of_many(card: TaskCard, path: Path) -> Iterator[UnpackedPart | Archive]:
    """Yield the parts at `path` of a data set with many archives. A folder may hold them at any depth."""
    if not path.is_dir():
        yield _given_file(card, path)
        return
    archived = sorted(file for file in path.rglob("*") if archives.is_archive(file))
    for file in archived:
        # The name of the given folder may be the class.
        place = archives.bare_name(file.relative_to(path.parent).as_posix())
        yield Archive(file, place, partial(archives.check, file, card), is_optional=True)
    if not archived:
        yield UnpackedPart(path, path.name, f"folder {path.name}")
    else:
        yield from _unpacked_folders(path, path, archived)


def _unpacked_folders(
    folder: Path, given: Path, archived: Sequence[Path]
) -> Iterator[UnpackedPart]:
    """Yield the folders without archives that lie next to archives, except unpacked copies of an archive."""
    copies = {file.parent / archives.bare_name(file.name) for file in archived}
    with_archives = {parent for file in archived for parent in file.parents}
    for inside in sorted(path for path in folder.iterdir() if path.is_dir()):
        if not may_hold_data(inside):
            continue
        if inside in copies and inside not in with_archives:
            logger.info(f"left out {inside}: the archive beside it is used")
        elif inside in with_archives:
            yield from _unpacked_folders(inside, given, archived)
        else:
            place = inside.relative_to(given.parent).as_posix()
            yield UnpackedPart(inside, place, f"folder {place}")


def _given_file(card: TaskCard, path: Path) -> UnpackedPart | Archive:
    if archives.is_archive(path):
        check = partial(archives.check, path, card)
        return Archive(path, archives.bare_name(path.name), check)
    archives.check(path, card)
    return UnpackedPart(path, path.name, path.name)


def _is_loose(path: Path) -> bool:
    return path.is_file() and not archives.is_archive(path) and not path.name.startswith(".")
