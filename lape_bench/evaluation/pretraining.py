"""An upstream on its own: pre-trained before any task is evaluated, and kept for the cells that want it."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from lape_bench.core.config import validate
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.evaluation.corpus import load_corpus
from lape_bench.learning.systems.pretrained_system import PretrainedUpstream, load_upstream
from lape_bench.runtime.device import Compute, stamp
from lape_bench.runtime.distributed import join_process_group
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.system import RunContext


def learn_upstream(
    system: str, settings: dict[str, Any], compute: Compute, progress: Progress
) -> PretrainedUpstream:
    """Pre-train an upstream, or find it in the cache. Under torchrun all processes share the work.

    Args:
        system: the name of an upstream system.
        settings: settings that differ from the defaults, including the corpus.
        compute: device, precision, threads.
        progress: shows decoding and training.

    Raises:
        UserError: the system or a setting is unknown, or the corpus cannot be found.
    """
    kind = load_upstream(system)
    config = validate(settings, kind.Settings, where=f"settings of {system}")
    device, precision = compute.resolve()
    # The artifact's own folder keeps the checkpoints.
    with join_process_group(device) as process_group, tempfile.TemporaryDirectory() as work:
        stamp_here = stamp(device, precision)
        if process_group.size > 1:
            stamp_here["ranks"] = str(process_group.size)
        device = process_group.device or device
        context = RunContext(
            device,
            precision,
            Seeds(0),
            progress,
            Path(work),
            StageProfiler(device),
            checkpoint_stamp=stamp_here,
            process_group=process_group,
            load_corpus=partial(load_corpus, evaluated=None, progress=progress),
        )
        return kind.load_or_pretrain(config, None, context)
