"""Kill commands at random moments by SIGKILL, and run them again: the same bytes, no process and nothing half is left.

    python -m tests.kills 100                # kills, shared among the commands
    python -m tests.kills 20 sweep 7         # of one command, with another seed

Only the process of the command is killed; those that it started have to end by themselves. Prints a table, and ends
with exit code 1 if anything is not as it should be.

A command is a fork of this process, which has imported what commands import. So a kill costs no imports, and hits the
command at its work.
"""

import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

import lape_bench.data.prepare
import lape_bench.evaluation.runner
import lape_bench.report.page.html_page  # noqa: F401  # imported here so that no command has to
from lape_bench.cli.app import main as bench_main

TAG = "LAPE_BENCH_KILLS"
END_SECONDS = 60.0  # in which the processes of a killed command have to end
GRID = """systems: [{name: supervised, settings: {width: 8, finetune: {epochs: 2, min_steps: 1, learning_rates: [0.001]}}}]
tasks: [toy]
seeds: 2
"""
TRAINED = (
    "--set",
    "width=8",
    "--set",
    "finetune.epochs=2",
    "--set",
    "finetune.min_steps=1",
    "--set",
    "finetune.learning_rates=[0.001]",
)
UPSTREAM = (
    "--corpus", "toy", "--set", "width=8", "--set", "projector=8", "--set", "pretrain.epochs=3",
    "--set", "pretrain.min_steps=1", "--set", "pretrain.window_seconds=0.2",
)  # fmt: skip


class Command(NamedTuple):
    """A command, and the files that it is for.

    Attributes:
        arguments: of `bench`.
        results: patterns of the files, below the folder that it runs in.
        before: a command that makes what it needs, if it needs more than the task.
        is_prepared: whether the task is prepared before.
    """

    arguments: tuple[str, ...]
    results: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    is_prepared: bool = True


RUN = ("run", "--system", "supervised", "--task", "toy", *TRAINED, "--threads", "1", "-q", "--out")
FLOOR = ("run", "--system", "log-mel-statistics", "--task", "toy", "--threads", "1", "-q", "--out")
COMMANDS = {
    "prepare": Command(
        ("data", "prepare", "toy", "-q"),
        ("home/manifests/*.parquet", "home/store/*/samples.*", "home/store/*/index.npz"),
        is_prepared=False,
    ),
    "run": Command((*RUN, "out"), ("out/**/predictions.parquet",)),
    "sweep": Command(
        ("sweep", "grid.yaml", "--jobs", "2", "-q", "--out", "out"), ("out/**/predictions.parquet",)
    ),
    "pretrain": Command(
        ("pretrain", "--system", "delores-s", *UPSTREAM, "--threads", "1", "-q"),
        ("home/artifacts/upstream/*/*.pt",),
    ),
    "merge": Command(
        ("merge", "into", "a", "b", "-q"), ("into/**/*",), ((*FLOOR, "a"), (*RUN, "b"))
    ),
    "page": Command(
        ("report", "--out", "a", "--html", "page.html"), ("page.html",), ((*FLOOR, "a"),)
    ),
}


def bench(arguments: tuple[str, ...], folder: Path, tag: str) -> int:
    """Start a command in a folder, with a cache of its own there; return the number of its process."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        os.chdir(folder)
        os.environ |= {"LAPE_BENCH_HOME": str(folder / "home"), TAG: tag}
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["bench", *arguments]
        bench_main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finish(arguments: tuple[str, ...], folder: Path, tag: str) -> float:
    """Run a command to its end, and return its seconds."""
    began = time.monotonic()
    _, status = os.waitpid(bench(arguments, folder, tag), 0)
    if code := os.waitstatus_to_exitcode(status):
        log = (folder / "log.txt").read_text(errors="replace")
        raise AssertionError(f"{' '.join(arguments)} ended with {code}: {log[-500:]}")
    return time.monotonic() - began


def make_folder(folder: Path, command: Command, prepared: Path) -> None:
    """Put into a folder what a command starts from."""
    shutil.copytree(prepared, folder, symlinks=True)
    if not command.is_prepared:
        for place in ("manifests", "store", "decoded"):
            shutil.rmtree(folder / "home" / place, ignore_errors=True)


def results(folder: Path, command: Command) -> dict[str, str]:
    """Hash the files that a command is for; records hold times, and are left out."""
    files = [path for pattern in command.results for path in folder.glob(pattern) if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in ("record.json", ".lock")
    }


def processes(tag: str) -> list[int]:
    """List the processes that a command with a tag has started, and that run."""
    running = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            is_tagged = f"{TAG}={tag}".encode() in (place / "environ").read_bytes().split(b"\0")
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
        except (OSError, ValueError):
            continue
        if is_tagged and state not in "ZX":
            running.append(int(place.name))
    return running


def lasting_processes(tag: str) -> list[int]:
    """List the processes that a command with a tag has started, and that have not ended after `END_SECONDS`."""
    until = time.monotonic() + END_SECONDS
    while (running := processes(tag)) and time.monotonic() < until:
        time.sleep(0.2)
    return running


def leftovers(folder: Path) -> Iterator[str]:
    """Yield what a killed command left half."""
    for path in folder.rglob("*"):
        temporary = path.name.startswith((".part-", ".work-")) or path.name == "work"
        # As `new_file` names them: the name, and the process behind it.
        if temporary or (
            path.name.startswith(".") and path.name.count("-") >= 3 and path.is_file()
        ):
            yield path.relative_to(folder).as_posix()


def try_once(
    command: Command, moment: float, prepared: Path, expected: dict[str, str], place: Path
) -> list[str]:
    """Kill a command after some seconds, run it again, and return what is wrong, a line each."""
    tag, problems = uuid.uuid4().hex, []
    make_folder(place, command, prepared)
    process = bench(command.arguments, place, tag)
    time.sleep(moment)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    running = lasting_processes(tag)
    if running:
        problems.append(f"{len(running)} processes live on")
    for number in running:
        os.kill(number, signal.SIGKILL)
    try:
        finish(command.arguments, place, tag)
    except AssertionError as error:
        return [*problems, str(error)]
    if (found := results(place, command)) != expected:
        names = sorted(
            name for name in found.keys() | expected if found.get(name) != expected.get(name)
        )
        problems.append(f"other bytes: {', '.join(names[:3])}")
    problems += [f"left: {name}" for name in leftovers(place)]
    if lasting_processes(tag):
        problems.append("processes live on after the end")
    return problems


def main() -> None:
    """See the module."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    names = [sys.argv[2]] if len(sys.argv) > 2 else [*COMMANDS]
    moments = random.Random(int(sys.argv[3]) if len(sys.argv) > 3 else 0)
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        prepared = make_task(root / "prepared")
        print("| command | kills | undisturbed, s | problems |\n|---|---:|---:|---:|")
        for number, name in enumerate(names):
            trials = count // len(names) + (number < count % len(names))
            of_command = trials and try_command(name, trials, prepared, root, moments)
            problems += of_command or []
    print("\n".join(problems))
    sys.exit(bool(problems))


def try_command(
    name: str, trials: int, prepared: Path, root: Path, moments: random.Random
) -> list[str]:
    """Kill a command so many times; print a line of the table, and return what was wrong."""
    command, problems = COMMANDS[name], []
    base = root / f"{name}-base"
    shutil.copytree(prepared, base)
    for arguments in command.before:
        finish(arguments, base, "before")
    make_folder(root / f"{name}-reference", command, base)
    seconds = finish(command.arguments, root / f"{name}-reference", "reference")
    expected = results(root / f"{name}-reference", command)
    assert expected, f"{name} writes nothing"
    for trial in range(trials):
        place = root / f"{name}-{trial}"
        moment = moments.uniform(0, seconds)
        found = try_once(command, moment, base, expected, place)
        problems += [f"{name}, killed after {moment:.2f} s: {problem}" for problem in found]
        shutil.rmtree(place)
    print(f"| {name} | {trials} | {seconds:.1f} | {len(problems)} |", flush=True)
    return problems


def make_task(folder: Path) -> Path:
    """Make a folder with a prepared task of sixteen clips, and a grid."""
    random_numbers = np.random.default_rng(0)
    for number in range(16):
        path = folder / "recordings" / "ab"[number % 2] / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, random_numbers.normal(0, 0.1, 4000), 16_000)
    (folder / "grid.yaml").write_text(GRID)
    finish(("tasks", "new", "toy", "--from", "recordings"), folder, "before")
    finish(("data", "prepare", "toy", "-q"), folder, "before")
    return folder


if __name__ == "__main__":
    main()
