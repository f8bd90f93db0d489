"""Time a linear probe of `bench run` beside the same by hand, and beside other kits that you have installed.

    python -m tests.benchmarks.against_peers
    python -m tests.benchmarks.against_peers --also "EVAR=/path/to/python /path/to/lineareval.py ... {table}"

All get the same generated recordings (16 kHz, decoded WAV files), the same encoder with random weights, and a cold start: whole
processes, one after the other, in each round. `{table}` in a command stands for a CSV file with the columns `path`, `label` and
`split`. Prints the shortest wall-clock time of the rounds, the processor time with it, and the accuracy; of another kit, the last
line that it printed.
"""

import argparse
import csv
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

RATE, N_CLASSES = 16_000, 20
BENCH = (sys.executable, "-m", "lape_bench")


def generate(folder: Path, n_clips: int) -> Path:
    """Write harmonic tones in noise, whose pitch and decay tell the class; return the table."""
    random_numbers = np.random.default_rng(0)
    seconds = np.arange(RATE) / RATE
    rows = []
    for clip in range(n_clips):
        label = clip % N_CLASSES
        pitch = 110 * 2 ** (label % 10 / 6 + random_numbers.normal(0, 0.03))
        tone = sum(np.sin(2 * np.pi * pitch * k * seconds) / k for k in range(1, 6))
        envelope = np.exp(-seconds * (2 if label < N_CLASSES // 2 else 8))
        audio = 0.1 * tone * envelope + random_numbers.normal(0, 0.1, RATE)
        path = folder / "audio" / f"{clip}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, audio.clip(-1, 1), RATE)
        # 60, 20 and 20 %, each with all classes
        split = ("train", "train", "train", "validation", "test")[clip // N_CLASSES % 5]
        rows.append((f"audio/{clip}.wav", f"class{label}", split))
    table = folder / "clips.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    return table


def run(command: list[str], folder: Path) -> tuple[float, float, str]:
    """Run a command to its end; return its wall-clock and processor seconds, and the last line that it printed."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    took = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{shlex.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    records = [*folder.glob("out/**/record.json")]
    if records:
        accuracy = json.loads(records[0].read_text(encoding="utf-8"))["metrics"]["accuracy"]
        return took, processor, f"accuracy {100 * accuracy:.1f} %"
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return took, processor, lines[-1].strip() if lines else ""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=3000)
    parser.add_argument("--width", type=int, default=512, help="d of AudioNTT")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--also", action="append", default=[], metavar="NAME=COMMAND")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["LAPE_BENCH_HOME"] = str(folder / "home")
        table = generate(folder, options.clips)
        run([*BENCH, "tasks", "new", "tones-in-noise", "--from", str(table)], folder)
        run([*BENCH, "data", "prepare", "tones-in-noise", "-q"], folder)
        width = str(options.width)
        probe = ["run", "--system", "supervised", "--set", f"width={width}"]
        probe += ["--task", "tones-in-noise", "--protocol", "linear", "--out", "out"]
        commands = {
            "`bench run`": [*BENCH, *probe],
            "`bench run`, embeddings cached": [*BENCH, *probe],
            "by hand": [sys.executable, "-m", "tests.benchmarks.by_hand", str(table), width],
        }
        for text in options.also:
            name, _, command = text.partition("=")
            commands[name] = shlex.split(command.replace("{table}", str(table)))
        results: dict[str, list[tuple[float, float, str]]] = {name: [] for name in commands}
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        for _ in range(options.rounds):
            shutil.rmtree(folder / "home" / "artifacts", ignore_errors=True)
            for name, command in commands.items():
                shutil.rmtree(folder / "out", ignore_errors=True)
                results[name].append(run(command, folder))
    print("| | seconds | processor seconds | result |\n|---|---:|---:|---|")
    for name, rounds in results.items():
        took, processor, text = min(rounds)
        print(f"| {name} | {took:.1f} | {processor:.1f} | {text} |")


if __name__ == "__main__":
    main()
