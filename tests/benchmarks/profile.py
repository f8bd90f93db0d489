"""Where the time of embedding, fine-tuning, pre-training and a cached probe goes, in percent of each.

    python -m tests.benchmarks.profile

Processor time of one process on one thread of a CPU, of AudioNTT on generated clips of a second. "Other" is what no row names. The
probe is `bench run` in a process of its own, with all embeddings cached. A part that another part contains counts once, in the inner
one.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROBE = ("run", "--task", "synthetic-sounds", "--protocol", "linear", "--quiet")
PARTS = {
    "lape_bench.learning.encoders.log_mel:LogMel.power": "log-mels",
    "lape_bench.learning.encoders.log_mel:LogMel.normalized": "log-mels",
    "lape_bench.learning.training.batches:cut_windows": "windows",
    "lape_bench.learning.training.inference:cut_windows": "windows",
    "lape_bench.learning.augmentations.views:Views.forward": "views",
    "lape_bench.learning.encoders.audio_ntt:AudioNTT.forward": "encoder",
    "lape_bench.learning.encoders.audio_ntt:AudioNTT.with_layers": "encoder",
    "lape_bench.learning.training.loop:TrainingLoop._update": "heads and loss",
    "torch:Tensor.backward": "backward",
    "torch.optim:Adam.step": "optimizer",
    "torch.optim:AdamW.step": "optimizer",
    "lape_bench.learning.training.loop:_Checkpoint.save": "checkpoints",
    "lape_bench.learning.training.pretrain:_EmbeddingMonitor.__call__": "embedding spread and rank",
    "lape_bench.learning.training.linear_probe:_fit_regression": "logistic regressions",
    "lape_bench.api.run_items:plan_items": "planning",
    "lape_bench.cli.runs:show_board": "leaderboard",
    "lape_bench.data.audio_store:open_store": "opening audio",
    "lape_bench.learning.systems.encoder_system:EncoderSystem.count_macs": "counting operations",
}  # fmt: skip


class Parts:
    """Processor seconds by part; those of a part inside another are not counted in the outer one."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self._running: list[str] = ["other"]
        self._since = time.process_time()

    def switch(self) -> None:
        """Add the time since the last call to the part that runs."""
        now = time.process_time()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block for a part."""
        self.switch()
        self._running.append(name)
        try:
            yield
        finally:
            self.switch()
            self._running.pop()

    def timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return the function, which now counts for a part."""

        def inside(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*arguments, **named)

        return inside

    def watch(self, *names: str) -> None:
        """Time the functions of `PARTS`, whose modules are imported, or of the named ones alone."""
        from importlib import import_module

        for place, name in PARTS.items():
            module, _, path = place.partition(":")
            if names and name not in names:
                continue
            owner: Any = import_module(module)
            *outer, last = path.split(".")
            for attribute in outer:
                owner = getattr(owner, attribute)
            setattr(owner, last, self.timed(getattr(owner, last), name))

    def table(self, title: str) -> str:
        """Return the percentages, largest first, in Markdown."""
        self.switch()
        total = sum(self.seconds.values())
        rows = [
            f"| {name} | {100 * took / total:.0f} |" for name, took in self.seconds.most_common()
        ]
        return "\n".join([f"| {title}, {total:.1f} s | % |", "|---|---:|", *rows, ""])


def train_and_embed(work: str, n_clips: int) -> str:
    """Return the table of embedding, fine-tuning or pre-training."""
    import numpy as np
    import torch

    from lape_bench.core.progress import Progress
    from lape_bench.core.seeding import Seeds
    from lape_bench.data.audio_store import Clips
    from lape_bench.learning.systems.pretrained_system import load_upstream
    from lape_bench.learning.training.inference import embed
    from lape_bench.runtime.device import Compute
    from lape_bench.runtime.profiling import StageProfiler
    from lape_bench.system import LabeledClips, RunContext, TrainingData
    from tests.benchmarks.test_shares import supervised

    device, precision = Compute(device="cpu", threads=1).resolve()
    noise = np.random.default_rng(0).standard_normal((n_clips, 16_000), dtype=np.float32)
    clips = Clips.pack([str(n) for n in range(n_clips)], [*(0.1 * noise)], 16_000)
    with tempfile.TemporaryDirectory() as folder:
        context = RunContext(device, precision, Seeds(0), Progress(quiet=True), Path(folder), StageProfiler(device),
                             checkpoint_seconds=1e9, artifact_folder=Path(folder) / "cache")  # fmt: skip
        labels = torch.arange(n_clips) % 10
        data = TrainingData(clips, LabeledClips(clips, labels, torch.arange(n_clips)), None)
        epochs = {"epochs": 3, "min_steps": 1}
        tuned, upstream = supervised({"finetune": epochs}), load_upstream("delores-m")
        encoder = tuned.build_encoder()
        settings = upstream.Settings.model_validate({"pretrain": epochs})
        runs: dict[str, Callable[[], object]] = {
            "embedding": lambda: embed(encoder, clips, 1.0, context),
            "fine-tuning": lambda: tuned.train(data, context),
            "pre-training": lambda: upstream.load_or_pretrain(settings, clips, context),
        }
        parts = Parts()
        parts.watch()
        parts.switch()
        parts.seconds.clear()  # of what was imported so far
        runs[work]()
    return parts.table(work)


def probe(arguments: list[str]) -> None:
    """Run `bench` with the arguments, and print the percentages; called in a process of its own."""
    parts = Parts()
    parts._since = 0.0  # the start of the process
    with parts.part("importing torch"):
        import torch  # noqa: F401  # imported for its time alone
    with parts.part("importing scikit-learn"):
        import sklearn.linear_model
        import sklearn.model_selection  # noqa: F401  # imported for its time alone
    with parts.part("importing the rest"):
        import lape_bench.evaluation.runner
        import lape_bench.sweep.local_engine  # noqa: F401  # imported for its time alone
        from lape_bench.cli.app import app
    parts.watch()
    app(arguments, standalone_mode=False)
    print(parts.table("cached probe"))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--clips", type=int, default=640)
    parser.add_argument("--only", choices=("embedding", "fine-tuning", "pre-training", "probe"))
    parser.add_argument("--out", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out:
        probe([*PROBE, "--out", options.out])
        return
    me = [sys.executable, "-m", "tests.benchmarks.profile"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for work in ("embedding", "fine-tuning", "pre-training"):
        if options.only == work:
            print(train_and_embed(work, options.clips))
        elif options.only is None:  # in a process of its own, since the functions stay timed
            subprocess.run([*me, "--clips", str(options.clips), "--only", work], env=environment, check=True)  # fmt: skip
    if options.only in (None, "probe"):
        with tempfile.TemporaryDirectory() as folder:
            environment["LAPE_BENCH_HOME"] = f"{folder}/home"
            for run in ("cold", "cached"):
                done = subprocess.run([*me, "--out", f"{folder}/{run}"], env=environment, check=True, capture_output=True, text=True)  # fmt: skip
            print(done.stdout[done.stdout.index("| cached probe") :])


if __name__ == "__main__":
    main()
