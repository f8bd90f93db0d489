"""Download all files of a task over HTTP, several at a time. Complete files are not downloaded again."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from lape_bench.core.errors import UserError
from lape_bench.core.paths import sha256
from lape_bench.core.progress import Progress, Stopped
from lape_bench.data.sources import checksum_pins
from lape_bench.data.sources.archives import (
    Download,
    downloads,
    index_reader,
    is_archive,
    opens,
)
from lape_bench.data.sources.checksum_pins import Pin
from lape_bench.data.sources.http_download import download
from lape_bench.task import TaskCard

NAMED = 5  # failures that a message names; it counts all of them
PAGE_STARTS, PAGE_BYTES = (b"<!doctype html", b"<html"), 1024  # of a web page


def fetch(card: TaskCard, parallel: int, progress: Progress) -> list[Path]:
    """Download every file of a task that has an address, an index of archives first.

    A file whose checksum the card does not know is pinned (`lape_bench.data.sources.checksum_pins`). A failure does not stop the others.

    Args:
        card: the base card.
        parallel: number of files to download at a time.
        progress: shows the files.

    Returns:
        The files; for an archive that was deleted after unpacking, its folder.

    Raises:
        UserError: the task has no files to download, or some could not be downloaded; the message gives the reasons.
        Stopped: another thread stopped it; partial files are kept.
    """
    files = downloads(card)
    if not files:
        raise UserError(
            f"the recordings of {card.name} cannot be downloaded, since the card has no address",
            next_step=card.obtain or f"'bench tasks show {card.name}' says where they come from",
        )
    reader = index_reader(card)
    index = None if reader is None else reader.index
    if index is not None:
        _all([file for file in files if file.source.file == index], parallel, progress)
        files = downloads(card)
    _all([file for file in files if file.source.file != index], parallel, progress)
    return [file.path if file.path.is_file() else file.unpacked() or file.path for file in files]


def _all(files: Sequence[Download], parallel: int, progress: Progress) -> None:
    failures: list[tuple[str, UserError]] = []
    waiting: dict[Future[None], Download] = {}
    with (
        progress.task("fetching", len(files), "files") as task,
        ThreadPoolExecutor(parallel) as pool,
    ):
        try:
            waiting = {pool.submit(_one, file, progress): file for file in files}
            for future in as_completed(waiting):
                try:
                    future.result()
                except UserError as error:
                    failures.append((waiting[future].source.file, error))
                task.advance()
        except BaseException:
            progress.stop()  # running downloads end soon and keep partial files
            for future in waiting:
                future.cancel()
            raise
    if failures and len(files) == 1:
        raise failures[0][1]
    if failures:
        named = ", ".join(sorted(f"{file}: {error.what}" for file, error in failures)[:NAMED])
        more = f", and {len(failures) - NAMED} more" if len(failures) > NAMED else ""
        raise UserError(
            f"{len(failures)} of {len(files)} files could not be fetched: {named}{more}",
            next_step="the same command tries these again and leaves the others as they are",
        )


def _one(file: Download, progress: Progress) -> None:
    if progress.stopped or (not file.path.is_file() and file.unpacked() is not None):
        return
    source = file.source
    with progress.task(f"fetching {Path(source.file).name}", source.bytes, "bytes") as running:
        try:
            download(source, file.path, running, progress.pause)
        except Stopped:
            return
    is_bad_archive = is_archive(file.path) and not opens(file.path)
    if is_bad_archive or _is_page_instead(file.path):
        file.path.unlink()
        sent = (
            f"no archive for {source.file}, but" if is_bad_archive else f"instead of {source.file}"
        )
        raise UserError(
            f"{source.url} sent {sent} perhaps a login page",
            next_step="open the address in a browser, or get the file by other means and give it to "
            "'bench data prepare TASK --from FILE'",
        )
    if source.sha256 is None and source.pinned and source.url is not None:
        checksum_pins.add(source.url, Pin(sha256(file.path), file.path.stat().st_size))


def _is_page_instead(path: Path) -> bool:
    """Return True if a file is a web page, although its name is not that of one."""
    if path.suffix.lower() in (".html", ".htm"):
        return False
    with path.open("rb") as file:
        start = file.read(PAGE_BYTES)
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(PAGE_STARTS)
