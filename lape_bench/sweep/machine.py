"""A report of each machine of a sweep: what it has, what it lacks, and what it shares with the machine that starts the sweep."""

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
    """What a machine has and lacks.

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
class SubmitHost:
    """The machine that starts a sweep, as plain data that goes along to the others.

    Attributes:
        out: its folder of records.
        folder: where it was started, which relative paths of systems and corpora begin at.
        mark: name of a file in `out` and in its cache, by which other machines find out if they see the same folders.
        manifests: the tasks of the sweep, each with the hash of its manifest; None if it is not prepared.
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
    def this_machine(cls, tasks: Iterable[str], options: RunOptions) -> Iterator["SubmitHost"]:
        """Describe this machine; the mark files exist during the block."""
        out, mark = options.out.expanduser().absolute(), f"{MARK}{uuid4().hex}"
        manifests = {task: _manifest_hash(task) for task in dict.fromkeys(tasks)}
        with _marked(out / mark), _marked(home() / mark):
            yield cls(out, Path.cwd(), mark, manifests, options.compute, environment.describe())

    def sees_records(self) -> bool:
        """Return True, on any machine, if it has the same folder of records."""
        return (self.out / self.mark).exists()

    def sees_cache(self) -> bool:
        """Return True, on any machine, if it has the same cache."""
        return (home() / self.mark).exists()

    def enter_folder(self) -> None:
        """Change to the folder in which the sweep was started, if this machine has it."""
        with suppress(OSError):
            os.chdir(self.folder)

    def report(self, has_device: bool = True) -> MachineReport:
        """Report the machine that this runs on.

        Args:
            has_device: whether this process was given the device that cells would have.
        """
        problems = [*self._task_problems(), *self.code_differences()]
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

    def _task_problems(self) -> Iterator[str]:
        """Name the tasks that are not prepared here, or from other data; a generated task is made when it is needed."""
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

    def code_differences(self) -> Iterator[str]:
        """Name the packages and code whose versions differ from the submit host's."""
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
    """Create a file that is locked during the block, and remove those that killed sweeps left beside it."""
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
