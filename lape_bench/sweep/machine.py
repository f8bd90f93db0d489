"""Reports of the machines of a sweep: their resources, their problems, and the folders shared with the submit host.

The submit host is the machine that starts the sweep.
"""

import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
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
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.runtime import cpu_cores, environment
from lape_bench.runtime.device import Compute

GIB = 2**30
MARK = ".sweep-"


class MachineReport(Frozen):
    """The resources and problems of a machine.

    Attributes:
        name: host name.
        cores: number of CPU cores that a process may use.
        gpus: number of GPUs that torch finds.
        memory_gib: memory in GiB.
        free_gib: free space on the disk of its cache, in GiB.
        sees_records: whether it sees the submit host's folder of records.
        sees_cache: whether it sees the submit host's cache.
        problems: reasons why cells of the sweep would fail or differ there, each a sentence.
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
    """The machine that starts a sweep, as plain data that is sent to the other machines.

    Attributes:
        out: its folder of records.
        folder: its working folder; relative paths of systems and corpora start there.
        mark: name of a file in `out` and in its cache; a machine that finds the file sees the same folder.
        manifests: the hash of each task's manifest; None if the task is not prepared.
        compute: device, precision, threads.
        environment: commit and versions of packages.
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
        folders = {folder.resolve(): folder for folder in (out, home())}  # perhaps only one
        with ExitStack() as marks:
            for folder in folders.values():
                marks.enter_context(_marked(folder / mark))
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
            has_device: whether this process has the device that cells would get.
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
        """Yield a sentence for each task that is not prepared here, or was prepared from other data.

        Synthetic tasks are left out, since they are generated when they are needed.
        """
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
                yield f"'{task}' was prepared from other data than where the sweep starts; prepare it from the same source"
            elif not audio_store.is_built(manifest.info.store_key, audio_store.STORE_RATE):
                yield f"the audio of '{task}' is not in the cache; run 'bench data prepare {card.name}' again"

    def code_differences(self) -> Iterator[str]:
        """Yield a sentence for each package that has another version than on the submit host, and for another commit."""
        versions = environment.describe()
        for name, expected in self.environment.items():
            if name not in ("machine", "python") and versions.get(name) != expected:
                yield f"{name} is {versions.get(name)} here and {expected} where the sweep starts; install the same version"


def _manifest_hash(task: str) -> str | None:
    try:
        return load_manifest(load_card(task)).hash
    except UserError:
        return None


@contextmanager
def _marked(path: Path) -> Iterator[None]:
    """Create a mark file that is locked during the block, and remove marks that killed sweeps left beside it."""
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
