"""Feed damaged and odd files to everything that reads them: each is read, or refused by an error of ours.

    python -m tests.fuzzing 5000             # inputs of each kind; 1,000 by default
    python -m tests.fuzzing 5000 audio       # of one kind
    python -m tests.fuzzing 5000 audio 7     # with another seed

Prints a table of counts, and ends with exit code 1 if an input was mishandled: another exception, or more than
`MOST_SECONDS`. Such an input is kept in the folder `fuzzing-failures`.
"""

import csv
import io
import json
import random
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import yaml

from lape_bench.core.config import apply_pairs, read_yaml, validate
from lape_bench.core.errors import UserError
from lape_bench.core.sealed_json import read_sealed_json, write_sealed_json
from lape_bench.data import audio
from lape_bench.data.catalog import load_card
from lape_bench.data.readers import clip_table
from lape_bench.data.sources import archives
from lape_bench.learning.systems.encoder_system import EncoderConfig
from lape_bench.learning.training.checkpoints import load_tensors, save_tensors
from lape_bench.records.predictions import read_predictions, write_predictions
from lape_bench.records.record import (
    PREDICTIONS,
    RECORD,
    SEAL,
    Cell,
    RunRecord,
    read_record,
    write_record,
)
from lape_bench.results.cells import read_cells, write_cells
from lape_bench.results.load import load_results
from lape_bench.sweep.grid import SweepConfig
from lape_bench.task import Columns, TaskCard

MOST_SECONDS = 20.0
FAILURES = Path("fuzzing-failures")
ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**64 - 1)
ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**400, 1e308, float("nan"), float("inf"), "", " ", "\0", "\x1b[31m", "a" * 10_000, "../..", "é",
    "\udcff", [], {}, [[]], {"": ""}, "2020-01-01", "0x10", "1_000",
)  # fmt: skip
ODD_YAML = (
    "&a [*a]",
    "!!python/object:os.system x",
    "2020-01-01",
    "{<<: 1}",
    "? [a]",
    "- -",
    "\t",
    "%YAML 9",
    "'",
    "{" * 500,
)


class Kind:
    """A kind of input.

    Args:
        suffix: of its files.
        originals: whole files that the inputs are made from.
        read: reads a file; raises one of `refusals`.
        refusals: errors that are right.
        change: makes an input of an original; by default bytes are changed.
    """

    def __init__(
        self,
        originals: Mapping[str, bytes],
        read: Callable[[Path], object],
        refusals: tuple[type[Exception], ...] = (UserError,),
        change: Callable[[bytes, random.Random], bytes] | None = None,
    ) -> None:
        self.originals, self.read, self.refusals = originals, read, refusals
        self.change = change or change_bytes

    def inputs(self, draw: random.Random) -> Iterator[tuple[str, bytes]]:
        """Yield names and contents of inputs, without end."""
        names = sorted(self.originals)
        while True:
            name = draw.choice(names)
            yield name, self.change(self.originals[name], draw)


def change_bytes(content: bytes, draw: random.Random) -> bytes:
    """Change a file in one to four places: bits, bytes, numbers, parts that are lost, repeated or moved."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        size = max(1, len(changed))
        # Half of the changes hit the header.
        place = draw.randrange(min(size, 200) if draw.random() < 0.5 else size)
        how = draw.randrange(7)
        if how == 0 and changed:
            changed[place] ^= 1 << draw.randrange(8)
        elif how == 1 and changed:
            changed[place] = draw.randrange(256)
        elif how == 2:
            number, width = draw.choice(ODD_NUMBERS), draw.choice((2, 4, 8))
            encoded = (number % 256**width).to_bytes(width, draw.choice(("little", "big")))
            changed[place : place + width] = encoded
        elif how == 3:
            del changed[place:]
        elif how == 4:
            del changed[place : place + draw.randint(1, 64)]
        elif how == 5:
            changed[place:place] = draw.randbytes(draw.randint(1, 64))
        else:
            start = draw.randrange(size)
            changed[place:place] = changed[start : start + draw.randint(1, 512)]
    return bytes(changed)


def change_text(content: bytes, draw: random.Random) -> bytes:
    """Change bytes, or put odd text in the place of a line or a word."""
    if draw.random() < 0.3:
        return change_bytes(content, draw)
    lines = content.decode(errors="replace").split("\n")
    for _ in range(draw.randint(1, 3)):
        number = draw.randrange(len(lines))
        words = lines[number].split(draw.choice(" ,:"))
        odd = draw.choice([*ODD_YAML, *map(str, ODD_VALUES)])
        words[draw.randrange(len(words))] = odd
        lines[number] = draw.choice((" ", ",", ": ")).join(words)
        if draw.random() < 0.2:
            lines.insert(number, lines[draw.randrange(len(lines))])
    return "\n".join(lines).encode(errors="surrogateescape")


def change_values(values: Any, draw: random.Random) -> Any:
    """Put odd values in the place of some of those in lists and mappings, or take some away."""
    if draw.random() < 0.03:
        return draw.choice(ODD_VALUES)
    if isinstance(values, dict):
        return {
            (draw.choice(("", "x", key)) if draw.random() < 0.02 else key): change_values(
                value, draw
            )
            for key, value in values.items()
            if draw.random() > 0.01
        }
    return [change_values(value, draw) for value in values] if isinstance(values, list) else values


def change_record(content: bytes, draw: random.Random) -> bytes:
    """Change a record's bytes, or its values, sealed again as whoever writes records could."""
    if draw.random() < 0.3:
        return change_bytes(content, draw)
    values = json.loads(content)
    values.pop("seal")
    body = json.dumps(change_values(values, draw), indent=2).removesuffix("\n}").encode()
    return body + SEAL + f'"{sha256(body).hexdigest()}"\n}}\n'.encode()


def change_card(content: bytes, draw: random.Random) -> bytes:
    """Change a card's text, or its values."""
    if draw.random() < 0.5:
        return change_text(content, draw)
    changed = change_values(yaml.safe_load(content), draw)
    return yaml.safe_dump(changed, allow_unicode=False).encode(errors="surrogateescape")


# --- kinds ------------------------------------------------------------------------------------------------


def archive_kind() -> Kind:
    """ZIP and tar archives, unpacked into the cache."""
    files = {f"a/{n}.wav": random.Random(n).randbytes(300) for n in range(4)}
    originals = {}
    for ending, mode in (
        ("tar", "w"),
        ("tar.gz", "w:gz"),
        ("tar.bz2", "w:bz2"),
        ("tar.xz", "w:xz"),
    ):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as packed:  # type: ignore[call-overload]  # of any mode
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
        originals[f"x.{ending}"] = buffer.getvalue()
    for name, method in (
        ("stored.zip", zipfile.ZIP_STORED),
        ("deflated.zip", zipfile.ZIP_DEFLATED),
    ):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as zipped:
            for member_name, content in files.items():
                zipped.writestr(member_name, content)
        originals[name] = buffer.getvalue()

    def unpack(path: Path) -> None:
        folder = archives.unpack(path, sha256(path.read_bytes()).hexdigest())
        for member in folder.rglob("*"):
            assert member.resolve().is_relative_to(folder.resolve()), "a member left the folder"

    return Kind(originals, unpack)


def audio_kind() -> Kind:
    """Short recordings in every container that libsndfile writes."""
    noise = np.random.default_rng(0).normal(0, 0.1, 1600)
    how = {
        "pcm.wav": ("WAV", "PCM_16"), "float.wav": ("WAV", "FLOAT"), "gsm.wav": ("WAV", "GSM610"),
        "adpcm.wav": ("WAV", "IMA_ADPCM"), "x.flac": ("FLAC", "PCM_16"), "x.ogg": ("OGG", "VORBIS"),
        "x.opus": ("OGG", "OPUS"), "x.mp3": ("MP3", "MPEG_LAYER_III"), "x.aiff": ("AIFF", "PCM_16"),
        "x.au": ("AU", "PCM_16"), "x.w64": ("W64", "PCM_16"), "x.caf": ("CAF", "PCM_16"), "x.rf64": ("RF64", "PCM_16"),
    }  # fmt: skip
    originals = {}
    for name, (container, subtype) in how.items():
        buffer = io.BytesIO()
        soundfile.write(buffer, noise, 8000, format=container, subtype=subtype)
        originals[name] = buffer.getvalue()

    def read(path: Path) -> None:
        samples, rate = audio.read(path)
        assert np.isfinite(samples).all()
        assert rate > 0
        audio.seconds_of(path)

    return Kind(originals, read, (audio.AudioProblem,))


def record_kind() -> Kind:
    """Records with their predictions, as reports read them."""
    scores = np.log(np.full((4, 3), 1 / 3, np.float32))
    folder = Path(tempfile.mkdtemp())
    digest = write_predictions(
        folder, list("wxyz"), np.array([0, 2, 1, 2]), scores, ("a", "b", "c")
    )
    predictions = (folder / PREDICTIONS).read_bytes()
    record = RunRecord(
        cell=Cell(system="s", task="t", protocol="linear", settings={"a": {"b": [1, 0.5]}}),
        identity="0" * 64,
        settings={"a": {"b": [1, 0.5]}},
        system_version=1,
        status="finished",
        metrics={"accuracy": 0.5},
        curves={"fine-tuning": ({"epoch": 1.0, "loss": 0.5},)},
        predictions_sha256=digest,
    )
    write_record(folder, record)

    def read(path: Path) -> None:
        place = path.parent / "record"
        place.mkdir(exist_ok=True)
        (place / RECORD).write_bytes(path.read_bytes())
        (place / PREDICTIONS).write_bytes(predictions)
        load_results([place])  # never raises: what is wrong is a line
        read_record(place)

    return Kind({RECORD: (folder / RECORD).read_bytes()}, read, change=change_record)


def predictions_kind() -> Kind:
    """Predictions whose checksum was made to match."""
    scores = np.log(np.full((40, 3), 1 / 3, np.float32))
    folder = Path(tempfile.mkdtemp())
    write_predictions(
        folder, [f"clip-{n}" for n in range(40)], np.arange(40) % 3, scores, ("a", "b", "c")
    )

    def read(path: Path) -> None:
        place = path.parent / "record"
        place.mkdir(exist_ok=True)
        (place / PREDICTIONS).write_bytes(path.read_bytes())
        record = RunRecord(
            cell=Cell(system="s", task="t", protocol="linear"),
            identity="0" * 64,
            settings={},
            system_version=1,
            status="finished",
            predictions_sha256=sha256(path.read_bytes()).hexdigest(),
        )
        read_predictions(place, record)

    return Kind({PREDICTIONS: (folder / PREDICTIONS).read_bytes()}, read)


def yaml_kind() -> Kind:
    """Cards of tasks, grids of sweeps, and values of `--set`."""
    cards = ["esc10", "fsdd-digits", "synthetic-sounds"]
    originals = {
        f"{name}.card.yaml": yaml.safe_dump(
            load_card(name).model_dump(mode="json", exclude_defaults=True)
        ).encode()
        for name in cards
    }
    originals[
        "x.grid.yaml"
    ] = b"""systems: [supervised, {name: delores-s, settings: {width: 8, pretrain: {epochs: 1}}}]
tasks: [esc10]
protocols: [linear]
seeds: 2
"""

    originals["x.set"] = (
        b"finetune.epochs=3\nfinetune.learning_rates=[0.001, 1e-2]\nlinear.C=[1, 10]\n"
    )

    def read(path: Path) -> None:
        if path.suffix == ".set":
            pairs = path.read_text(errors="surrogateescape").splitlines()
            validate(apply_pairs(pairs), EncoderConfig, "settings")
        else:
            read_yaml(path, SweepConfig if "grid" in path.name else TaskCard)

    return Kind(originals, read, change=change_card)


def table_kind() -> Kind:
    """CSV files of clips, and tables of cells."""
    clips = io.StringIO()
    table = csv.writer(clips)
    table.writerow(["path", "label", "fold", "group", "start_seconds", "seconds"])
    for n in range(6):
        table.writerow([f"{n}.wav", "ab"[n % 2], f"{1 + n % 2}.0", f"speaker, {n}", n, 0.5])
    columns = Columns(fold="fold", group="group", start_seconds="start_seconds", seconds="seconds")
    cells = load_results([CELLS]).cells.head(3)

    def read(path: Path) -> None:
        if "cells" in path.name:
            read_cells(path)
        else:
            clip_table.list_clips(path, columns, path.parent)
            clip_table.column_texts(path)

    originals = {"clips.csv": clips.getvalue().encode(), "cells.csv": write_cells(cells).encode()}
    return Kind(originals, read, change=change_text)


def checkpoint_kind() -> Kind:
    """Checkpoints and notes of ours: no change goes unnoticed."""
    folder = Path(tempfile.mkdtemp())
    save_tensors(folder / "x.pt", {"weight": torch.arange(20.0), "curve": [{"loss": 0.5}]})
    write_sealed_json(folder / "x.json", {"resumed": 1, "stamp": {"torch": "2"}})
    originals = {path.name: path.read_bytes() for path in folder.iterdir()}

    def read(path: Path) -> None:
        if path.suffix == ".json":
            assert read_sealed_json(path) == {"resumed": 1, "stamp": {"torch": "2"}}
            return
        tensors = load_tensors(path, torch.device("cpu"))
        assert path.read_bytes() == originals["x.pt"], tensors

    return Kind(originals, read)


CELLS = Path(__file__).parent / "lape_bench" / "report" / "earlier_cells.csv"
KINDS: dict[str, Callable[[], Kind]] = {
    "archives": archive_kind,
    "audio": audio_kind,
    "records": record_kind,
    "predictions": predictions_kind,
    "YAML": yaml_kind,
    "tables": table_kind,
    "checkpoints": checkpoint_kind,
}


# --- running ----------------------------------------------------------------------------------------------


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise a `TimeoutError` in the block after some seconds."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(name: str, count: int, seed: int, folder: Path) -> tuple[Counter[str], list[str]]:
    """Try inputs of a kind.

    Returns:
        How many were read, refused and mishandled; and a line for each of the last.
    """
    kind, draw = KINDS[name](), random.Random(f"{name} {seed}")
    outcomes, failures = Counter[str](), []
    inputs = kind.inputs(draw)
    for number in range(count):
        file_name, content = next(inputs)
        path = folder / file_name
        path.write_bytes(content)
        try:
            with limited(MOST_SECONDS):
                kind.read(path)
            outcomes["read"] += 1
        except kind.refusals as error:
            outcomes["refused"] += 1
            if "\n" in str(error):
                failures.append(f"{name} {number}: a message of several lines: {str(error)!r}")
        except Exception:
            FAILURES.mkdir(exist_ok=True)
            kept = FAILURES / f"{name}-{seed}-{number}-{file_name}"
            kept.write_bytes(content)
            failures.append(f"{kept}: {traceback.format_exc()}")
    outcomes["mishandled"] = len(failures)
    return outcomes, failures


def main() -> None:
    """See the module."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    names = [sys.argv[2]] if len(sys.argv) > 2 else [*KINDS]
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    print(
        "| kind | inputs | read | refused | mishandled | seconds |\n|---|---:|---:|---:|---:|---:|"
    )
    everything: list[str] = []
    for name in names:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            outcomes, failures = fuzz(name, count, seed, Path(folder))
        everything += failures
        counts = " | ".join(f"{outcomes[key]:,}" for key in ("read", "refused", "mishandled"))
        print(f"| {name} | {count:,} | {counts} | {time.monotonic() - began:.0f} |", flush=True)
    print("\n".join(everything))
    sys.exit(bool(everything))


if __name__ == "__main__":
    main()
