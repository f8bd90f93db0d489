"""What things cost as they grow: processor time, memory, and the exponent by which the time grows, as a table.

    python -m tests.benchmarks.growth
    python -m tests.benchmarks.growth --largest 1000000 --only "manifest" --only "k-means"

Each figure comes from a process of its own that does the same with a small amount first, so that what happens once is not counted.
The exponent is the slope between the two largest amounts on logarithmic axes: 1 means ten times as much for ten times the clips.
Memory is what the process adds in pages of its own: pages of mapped files are not counted, since the system takes them back at will.
"""

import argparse
import contextlib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lape_bench.core.label_budget import LabelBudget
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.data.catalog import load_card
from lape_bench.data.drawn_split import draw_split
from lape_bench.data.splits import make_split
from lape_bench.data.verify import verify
from lape_bench.learning.encoders.audio_ntt import AudioNTT
from lape_bench.learning.encoders.heads import mlp
from lape_bench.learning.systems.pretrained_system import load_upstream
from lape_bench.learning.training.clustering import ClusteringConfig, cluster
from lape_bench.learning.training.inference import class_log_probabilities, embed
from lape_bench.learning.training.linear_probe import LinearConfig, fit_linear
from lape_bench.learning.training.probe_selection import EmbeddedWindows
from lape_bench.runtime.device import Compute
from lape_bench.runtime.distributed import ALONE, ProcessGroup, join_process_group
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.sweep.grid import SweepConfig, plan_sweep
from lape_bench.sweep.schedule import Schedule
from lape_bench.system import RunContext
from lape_bench.task import ClipEntry
from tests.benchmarks.test_report import report, write_records
from tests.lape_bench.stand_ins import as_manifest

RATE, WIDTH, N_CLASSES = 16_000, 128, 20
FILE_SECONDS = 1_000  # noise is written to a file in pieces of this length
MIB = 2**20
ONE_THREAD = {
    "OMP_NUM_THREADS": "1"
}  # threads that wait for each other would count as processor time
QUIET = Progress(quiet=True)


@dataclass(frozen=True)
class Cost:
    """What an amount of work costs: processor seconds, and the memory in MiB that the process adds for it."""

    seconds: float
    mib: float


@dataclass(frozen=True)
class Measurement:
    """A kind of work, and the amounts for which its cost is measured.

    Attributes:
        unit: what is counted.
        amounts: in ascending order.
        prepare: from an amount and an empty folder to the work, which is measured.
    """

    unit: str
    amounts: tuple[int, ...]
    prepare: Callable[[int, Path], Callable[[], object]]


def noise(count: int, seconds: int, folder: Path) -> Clips:
    """Write clips of noise into a file, and map it."""
    folder.mkdir(exist_ok=True, parents=True)
    piece = 0.1 * np.random.default_rng(0).standard_normal(FILE_SECONDS * RATE, dtype=np.float32)
    with (folder / "samples").open("wb") as file:
        for _ in range(-(-count * seconds // FILE_SECONDS)):
            piece.tofile(file)
    samples = np.memmap(folder / "samples", np.float32, mode="r+")
    lengths = np.full(count, seconds * RATE)
    ids = tuple(map(str, range(count)))
    return Clips(ids, samples, np.arange(count) * lengths, lengths, RATE, "noise")


def context(folder: Path, ranks: ProcessGroup = ALONE) -> RunContext:
    device, precision = Compute(device="cpu").resolve()
    return RunContext(device, precision, Seeds(0), QUIET, folder, StageProfiler(device), checkpoint_seconds=1e9,
                      process_group=ranks, artifact_folder=folder / "cache")  # fmt: skip


def manifest(count: int, _: Path) -> Callable[[], object]:
    """Draw a split by speaker, hash the manifest, draw a label budget, and verify."""
    card = load_card("voxforge")
    listing = [
        ClipEntry(
            f"{n:07d}", Path(f"{n:07d}.wav"), card.classes[n % len(card.classes)], None, None, f"user{n % 3000}"
        )
        for n in range(count)
    ]  # fmt: skip

    def work() -> None:
        made = as_manifest(card, draw_split(listing, card))
        assert made.hash
        make_split(made, card, 0, 0, LabelBudget(0.1))
        verify(card, made, False, QUIET)

    return work


def embedding(count: int, folder: Path) -> Callable[[], object]:
    """Embed clips of a second by AudioNTT (d = 128)."""
    clips = noise(count, 1, folder)
    return lambda: embed(AudioNTT(WIDTH), clips, 1.0, context(folder))


def scoring(count: int, folder: Path) -> Callable[[], object]:
    """Score two clips of many seconds, by windows of a second."""
    clips = noise(2, count // 2, folder)
    head = mlp([WIDTH, N_CLASSES])
    return lambda: class_log_probabilities(AudioNTT(WIDTH), head, clips, 1.0, context(folder))


def pre_training(count: int, folder: Path) -> Callable[[], object]:
    """Pre-train SimCLR (d = 128) for an epoch on clips of a second, with all ranks of torchrun if it started them."""
    clips, kind = noise(count, 1, folder / os.environ.get("RANK", "0")), load_upstream("simclr")
    epoch = {"width": WIDTH, "pretrain": {"epochs": 1, "min_steps": 1}}
    settings = kind.Settings.model_validate(epoch)

    def work() -> None:
        with join_process_group(torch.device("cpu")) as ranks:
            kind.load_or_pretrain(settings, clips, context(folder, ranks))

    return work


def k_means(count: int, _: Path) -> Callable[[], object]:
    """Cluster embeddings of 2,048 numbers into 128 clusters."""
    random = np.random.default_rng(0)
    centers = 0.3 * random.standard_normal((128, 2048), dtype=np.float32)
    embeddings = np.empty((count, 2048), np.float32)
    for begin in range(0, count, 1000):
        some = embeddings[begin : begin + 1000]
        some[:] = random.standard_normal(some.shape, dtype=np.float32)
        some += centers[random.integers(128, size=len(some))]
    return lambda: cluster(embeddings, ClusteringConfig(clusters=128), random, "the corpus")


def linear_probe(n_classes: int, _: Path) -> Callable[[], object]:
    """Fit and select a linear probe to 5 embeddings of 512 numbers of each class."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(n_classes).repeat(5)
    means = torch.randn(n_classes, 512, generator=draw)
    embeddings = means[labels] + torch.randn(len(labels), 512, generator=draw)
    clips = torch.arange(len(labels))
    train = EmbeddedWindows(embeddings, clips, labels, clips)
    config = LinearConfig()
    return lambda: fit_linear(train, None, n_classes, "accuracy", config, Seeds(0), QUIET)


def sweep(count: int, _: Path) -> Callable[[], object]:
    """Plan the cells of a sweep, half of them of an upstream, and their order."""
    grid = {
        "systems": ["log-mel-statistics", "moco"],
        "tasks": ["synthetic-sounds"],
        "protocols": ["linear"],
        "label_fractions": [0.1, 0.2, 0.3, 0.4, 1.0],
        "seeds": count // 10,
    }

    def work() -> None:
        items = plan_sweep(SweepConfig.model_validate(grid).items(), QUIET)
        assert len(items) == count
        Schedule([item.planned.shared_artifacts for item in items])

    return work


MEASUREMENTS = {
    "manifest": Measurement("clips", (1_000, 10_000, 100_000, 1_000_000), manifest),
    "embedding": Measurement("clips", (1_000, 10_000, 100_000, 1_000_000), embedding),
    "scoring": Measurement("seconds of two clips", (1_000, 10_000, 100_000), scoring),
    "pre-training": Measurement("clips", (1_000, 10_000, 100_000, 1_000_000), pre_training),
    "k-means": Measurement("embeddings", (1_000, 10_000, 100_000, 1_000_000), k_means),
    "linear probe": Measurement("classes", (10, 100, 1_000), linear_probe),
    "sweep": Measurement("cells", (1_000, 10_000, 100_000), sweep),
}
REPORT = "report"
RECORDS = {1_000: (5, (1.0,)), 5_000: (25, (1.0,)), 20_000: (25, (0.01, 0.05, 0.1, 1.0))}
RANKS = "ranks"
CLIPS_OF_RANKS = 1_000


def own_pages() -> int:
    """Return the bytes that this process holds without mapped files."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found
    return 1024 * int(found[1])


@contextlib.contextmanager
def watched() -> Iterator[list[int]]:
    """Yield a list whose only number is the largest `own_pages` during the block."""
    most, done = [own_pages()], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], own_pages())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield most
    finally:
        done.set()
        watcher.join()
        most[0] = max(most[0], own_pages())


def measure_here(name: str, amount: int, folder: Path) -> Cost:
    """Do the work in this process, after a small amount of it."""
    measurement = MEASUREMENTS[name]
    least = folder / "least"
    least.mkdir(exist_ok=True)
    measurement.prepare(min(measurement.amounts[0], 200), least)()
    work = measurement.prepare(amount, folder)
    before, began = own_pages(), time.process_time()
    with watched() as most:
        work()
    return Cost(time.process_time() - began, (most[0] - before) / MIB)


def measure(name: str, amount: int, *launcher: str) -> Cost:
    """Do the work in a process of its own, or in the ranks of a launcher; return the largest cost."""
    with tempfile.TemporaryDirectory() as folder:
        module = ("-m", "tests.benchmarks.growth", "--measure", name, str(amount), folder)
        program = [sys.executable, *launcher, *module]
        done = subprocess.run(
            program, check=True, capture_output=True, text=True, env=os.environ | ONE_THREAD
        )
    costs = [Cost(*json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]
    return Cost(max(cost.seconds for cost in costs), max(cost.mib for cost in costs))


def measure_report(n_records: int) -> Cost:
    """Make a leaderboard of records; memory is that of its main process with mapped files."""
    with tempfile.TemporaryDirectory() as folder:
        records = write_records(Path(folder), *RECORDS[n_records])
        return Cost(*report(records))


def measure_ranks(n_ranks: int) -> Cost:
    """Pre-train with this many processes of torchrun."""
    torchrun = ("-m", "torch.distributed.run", f"--nproc-per-node={n_ranks}")
    return measure("pre-training", CLIPS_OF_RANKS, *torchrun)


def rows(
    title: str, unit: str, amounts: list[int], cost_of: Callable[[int], Cost]
) -> Iterator[str]:
    """Yield the lines of one kind of work, as they are measured."""
    before: tuple[int, Cost] | None = None
    for amount in amounts:
        cost, exponent = cost_of(amount), ""
        if before:
            growth = math.log(cost.seconds / before[1].seconds) / math.log(amount / before[0])
            exponent = f"{growth:.2f}"
        yield f"| {title} | {amount:,} {unit} | {cost.seconds:,.2f} | {exponent} | {cost.mib:,.0f} |"
        before = amount, cost


def table(largest: int, only: list[str]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| work | amount | processor seconds | exponent | MiB |"
    yield "|---|---:|---:|---:|---:|"
    for name, measurement in MEASUREMENTS.items():
        if not only or name in only:
            amounts = [amount for amount in measurement.amounts if amount <= largest]
            yield from rows(name, measurement.unit, amounts, lambda n, name=name: measure(name, n))
    if not only or REPORT in only:
        amounts = [amount for amount in RECORDS if amount <= largest]
        yield from rows(REPORT, "records", amounts, measure_report)
    if not only or RANKS in only:
        yield from rows(RANKS, "processes", [1, 2], measure_ranks)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*MEASUREMENTS, REPORT, RANKS]
    parser.add_argument("--largest", type=int, default=100_000, help="largest amount")
    parser.add_argument("--only", action="append", default=[], choices=names)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, amount, folder = options.measure
        cost = measure_here(name, int(amount), Path(folder))
        print(json.dumps([cost.seconds, cost.mib]), flush=True)
        return
    for line in table(options.largest, options.only):
        print(line, flush=True)


if __name__ == "__main__":
    main()
