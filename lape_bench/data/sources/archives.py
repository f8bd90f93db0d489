"""Archives: their place in the cache, checks against the card, and unpacking that cannot write outside of its
folder.
"""

import errno
import hashlib
import logging
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from lape_bench.core.errors import UserError
from lape_bench.core.folder_checksums import find_damage, write_checksums
from lape_bench.core.paths import (
    Staging,
    digest,
    discard_folder,
    home,
    sha256,
    staged_folders,
)
from lape_bench.core.printable import printable
from lape_bench.core.progress import Stopped
from lape_bench.data.cached_copies import DOWNLOADED, UNPACKED
from lape_bench.data.catalog import load_reader
from lape_bench.data.sources import checksum_pins
from lape_bench.data.strict_tar import StrictTarInfo, is_followed
from lape_bench.task import IndexedReader, Source, TaskCard

logger = logging.getLogger(__name__)

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# Errors of a member that the disk does not cause: its name is too long, or is also the name of a folder.
BAD_NAMES = {
    errno.ENAMETOOLONG,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EINVAL,
    errno.EILSEQ,
}


class BadArchive(UserError):
    """An archive is damaged or unsafe, or is not the one in the card or the pin."""


class Deleted(NamedTuple):
    """Archives that `delete_unpacked` deleted and kept.

    Attributes:
        bytes: size of the deleted archives.
        kept: the reason why each other archive was kept, by the name of its source.
    """

    bytes: int
    kept: tuple[tuple[str, str], ...]


def is_archive(path: Path) -> bool:
    """Return True if a path is an archive that `unpack` reads, by its name."""
    return path.name.lower().endswith(ARCHIVES)


def opens(archive: Path) -> bool:
    """Return True if a file starts (ZIP: ends) like an archive of the kind in its name. Its members may still be
    damaged.
    """
    if archive.name.lower().endswith(".zip"):
        return zipfile.is_zipfile(archive)
    try:
        return tarfile.is_tarfile(archive)
    except (EOFError, zlib.error, lzma.LZMAError):  # within the first block
        return False


def bare_name(name: str) -> str:
    """Return the name of an archive without its extension, and the name of another file unchanged."""
    ending = next((ending for ending in ARCHIVES if name.lower().endswith(ending)), "")
    return name.removesuffix(name[len(name) - len(ending) :])


class Download(NamedTuple):
    """A source with its checksum, from the card or its pin, and the place where `bench data fetch` stores it.

    Attributes:
        source: the source.
        path: its file.
        is_optional: whether it is one of many archives in an index, some of which may be missing.
    """

    source: Source
    path: Path
    is_optional: bool = False

    @property
    def place(self) -> str:
        """Its place among the recordings: its name, or the path in its address."""
        return bare_name(self.source.file)

    def unpacked(self) -> Path | None:
        """Return the folder that it was unpacked to, if it exists. The archive itself may be gone."""
        if self.source.sha256 is None or not is_archive(self.path):
            return None
        folder = unpacked(self.source.file, self.source.sha256)
        return folder if folder.is_dir() else None

    def is_here(self) -> bool:
        """Return True if it was downloaded, and not deleted before it was unpacked."""
        return self.path.is_file() or self.unpacked() is not None


def downloads(card: TaskCard) -> list[Download]:
    """Return the sources that can be downloaded, and the archives in a downloaded index.

    Raises:
        UserError: the index cannot be read, or an archive in it would be stored outside of the folder.
    """
    pins = checksum_pins.read()
    files = []
    for source in card.sources:
        if source.url is None:
            continue
        folder = home() / DOWNLOADED / hashlib.sha256(source.url.encode()).hexdigest()[:12]
        path = folder / source.file
        files.append(Download(_with_pin(source, pins), path))
        if is_archive(path) or not path.is_file():
            continue
        reader = index_reader(card)
        if reader is not None and source.file == reader.index:
            for url, name in reader.read_index(path).items():
                _refuse_unsafe(path, name, is_special=False)
                archive = _with_pin(Source(file=name, url=url), pins)
                files.append(Download(archive, folder / name, is_optional=True))
    return files


def index_reader(card: TaskCard) -> IndexedReader | None:
    """Return the card's reader if it reads an index of archives."""
    try:
        reader = load_reader(card)
    except UserError:  # reading the data set reports this error; listings continue
        return None
    return reader if isinstance(reader, IndexedReader) else None


def is_fetched(card: TaskCard) -> bool:
    """Return True if all files of a task that can be downloaded are here."""
    files = downloads(card)
    return bool(files) and all(file.is_here() for file in files)


def delete_unpacked(card: TaskCard) -> Deleted:
    """Delete downloaded archives whose contents are unpacked and can be found without them."""
    freed, kept = 0, []
    for file in downloads(card):
        if not (file.path.is_file() and is_archive(file.path)):
            continue
        if file.source.sha256 is None:
            kept.append((file.source.file, "without a checksum, what it unpacked to is not found"))
        elif file.unpacked() is None:
            kept.append((file.source.file, "it is not unpacked"))
        else:
            freed += file.path.stat().st_size
            file.path.unlink()
    return Deleted(freed, tuple(kept))


def _with_pin(source: Source, known: dict[str, checksum_pins.Pin]) -> Source:
    if source.sha256 or not source.pinned or source.url not in known:
        return source
    pin = known[source.url]
    return source.model_copy(update={"sha256": pin.sha256, "bytes": pin.bytes})


def check(path: Path, card: TaskCard) -> str:
    """Compare an archive with the card's source of the same name, and return its SHA-256.

    Raises:
        BadArchive: size or checksum differ from the card's.
    """
    if not path.is_file():
        raise BadArchive(f"{path} is not a regular file", allowed="a ZIP or tar file")
    checksum = sha256(path)
    for source in card.sources:
        if source.file == path.name:
            _hold(path, checksum, source, lambda: f"the card of {card.name} names")
    return checksum


def check_fetched(download: Download) -> str:
    """Compare a downloaded file with the card or its pin, and return its SHA-256.

    Raises:
        BadArchive: size or checksum differ.
    """
    source, path = download.source, download.path
    checksum = sha256(path)
    # Only for a message: all pins are read for it.
    _hold(path, checksum, source, lambda: checksum_pins.claim(source.url, source.sha256))
    return checksum


def _hold(path: Path, checksum: str, source: Source, claim: Callable[[], str]) -> None:
    size = path.stat().st_size
    if source.bytes is not None and size != source.bytes:
        raise BadArchive(
            f"{path} holds {size:,} bytes, but {claim()} {source.bytes:,} for {source.file}",
            next_step="it is cut off or another file: get it again",
        )
    checks = [("SHA-256", source.sha256, checksum)]
    if source.md5 and not source.sha256:
        checks.append(("MD5", source.md5, digest(path, "md5")))
    for kind, expected, actual in checks:
        if expected and expected != actual:
            raise BadArchive(
                f"{path} has the {kind} {actual[:12]}..., but {claim()} {expected[:12]}... for {source.file}",
                next_step="get the archive again; for data of your own, unpack it and give the folder",
            )


def unpack(
    archive: Path,
    checksum: str,
    on_member: Callable[[], None] = lambda: None,
    stage: Callable[[], Staging] | None = None,
) -> Path:
    """Unpack an archive into the cache and return its folder. A second call finds the folder, unless it is damaged.

    Args:
        archive: a ZIP or tar file.
        checksum: its SHA-256, which names the folder.
        on_member: called after each member.
        stage: returns the folder to fill, which appears when its `staged_folders` end; None: the folder appears at
            once.

    Raises:
        BadArchive: a member would leave the folder, or is a link or device; the archive is damaged.
    """
    folder = unpacked(archive.name, checksum)
    if folder.is_dir():
        damage = find_damage(folder, checksums=checksums_of(folder))
        if not damage:
            return folder
        logger.warning(f"unpacking {archive.name} again, since the cache is damaged: {damage}")
        discard_folder(folder)
    if stage is None:
        with staged_folders(folder.parent) as stage:
            return unpack(archive, checksum, on_member, stage)
    staging = stage()
    try:
        if archive.name.lower().endswith(".zip"):
            _unzip(archive, staging.path, on_member)
        else:
            _untar(archive, staging.path, on_member)
    except (BadArchive, Stopped):
        raise
    except (RuntimeError, NotImplementedError) as error:  # zipfile: password, unknown method
        raise BadArchive(
            f"{archive} cannot be unpacked ({error})",
            next_step="unpack it by other means and give the folder",
        ) from error
    except (
        Exception
    ) as error:  # zipfile and tarfile raise many kinds of errors for damaged archives
        if isinstance(error, OSError) and error.errno not in {None, *BAD_NAMES}:
            raise  # of the disk, not of the archive
        reason = (
            f": {error.strerror}, {error.filename}"
            if isinstance(error, OSError) and error.errno
            else ""
        )
        raise BadArchive(
            f"{archive} is truncated or damaged{reason}", next_step="get the archive again"
        ) from error
    write_checksums(staging.path, to=checksums_of(folder))
    staging.name = folder.name
    return folder


def unpacked(name: str, checksum: str) -> Path:
    """Return the folder to which `unpack` writes an archive with this name and SHA-256."""
    return home() / UNPACKED / f"{Path(name).name.split('.')[0]}-{checksum[:16]}"


def checksums_of(folder: Path) -> Path:
    """Return the file with the checksums of an unpacked folder. It is not in the folder, where readers look for
    recordings.
    """
    return home() / "checksums" / f"{folder.name}.json"


def _unzip(archive: Path, folder: Path, on_member: Callable[[], None]) -> None:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        for member in members:
            is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
            _refuse_unsafe(archive, member.filename, is_link)
        _refuse_too_large(archive, sum(member.file_size for member in members), folder)
        _warn_of_repeated(archive, [m.filename for m in members if not m.is_dir()])
        for member in members:
            opened.extract(member, folder)
            on_member()


def _refuse_too_large(archive: Path, unpacked: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if unpacked > free:
        raise BadArchive(
            f"{archive} says that it unpacks to {unpacked:,} bytes, and {free:,} are free",
            next_step="free some space, or get the archive again",
        )


def _warn_of_repeated(archive: Path, names: Iterable[str]) -> None:
    """Warn about files that overwrite others of the archive, perhaps in another spelling, such as `./a.wav`."""
    counts = Counter(PurePosixPath(name.lstrip("/")) for name in names)
    twice = sorted(str(path) for path, count in counts.items() if count > 1)
    if twice:
        logger.warning(
            f"{archive} holds {len(twice)} names more than once, of which the last counts, such as {printable(twice[0])}"
        )


def _untar(archive: Path, folder: Path, on_member: Callable[[], None]) -> None:
    # The first releases of Python 3.11 lack filters; members are refused here either way.
    filtered: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(archive, tarinfo=StrictTarInfo) as opened:
        for member in opened:
            # tarfile drops the slash of a folder, and makes "." of "./".
            name = f"{member.name}/" if member.isdir() else member.name
            _refuse_unsafe(archive, name, not (member.isfile() or member.isdir()))
            _refuse_too_large(archive, member.size, folder)
            opened.extract(member, folder, **filtered)
            on_member()
        _warn_of_repeated(archive, [member.name for member in opened if not member.isdir()])
        # tarfile does not read the checksum at the end of compressed data.
        if opened.fileobj is not None and is_followed(opened.fileobj.read):
            logger.warning(
                f"{archive}: more data follows the end of the archive, perhaps another one; it is not unpacked"
            )


def _refuse_unsafe(archive: Path, name: str, is_special: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    has_drive = len(name) > 1 and name[1] == ":"
    if not path.parts and not name.endswith("/"):  # "./" is the folder itself
        raise BadArchive(
            f"{archive} has a member without a name", next_step="get the archive again"
        )
    if path.is_absolute() or has_drive or ".." in path.parts or is_special:
        kind = "is a link or a device" if is_special else "would be written outside the folder"
        raise BadArchive(
            f"{archive} is not safe to unpack: its member '{name}' {kind}",
            next_step="nothing was unpacked; get the archive from its authors",
        )
