"""Time the same commands with two installed versions of lape_bench, side by side.

    python -m tests.benchmarks.versions BEFORE/bin/python AFTER/bin/python

Both get the same generated recordings (16 kHz, WAV files). In each round, every command runs as a whole process on one thread with
one version, then with the other. Prints the shortest processor time of the rounds, their ratio, and the accuracies, which have to be
equal.
"""

import argparse
import os
import shutil
import tempfile
from pathlib import Path

from tests.benchmarks.against_peers import generate, run

TASK = "tones-in-noise"


def commands(width: int, steps: int, precision: str) -> dict[str, list[str]]:
    """Return the commands by what they show, in the order in which they run."""
    of_width = ["--set", f"width={width}", "--task", TASK, "--out", "out", "-q"]
    of_width += ["--precision", precision]
    probe = ["run", "--system", "supervised", "--protocol", "linear", *of_width]
    tuning = ["run", "--system", "supervised", *of_width, "--set", "finetune.epochs=1"]
    upstream = ["run", "--system", "delores-m", "--protocol", "linear", *of_width]
    return {
        "preparing": ["data", "prepare", TASK, "-q"],
        "linear probe, cold": probe,
        "linear probe, embeddings cached": probe,
        "fine-tuning, 1 step": [*tuning, "--set", "finetune.min_steps=1"],
        f"fine-tuning, {steps} steps": [*tuning, "--set", f"finetune.min_steps={steps}"],
        "pre-training, 1 epoch, and probe": [
            *[*upstream, "--set", "pretrain.epochs=1"],
            *["--set", "pretrain.min_steps=1"],
        ],
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pythons", nargs=2, metavar="PYTHON")
    parser.add_argument("--clips", type=int, default=3000)
    parser.add_argument("--width", type=int, default=512, help="d of AudioNTT")
    parser.add_argument("--steps", type=int, default=200, help="of fine-tuning")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto", help="of both versions, as bench run has it")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1"}
    times: dict[tuple[str, str], list[float]] = {}
    results: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for _ in range(options.rounds):
            for python in options.pythons:
                folder = Path(temporary) / "run"
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                os.environ["LAPE_BENCH_HOME"] = str(folder / "home")
                bench = [python, "-m", "lape_bench"]
                run([*bench, "tasks", "new", TASK, "--from", str(generate(folder, options.clips))], folder)  # fmt: skip
                for name, arguments in commands(
                    options.width, options.steps, options.precision
                ).items():
                    shutil.rmtree(folder / "out", ignore_errors=True)
                    _, processor, result = run([*bench, *arguments], folder)
                    times.setdefault((name, python), []).append(processor)
                    results.setdefault(name, []).append(result.removeprefix("accuracy "))
    print("| | before | after | ratio | accuracy |\n|---|---:|---:|---:|---|")
    for name, accuracies in results.items():
        before, after = (min(times[name, python]) for python in options.pythons)
        distinct = ", ".join(dict.fromkeys(accuracies))
        print(f"| {name} | {before:.1f} | {after:.1f} | {after / before:.2f} | {distinct} |")


if __name__ == "__main__":
    main()
