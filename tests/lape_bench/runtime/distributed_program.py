"""Pre-train upstreams for a few steps, alone or under torchrun: a program for `test_distributed.py`.

usage: distributed_program.py OUT=LAST[:OUT=LAST] SYSTEM...

For each folder OUT and each system it writes curve and objective, as this rank has them, to OUT/SYSTEM-RANK.pt; what each rank
draws for itself (dropout, dropped patches) is off. Two steps make a section. With LAST above 0 it stops after so many steps instead, and a
second call goes on. Then it asks twice for the first system's upstream, with an empty cache in the first OUT, and writes to OUT/kept-RANK.pt
whether it was computed, each time.
"""

import copy
import itertools
import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from lape_bench.core.config import merge
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.learning.systems.pretrained_system import load_upstream
from lape_bench.learning.training import loop
from lape_bench.learning.training.pretrain import Objective, pretrain
from lape_bench.runtime.distributed import ProcessGroup, join_process_group
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.system import RunContext

RATE = 16_000
CLIPS = 48  # three batches, whether one process has them or two
SGD = {"name": "sgd", "learning_rate": 3e-4, "schedule": "constant", "warm_up": 0.0}
PRETRAIN = {
    "epochs": 2,
    "min_steps": 1,
    "batch_size": 16,
    "window_seconds": 0.2,
    "optimizer": SGD,
}
SETTINGS: dict[str, dict[str, Any]] = {
    # Between epochs k-means would make of the last digits other clusters.
    "decar": {"clusters": 4, "pretrain": {"epochs": 1}},
    "ss-mast": {"patch_drop": 0.0, "depths": [1, 1], "queue": 24},
    "slicer": {"queue": 24, "clusters": 6, "cluster_hidden": 16},
    "moco": {"queue": 24},
    "delores-m": {"queue": 24, "projector": 8},
    "delores-s": {"projector": 8},
    # Rounding alone: one step of two processes agrees with that of one to 5e-5. At 3e-4, six steps make 4 % of a curve of it.
    "simclr": {"pretrain": {"optimizer": {"learning_rate": 3e-5}}},
}


def tones() -> Clips:
    """Clips of half a second, each with a tone of its own in noise."""
    random, time = np.random.default_rng(0), np.arange(RATE // 2) / RATE
    waveforms = [
        np.sin(2 * np.pi * (200 + 40 * n) * time) + 0.3 * random.standard_normal(len(time))
        for n in range(CLIPS)
    ]
    return Clips.pack([str(n) for n in range(CLIPS)], [0.1 * w for w in waveforms], RATE)


class Stopped(Exception):
    """The run ends here, as if it were killed."""


def stop_after(last: int, objective: Objective) -> None:
    """Have the step after the last one not end."""
    update, steps = objective.after_step, itertools.count(1)

    def update_or_stop() -> None:
        if next(steps) > last:
            raise Stopped
        update()

    objective.after_step = update_or_stop  # type: ignore[method-assign]  # of this one alone


def settings_of(name: str) -> Any:
    """Return the settings of an upstream that is small."""
    small = {} if name == "ss-mast" else {"width": 8}
    settings = merge({"pretrain": PRETRAIN, **small}, SETTINGS.get(name, {}))
    return load_upstream(name).Settings.model_validate(settings)


def context_of(work: Path, process_group: ProcessGroup) -> RunContext:
    """Return a context with this work folder, which keeps a checkpoint after every epoch."""
    cpu = torch.device("cpu")
    work.mkdir(exist_ok=True)
    return RunContext(
        cpu,
        "float32",
        Seeds(0),
        Progress(quiet=True),
        work,
        StageProfiler(cpu),
        0.0,
        process_group=process_group,
    )


def learn(name: str, out: Path, last: int, process_group: ProcessGroup) -> None:
    """Pre-train one upstream, as far as it is to go, and write what came out."""
    kind, clips, settings = load_upstream(name), tones(), settings_of(name)
    context = context_of(out / f"work-{name}", process_group)
    with context.seeds.globally("initial weights"):
        objective = kind.build_objective(kind.new_encoder(settings), settings, len(clips))
    for module in objective.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if last:
        stop_after(last, objective)
    before = copy.deepcopy(objective.state_dict())
    shape = objective.encoder.feature_shape(settings.pretrain.window_seconds)
    views = kind.new_views(settings, shape, len(clips))
    try:
        with mock.patch.object(loop, "SECTION", 2):
            curve = pretrain(objective, views, clips, settings.pretrain, context)
    except Stopped:
        return
    assert not last, "it was to stop"
    content = {"curve": curve, "before": before, "after": objective.state_dict()}
    torch.save(content | {"bank": views.mixup.bank}, out / f"{name}-{process_group.rank}.pt")


def keep(name: str, out: Path, process_group: ProcessGroup) -> None:
    """Ask twice for an upstream, with an empty cache, and write whether it was computed, each time."""
    context = context_of(out / "work-kept", process_group)
    context.artifact_folder = out / "artifacts"
    settings = settings_of(name)
    upstreams = [load_upstream(name).load_or_pretrain(settings, tones(), context) for _ in range(2)]
    computed = [upstream.artifact.computed for upstream in upstreams]
    torch.save(computed, out / f"kept-{process_group.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with join_process_group(torch.device("cpu")) as together:
        runs = [run.rpartition("=") for run in sys.argv[1].split(os.pathsep)]
        for folder, _, last in runs:
            for system in sys.argv[2:]:
                learn(system, Path(folder), int(last), together)
        keep(sys.argv[2], Path(runs[0][0]), together)
