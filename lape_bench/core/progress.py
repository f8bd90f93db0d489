"""Show the progress of running tasks: live bars in a terminal, plain lines elsewhere, or nothing.

Messages go through `logging`; `show_messages` prints them above the bars.
"""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.progress import Task as Bar
from rich.table import Column
from rich.text import Text

LINE_EVERY_SECONDS = 10.0
# Width of a title, so that count, time left and speed fit into 80 columns too.
TITLE_COLUMNS, BAR_COLUMNS = 26, 10
MIB = 2**20


class Stopped(Exception):
    """Raised in a thread that counts or waits after `Progress.stop`."""


class Running:
    """One running task: its count, its speed, and notes such as the loss.

    Args:
        progress: shows the task.
        title: name of the task.
        total: number of units; None if unknown.
        unit: name of the units, such as "clips".
    """

    def __init__(self, progress: "Progress", title: str, total: int | None, unit: str) -> None:
        self.progress, self.title, self.total, self.unit = progress, title, total, unit
        self.done = 0
        self.notes: dict[str, str] = {}
        self.began = self._shown = time.monotonic()
        self._lock = threading.Lock()
        self._resumed_from = 0

    def advance(self, count: int = 1) -> None:
        """Count `count` more units."""
        if self.progress.stopped:
            raise Stopped
        with self._lock:
            self.done += count
        self.progress.changed(self)

    def resume_at(self, done: int) -> None:
        """Start the count at `done` units that an earlier run finished; speed leaves them out."""
        self.done = self._resumed_from = done
        self.progress.changed(self)

    def note(self, **notes: str) -> None:
        """Show values beside the count. A value replaces the one of the same name."""
        self.notes |= notes
        self.progress.changed(self)

    @property
    def speed(self) -> float:
        """Units per second since the start."""
        return (self.done - self._resumed_from) / max(time.monotonic() - self.began, 1e-9)

    @property
    def count(self) -> str:
        """The count and the total with their unit; bytes in MiB."""
        numbers = [self.done] if self.total is None else [self.done, self.total]
        if self.unit == "bytes":
            return f"{'/'.join(map(_mebi, numbers))} MiB"
        return f"{'/'.join(map(str, numbers))} {self.unit}"

    @property
    def rate(self) -> str:
        """The speed with its unit; bytes in MiB."""
        if self.unit == "bytes":
            return f"{_mebi(self.speed)} MiB/s"
        return f"{self.speed:.3g} {self.unit}/s"

    def line(self) -> str:
        """The task in one plain line."""
        parts = [f"{self.title}: {self.count}", self.rate]
        if self.total and self.speed > 0 and self.done < self.total:
            parts.append(f"{(self.total - self.done) / self.speed:.0f} s left")
        parts += [f"{name.replace('_', ' ')} {value}" for name, value in self.notes.items()]
        return ", ".join(parts)

    def due(self) -> bool:
        """Return True if it is time for another plain line."""
        now = time.monotonic()
        if now - self._shown < LINE_EVERY_SECONDS:
            return False
        self._shown = now
        return True


class Progress:
    """Shows running tasks on standard error, so that standard output holds only results.

    Args:
        quiet: show nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._stop = threading.Event()
        self.console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._live = not quiet and self.console.is_terminal
        self._bars: Bars | None = None
        self._ids: dict[int, TaskID] = {}

    @property
    def live(self) -> bool:
        """Whether bars are shown."""
        return self._live

    @property
    def stopped(self) -> bool:
        """Whether tasks in other threads should end."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End tasks in other threads at their next count or pause."""
        self._stop.set()

    def pause(self, seconds: float) -> None:
        """Wait, but end as soon as `stop` is called."""
        if self._stop.wait(seconds):
            raise Stopped

    @contextmanager
    def task(self, title: str, total: int | None, unit: str) -> Iterator[Running]:
        """Show a task while the block runs. Tasks may nest."""
        running = Running(self, title, total, unit)
        if not self._live:
            yield running
            if not self.quiet and time.monotonic() - running.began > 1:
                self.print(running.line())
            return
        outermost = self._bars is None
        if self._bars is None:
            self._bars = _bars(self.console)
            self._bars.start()
        bar = self._bars.add_task(_shortened(title), total=total, running=running)
        self._ids[id(running)] = bar
        try:
            yield running
        finally:
            del self._ids[id(running)]
            self._bars.remove_task(bar)
            if outermost:
                self._bars.stop()
                self._bars = None

    def changed(self, running: Running) -> None:
        """Show a task whose count or notes have changed."""
        if self._bars is not None and id(running) in self._ids:
            bar = self._ids[id(running)]
            self._bars.update(bar, completed=running.done, total=running.total)
        elif not self._live and not self.quiet and running.due():
            self.print(running.line())

    def print(self, text: str) -> None:
        """Print a line above the bars, whether quiet or not."""
        if self._live:
            (self._bars.console if self._bars else self.console).print(text, markup=False)
        else:
            print(text, file=sys.stderr, flush=True)


class MessageHandler(logging.Handler):
    """Prints log messages above the bars."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            self.progress.print(self.format(record))
        except Exception:  # A message that cannot be printed must not stop a run.
            self.handleError(record)


def show_messages(progress: Progress, verbose: bool = False) -> None:
    """Print the log messages of lape_bench above the bars of `progress`, or only errors if it is quiet.

    This is for programs, such as `bench`. A library's user configures `logging` instead. A handler that an earlier
    call attached is replaced.

    Args:
        progress: the bars.
        verbose: print debug messages too.
    """
    logger = logging.getLogger("lape_bench")
    for handler in [*logger.handlers]:
        if isinstance(handler, MessageHandler):
            logger.removeHandler(handler)
    logger.addHandler(MessageHandler(progress))
    logger.setLevel(logging.ERROR if progress.quiet else logging.DEBUG if verbose else logging.INFO)


def _mebi(size: float) -> str:
    """Write bytes in MiB: 0.02, 97.4, 23,815."""
    mebi = size / MIB
    digits = 2 if mebi < 1 else 1 if mebi < 1000 else 0
    return f"{mebi:,.{digits}f}"


def _shortened(title: str) -> str:
    """Cut the middle out of a long title. The beginning names the task, and the end distinguishes it from similar ones."""
    if len(title) <= TITLE_COLUMNS:
        return title
    last = (TITLE_COLUMNS - 1) // 2
    return f"{title[: TITLE_COLUMNS - 1 - last]}…{title[-last:]}"


class _Rate(ProgressColumn):
    """Speed of a task, after its bar."""

    def render(self, task: Bar) -> Text:
        return Text(task.fields["running"].rate, style="dim")


class _ByUnit(ProgressColumn):
    """One column for tasks that count bytes, another for the others."""

    def __init__(
        self, of_bytes: ProgressColumn, of_others: ProgressColumn, table_column: Column
    ) -> None:
        super().__init__(table_column)
        self.of_bytes, self.of_others = of_bytes, of_others

    def render(self, task: Bar) -> RenderableType:
        counts_bytes = task.fields["running"].unit == "bytes"
        return (self.of_bytes if counts_bytes else self.of_others).render(task)


class _Notes(ProgressColumn):
    """Notes of a task, cut off where the line ends."""

    def render(self, task: Bar) -> Text:
        notes: dict[str, str] = task.fields["running"].notes
        text = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in notes.items())
        return Text(text, style="dim", no_wrap=True, overflow="ellipsis")


def _bars(console: Console) -> Bars:
    # If space is short, rich first shrinks the columns that may wrap: the notes.
    whole = Column(no_wrap=True)
    return Bars(
        SpinnerColumn(table_column=whole),
        TextColumn("{task.description}", markup=False, table_column=whole),
        BarColumn(bar_width=BAR_COLUMNS, table_column=whole),
        _ByUnit(DownloadColumn(binary_units=True), MofNCompleteColumn(), whole),
        TimeRemainingColumn(compact=True, table_column=whole),
        _ByUnit(TransferSpeedColumn(), _Rate(), whole),
        _Notes(),
        console=console,
        transient=True,
        expand=False,
    )
