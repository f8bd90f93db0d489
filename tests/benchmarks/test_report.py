"""A report of 20,000 records: processor time beside that of only reading their files, wall-clock time and memory.

`python -m tests.benchmarks.test_report` prints the table of `docs/how-to/reports.md`.
"""

import hashlib
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lape_bench.records.predictions import write_predictions
from lape_bench.records.record import (
    PREDICTIONS,
    RECORD,
    Cell,
    RunRecord,
    TaskFacts,
    cell_folder,
    identity,
    write_record,
)
from tests.lape_bench.report.test_record_view import finished

SYSTEMS, TASKS, FRACTIONS, SEEDS = 20, 25, (0.01, 0.05, 0.1, 1.0), 10
CLIPS, CLASSES = 600, tuple(f"class {number}" for number in range(20))


def predictions(folder: Path, seed: int) -> str:
    random = np.random.default_rng(seed)
    rows = np.log(random.dirichlet(np.full(len(CLASSES), 0.3), CLIPS) + 1e-9).astype(np.float32)
    ids = [f"speaker {number % 30}/clip {number}.wav" for number in range(CLIPS)]
    groups = [f"speaker {number % 30}" for number in range(CLIPS)]
    return write_predictions(folder, ids, np.arange(CLIPS) % len(CLASSES), rows, CLASSES, groups)


def write_records(out: Path, tasks: int, fractions: Sequence[float]) -> Path:
    """Write records with curves of 30 epochs, whose predictions are links to twenty files; return their folder."""
    made = {name: predictions(out / "made" / str(name), name) for name in range(20)}
    basis = finished(epochs=30)
    assert basis.task is not None
    task = TaskFacts.model_validate({**basis.task.model_dump(), "classes": CLASSES})
    grid = itertools.product(range(SYSTEMS), range(tasks), fractions, range(SEEDS))
    for system, number, fraction, seed in grid:
        name = (system + number + seed) % 20
        cell = Cell(
            system=f"system-{system}",
            task=f"task-{number}",
            protocol="finetune",
            labels=f"{100 * fraction:g}%",
            seed=seed,
        )
        record: RunRecord = basis.model_copy(
            update={
                "cell": cell,
                "task": task,
                "identity": identity(cell.model_dump(mode="json")),
                "predictions_sha256": made[name],
            }
        )
        folder = cell_folder(out / "records", cell, record.identity)
        write_record(folder, record)
        os.link(out / "made" / str(name) / PREDICTIONS, folder / PREDICTIONS)
    return out / "records"


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20,000 records."""
    return write_records(tmp_path_factory.mktemp("many"), TASKS, FRACTIONS)


# The peak memory that Linux tells of a child would be this process's own if that is larger, so the report tells its own.
PROGRAM = """
import atexit, runpy, sys
from pathlib import Path

atexit.register(lambda: print(Path("/proc/self/status").read_text(), file=sys.stderr))
sys.argv = ["bench", "report", "--format", "csv", "--out", sys.argv[1]]
runpy.run_module("lape_bench", run_name="__main__")
"""


def report(out: Path) -> tuple[float, int]:
    """Run `bench report`; return the processor time of all its processes in seconds, and its peak memory in MiB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(out)], check=True, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = re.search(r"VmHWM:\s+(\d+) kB", done.stderr)
    assert peak
    return seconds, int(peak[1]) // 1024


def one_by_one(out: Path) -> float:
    """Only read: hash every file, parse JSON and Parquet; return the processor time in seconds."""
    began = time.process_time()
    for path in out.rglob(RECORD):
        json.loads(path.read_text(encoding="utf-8"))
        content = path.with_name(PREDICTIONS).read_bytes()
        hashlib.sha256(content).hexdigest()
        pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
    return time.process_time() - began


def test_a_report_takes_hardly_longer_than_reading_its_files(records: Path, benchmark: Any) -> None:
    seconds, most = benchmark.pedantic(report, (records,), rounds=1, warmup_rounds=1)
    share = seconds / one_by_one(records)
    benchmark.extra_info["processor time beside reading the files"] = round(share, 2)
    benchmark.extra_info["seconds of processor time"] = round(seconds, 1)
    benchmark.extra_info["seconds"] = round(benchmark.stats.stats.min, 1)
    benchmark.extra_info["MiB, without the processes that read"] = most
    # 1.05, 1.24 and 1.29 on a busy machine; 1.76 before the columns of a test set were decoded once. Processor time depends less on
    # other programs than wall-clock time does.
    assert share < 1.6
    assert most < 1024


def table(repeats: int = 3) -> Iterator[str]:
    """Measure reports of 1,000, 5,000 and 20,000 records; yield the lines of a table with the middle of the repeats."""
    yield "| records | seconds | seconds of processor time | MiB |"
    yield "|---:|---:|---:|---:|"
    for tasks, fractions in ((5, FRACTIONS[:1]), (TASKS, FRACTIONS[:1]), (TASKS, FRACTIONS)):
        with tempfile.TemporaryDirectory() as folder:
            out = write_records(Path(folder), tasks, fractions)
            report(out)  # the first one finds no compiled code and no files in memory
            runs = []
            for _ in range(repeats):
                began = time.perf_counter()
                processor, most = report(out)
                runs.append((time.perf_counter() - began, processor, most))
        seconds, processor, most = (
            sorted(column)[repeats // 2] for column in zip(*runs, strict=True)
        )
        count = SYSTEMS * tasks * len(fractions) * SEEDS
        yield f"| {count:,} | {seconds:.1f} | {processor:.1f} | {most:,} |"


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)
