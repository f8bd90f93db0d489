import io
import logging
import re
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
from rich.console import Console

from lape_bench.core import progress as module
from lape_bench.core.progress import MIB, Progress, Stopped, show_messages


@pytest.fixture
def always_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_EVERY_SECONDS", 0.0)


def test_plain_lines_hold_count_speed_time_left_and_notes(
    always_due: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress().task("training", 4, "clips") as task:
        task.note(epoch="1/2", validation_loss="0.500")
        task.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("training: 1/4 clips, ")
    assert "clips/s" in lines[-1]
    assert "s left, epoch 1/2, validation loss 0.500" in lines[-1]


def test_bytes_are_told_in_mebibytes_in_plain_lines(
    always_due: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress().task("fetching", 23_815 * MIB, "bytes") as task:
        task.advance(int(118.5 * MIB))
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"fetching: 118\.5/23,815 MiB, [\d,]+(\.\d+)? MiB/s, \d+ s left", line), (
        line
    )


def test_a_bar_of_80_columns_holds_count_time_left_and_speed_of_a_file_with_a_long_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown, now = io.StringIO(), [0.0]
    console = partial(
        Console,
        width=80,
        file=shown,
        force_terminal=True,
        color_system=None,
        get_time=lambda: now[0],
    )
    monkeypatch.setattr(module, "Console", console)
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = Progress()
    title = "fetching TUT-urban-acoustic-scenes-2018-development.audio.13.zip"
    with progress.task("fetching", 24, "files"), progress.task(title, None, "bytes") as task:
        task.total = 23_815 * MIB  # as a server says later
        task.note(waiting="60 s, the server answered 503")
        for _ in range(2):
            now[0] += 1.0
            task.advance(int(6000.2 * MIB))
        assert progress._bars is not None
        progress._bars.refresh()
        lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.getvalue()).splitlines()
    line = lines[-1]
    assert len(line) <= 80
    name, rest = re.search(r"(fetching \S+) +(\S.*)", line).groups()
    assert len(name) <= 26
    start, end = name.split("…")
    assert title.startswith(start)
    assert title.endswith(end)
    assert re.search(r" 11\.7/23\.3 GiB 00:02 6\.3 GB/s ", rest), line


def test_quiet_shows_nothing_and_results_keep_standard_output(
    always_due: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for quiet in (True, False):
        progress = Progress(quiet=quiet)
        with progress.task("training", 1, "clips") as task:
            task.advance()
        captured = capsys.readouterr()
        assert captured.out == ""
        assert bool(captured.err) != quiet


@pytest.mark.parametrize(
    ("quiet", "verbose", "shown"),
    [
        (False, False, ["info", "warning", "error"]),
        (False, True, ["debug", "info", "warning", "error"]),
        (True, True, ["error"]),
    ],
)
def test_a_program_prints_messages_of_the_levels_that_were_asked_for_each_once(
    quiet: bool, verbose: bool, shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        show_messages(Progress(quiet), verbose)
    logger = logging.getLogger("lape_bench.data.prepare")
    for level in ("debug", "info", "warning", "error"):
        getattr(logger, level)(level)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == shown


def test_messages_stand_above_live_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = partial(Console, file=screen, force_terminal=True, color_system=None)
    monkeypatch.setattr(module, "Console", console)
    progress = Progress()
    show_messages(progress)
    with progress.task("training", 4, "clips"):
        logging.getLogger("lape_bench").info("a [message] of ours")
    lines = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", screen.getvalue()).splitlines()
    number = next(n for n, line in enumerate(lines) if line.endswith("a [message] of ours"))
    assert "training" in lines[number + 1]


def test_a_library_prints_warnings_alone_and_attaches_no_handler() -> None:
    program = """if True:
        import logging
        import lape_bench.cli.app
        assert not logging.getLogger("lape_bench").handlers
        logger = logging.getLogger("lape_bench.data.prepare")
        logger.info("an info")
        logger.warning("a warning")
    """
    run = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert (run.stdout, run.stderr) == ("", "a warning\n")


def test_what_an_earlier_run_did_does_not_count_as_speed() -> None:
    with Progress(quiet=True).task("training", 100, "clips") as task:
        task.resume_at(90)
        assert task.done == 90
        assert task.speed == 0


def test_after_a_stop_whoever_counts_or_waits_is_ended() -> None:
    progress = Progress(quiet=True)
    with progress.task("fetching", 3, "bytes") as task:
        task.advance()
        progress.pause(0.0)
        progress.stop()
        with pytest.raises(Stopped):
            task.advance()
        with pytest.raises(Stopped):
            progress.pause(60.0)
    assert task.done == 1


def test_a_stop_ends_a_pause_that_has_begun() -> None:
    progress = Progress(quiet=True)
    threading.Timer(0.02, progress.stop).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        progress.pause(600.0)
    assert time.monotonic() - began < 60
