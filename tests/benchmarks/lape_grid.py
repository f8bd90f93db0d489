"""Estimate what the full LAPE grid takes, from measured steps: `python -m tests.benchmarks.lape_grid`.

It plans `results/boards/lape.yaml` on the synthetic twins, which have the same folds and splits, counts which upstreams and students
are made once for all, and multiplies steps by what one took. Nothing of it was run on the real eleven.
"""

import json
import math
from collections import Counter
from pathlib import Path

from lape_bench.core.config import read_yaml
from lape_bench.core.progress import Progress
from lape_bench.data.catalog import load_card, synthetic
from lape_bench.evaluation.plan import load_system, resolve
from lape_bench.runtime.artifacts import stable_name
from lape_bench.sweep.grid import SweepConfig
from lape_bench.task import TaskCard

GRID = Path(__file__).parents[2] / "results" / "boards" / "lape.yaml"
RATE, GIB = 16_000, 2**30
# The audio of these has another rate, several channels or more than 16 bits, so it is stored as float32. The rest is published as
# 16-bit mono at 16 kHz; a single file that is not would double its task.
FLOAT32 = {"birdsong", "tut-urban-2018", "us8k"}
# Measured on one H100 with five cells side by side, at commit 96206d5: the seconds of a stage, the steps it
# had, and so the share of the GPU that a step took. All on windows of 1 s.
BESIDE = 5
PRETRAINING = {
    "byol-a": 85.1, "cola": 61.6, "decar": 73.6, "delores-m": 80.4, "delores-s": 68.1, "moco": 51.8, "simclr": 62.6,
    "slicer": 86.1, "ss-mast": 176.9,
}  # fmt: skip
PRETRAINING_STEPS = 83 * math.ceil(1800 / 64)
STUDENT, STUDENT_STEPS = 10.6, 39 * math.ceil(1800 / 64)
FINE_TUNING, FINE_TUNING_STEPS = 9.8, 12 * math.ceil(1800 / 32)


def train_clips(card: TaskCard) -> int:
    """Clips of the train side: as the card counts them, or by its shares or folds."""
    sides = card.expected.per_side
    if "train" in sides:
        return int(sides["train"])
    folds = card.split.folds or 0
    share = 0.9 * (folds - 1) / folds if folds else (card.split.shares or {}).get("train", 0.8)
    return round(share * card.expected.clips)


def steps(clips: float, batch: int, epochs: int, least: int) -> int:
    """Steps of a training, as the harness counts them."""
    batches = math.ceil(clips / batch)
    return batches * max(epochs, math.ceil(least / batches))


def main() -> None:
    """Print a row for each task."""
    grid, quiet = read_yaml(GRID, SweepConfig), Progress(quiet=True)
    print("| task | clips | prepared, GiB | cells | upstreams | students | GPU hours |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    sums = Counter[str]()
    for task in grid.tasks:
        card = load_card(task)
        twin = grid.only([task]).model_copy(update={"tasks": (synthetic(task),)})
        twin = twin.model_copy(
            update={
                "grids": tuple(
                    each.model_copy(update={"tasks": (synthetic(task),)}) for each in twin.grids
                )
            }
        )
        cells = twin.cells()
        planned = [resolve(cell, quiet).planned for cell in cells]
        names = {name for cell in planned for name in cell.shared_artifacts}
        made = [json.loads(name) for name in names]
        upstreams = Counter(
            next(key for key in PRETRAINING if each["system"].startswith(_origin(key)))
            for each in made
            if "corpus" in each
        )
        students = sum("student" in each for each in made)
        train = train_clips(card)
        of_upstream = steps(train, 64, 20, 2400)
        seconds = sum(
            count * of_upstream * PRETRAINING[name] / PRETRAINING_STEPS
            for name, count in upstreams.items()
        )
        seconds += students * steps(train, 64, 20, 1120) * STUDENT / STUDENT_STEPS
        for cell in cells:
            if cell.protocol == "finetune":
                tuned = steps(cell.budget.count(train), 32, 12, 288)
                seconds += tuned * card.window_seconds * FINE_TUNING / FINE_TUNING_STEPS
        bytes_a_sample = 4 if card.name in FLOAT32 else 2
        row = {
            "clips": card.expected.clips,
            "GiB": card.expected.clips * card.window_seconds * RATE * bytes_a_sample / GIB,
            "cells": len(cells),
            "upstreams": sum(upstreams.values()),
            "students": students,
            "hours": seconds / BESIDE / 3600,
        }
        sums.update(row)
        _print(f"`{task}`", row)
    _print("together", sums)


def _origin(system: str) -> str:
    return stable_name(load_system(system))


def _print(name: str, row: dict[str, float]) -> None:
    print(
        f"| {name} | {row['clips']:,} | {row['GiB']:.1f} | {row['cells']:,} | {row['upstreams']} | {row['students']} | "
        f"{row['hours']:,.0f} |"
    )


if __name__ == "__main__":
    main()
