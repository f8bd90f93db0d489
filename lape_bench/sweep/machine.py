"""A machine of a sweep, looked at from itself: what it has, what it lacks, and what it shares with the one that starts the sweep."""

import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import torch
from filelock import FileLock, Timeout

from lape_bench.core.config import Frozen
from lape_bench.core.errors import UserError, explain_write_errors
from lape_bench.core.paths import home
from lape_bench.data import audio_store
from lape_bench.data.catalog import load_card
from lape_bench.data.manifest import load_manifest
from lape_bench.evaluation.runner import RunOptions
from lape_bench.runtime import cpu_cores, environment
from lape_bench.runtime.device import Compute

GIB = 2**30
MARK = ".sweep-"


class MachineReport(Frozen):
    """What a machine says of itself.

    Attributes:
        name: of the machine.
        cores: that a process may use there.
        gpus: that torch sees.
        memory_gib: of the machine.
        free_gib: on the disk of its cache.
        sees_records: whether the folder of the records is the one of the machine that starts the sweep.
        sees_cache: whether the cache is.
        problems: why cells of the sweep would fail or differ there, each in a sentence.
    """

    name: str
    cores: int = 0
    gpus: int = 0
    memory_gib: float = 0.0
    free_gib: float = 0.0
    sees_records: bool = False
    sees_cache: bool = False
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class SweepSite:
    """The machine that starts a sweep, as plain data that goes along to the others.

    Attributes:
        out: its folder of records.
        folder: where it was started, which relative paths of systems and corpora begin at.
        mark: name of a file in `out` and in its cache, by which others tell whether they see the same folders.
        manifests: the tasks of the sweep, each with the hash of its manifest; none where it is not prepared.
        compute: device, precision, threads.
        environment: its code and versions.
    """

    out: Path
    folder: Path
    mark: str
    manifests: Mapping[str, str | None]
    compute: Compute
    environment: Mapping[str, str]

    @classmethod
    @contextmanager
    def here(cls, tasks: Iterable[str], options: RunOptions) -> Iterator["SweepSite"]:
        """Describe this machine; the marks are there during the block."""
        out, mark = options.out.expanduser().absolute(), f"{MARK}{uuid4().hex}"
        manifests = {task: _manifest_hash(task) for task in dict.fromkeys(tasks)}
        with _marked(out / mark), _marked(home() / mark):
            yield cls(out, Path.cwd(), mark, manifests, options.compute, environment.describe())

    def sees_records(self) -> bool:
        """Tell, on any machine, whether the folder of the records is the same there."""
        return (self.out / self.mark).exists()

    def sees_cache(self) -> bool:
        """Tell, on any machine, whether its cache is the same."""
        return (home() / self.mark).exists()

    def enter(self) -> None:
        """Go where the sweep was started, if this machine has that folder."""
        with suppress(OSError):
            os.chdir(self.folder)

    def report(self, has_device: bool = True) -> MachineReport:
        """Look at the machine that this runs on.

        Args:
            has_device: whether this process was given the device that cells would have.
        """
        problems = [*self._lacking(), *self.differing()]
        try:
            with _marked(home() / f"{MARK}{uuid4().hex}"):
                free = shutil.disk_usage(home()).free
            if has_device:
                self.compute.resolve()
        except UserError as error:
            problems.append(str(error))
            free = 0
        return MachineReport(
            name=socket.gethostname(),
            cores=cpu_cores.available(),
            gpus=torch.cuda.device_count(),
            memory_gib=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB,
            free_gib=free / GIB,
            sees_records=self.sees_records(),
            sees_cache=self.sees_cache(),
            problems=tuple(problems),
        )

    def _lacking(self) -> Iterator[str]:
        """Say which tasks are not prepared here, or are so otherwise; a generated one is made when it is needed."""
        for task, expected in self.manifests.items():
            try:
                card = load_card(task)
                if card.data == "synthetic":
                    continue
                manifest = load_manifest(card)
            except UserError as error:
                yield str(error)
                continue
            if expected is not None and manifest.hash != expected:
                yield f"'{task}' was prepared otherwise than where the sweep starts; prepare it from the same source"
            elif not audio_store.is_built(manifest.info.store_key, audio_store.STORE_RATE):
                yield f"the audio of '{task}' is not in the cache; run 'bench data prepare {card.name}' again"

    def differing(self) -> Iterator[str]:
        """Say what code and versions differ; the machine itself may."""
        own = environment.describe()
        for name, expected in self.environment.items():
            if name not in ("machine", "python") and own.get(name) != expected:
                yield f"{name} is {own.get(name)} here and {expected} where the sweep starts; install the same"


def _manifest_hash(task: str) -> str | None:
    try:
        return load_manifest(load_card(task)).hash
    except UserError:
        return None


@contextmanager
def _marked(path: Path) -> Iterator[None]:
    """Have a file that is locked during the block, and remove those that killed sweeps left beside it."""
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for old in path.parent.glob(f"{MARK}*"):
            with suppress(OSError, Timeout), FileLock(old, timeout=0):
                old.unlink()
        lock = FileLock(path)
        lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
