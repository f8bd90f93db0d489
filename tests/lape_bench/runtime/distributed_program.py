"""Pre-train upstreams for a few steps, alone or under torchrun: a program for `test_distributed.py`.

usage: distributed_program.py OUT=LAST[:OUT=LAST] SYSTEM...

For each folder OUT and each system it writes curve and objective, as this rank has them, to OUT/SYSTEM-RANK.pt; what each rank
draws for itself (dropout, dropped patches) is off. With LAST above 0 it stops after that epoch instead, and a second call goes
on.
"""

import copy
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lape_bench.core.config import merge
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.learning.systems.pretrained_system import load_upstream
from lape_bench.learning.training.pretrain import Objective, UnlabeledClips, pretrain
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
    """Have an epoch after the last one not begin."""
    begin = objective.before_epoch

    def begin_or_stop(epoch: int, corpus: UnlabeledClips, seeds: Seeds) -> Tensor | None:
        if epoch > last:
            raise Stopped
        return begin(epoch, corpus, seeds)

    objective.before_epoch = begin_or_stop  # type: ignore[method-assign]  # of this one alone


def learn(name: str, out: Path, last: int, process_group: ProcessGroup) -> None:
    """Pre-train one upstream, as far as it is to go, and write what came out."""
    kind, clips = load_upstream(name), tones()
    small = {} if name == "ss-mast" else {"width": 8}
    own = SETTINGS.get(name, {})
    settings: Any = kind.Settings.model_validate(merge({"pretrain": PRETRAIN, **small}, own))
    seeds, cpu, work = Seeds(0), torch.device("cpu"), out / f"work-{name}"
    with seeds.globally("initial weights"):
        objective = kind.build_objective(kind.new_encoder(settings), settings, len(clips))
    for module in objective.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if last:
        stop_after(last, objective)
    before = copy.deepcopy(objective.state_dict())
    shape = objective.encoder.feature_shape(settings.pretrain.window_seconds)
    views = kind.new_views(settings, shape, len(clips))
    work.mkdir(exist_ok=True)
    context = RunContext(
        cpu,
        "float32",
        seeds,
        Progress(quiet=True),
        work,
        StageProfiler(cpu),
        0.0,
        process_group=process_group,
    )
    with suppress(Stopped):
        curve = pretrain(objective, views, clips, settings.pretrain, context)
        content = {"curve": curve, "before": before, "after": objective.state_dict()}
        torch.save(content | {"bank": views.mixup.bank}, out / f"{name}-{process_group.rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with join_process_group(torch.device("cpu")) as together:
        for run in sys.argv[1].split(os.pathsep):
            folder, _, last = run.rpartition("=")
            for system in sys.argv[2:]:
                learn(system, Path(folder), int(last), together)
