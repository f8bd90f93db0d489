"""Start Slurm with two nodes on this machine, over the loopback interface only.

It needs Debian's packages slurm-wlm and munge.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol")
STARTS_IN_SECONDS = 60.0
CONFIGURATION = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=2
NodeName=node0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cores} State=UNKNOWN
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cores} State=UNKNOWN
PartitionName=loop Nodes=node0,node1 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Return the reason why Slurm cannot run here; empty if it can."""
    lacking = [name for name in PROGRAMS if shutil.which(name) is None]
    if lacking:
        return f"no {', '.join(lacking)} (apt-get install slurm-wlm munge)"
    return "" if os.getuid() == 0 else "slurmd must be started by root"


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """Run a controller and two nodes during the block; yield the environment variables for submitting."""
    # Not the test's own folder: the paths of sockets must be short.
    with TemporaryDirectory(prefix="slurm-") as folder:
        yield from _slurm(Path(folder))


def _slurm(folder: Path) -> Iterator[dict[str, str]]:
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=socket.gethostname(), folder=folder, ports=_free_ports(3), cores=os.cpu_count()
        )
    )
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    files = {"socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    paths = [f"--{option}={folder / name}" for option, name in files.items()]
    munged = ["munged", f"--key-file={key}", *paths, f"--seed-file={folder / 'munged.seed'}"]
    # Without --force, munged refuses a socket in a folder that others may write to.
    started = [subprocess.Popen([*munged, "--foreground", "--force"], stderr=subprocess.DEVNULL)]
    try:
        _until(lambda: (folder / "munge.socket").exists())
        daemons = [
            ["slurmctld", "-D", "-c"],
            ["slurmd", "-D", "-N", "node0"],
            ["slurmd", "-D", "-N", "node1"],
        ]
        for command in daemons:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            started.append(subprocess.Popen(command, env=environment, **quiet))
        _until(lambda: _idle(environment) == 2)
        yield environment
    finally:
        subprocess.run(["scancel", "--user=root"], env=environment, check=False)
        for process in reversed(started):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)
            process.kill()


def _idle(environment: dict[str, str]) -> int:
    """Return the number of idle nodes."""
    command = ["sinfo", "--noheader", "--Node", "--format=%T"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return result.stdout.split().count("idle")


def _until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + STARTS_IN_SECONDS
    while not condition():
        assert time.monotonic() < ends, "Slurm does not start; its logs are beside slurm.conf"
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for bound in sockets:
        bound.bind(("127.0.0.1", 0))
    ports = [bound.getsockname()[1] for bound in sockets]
    for bound in sockets:
        bound.close()
    return ports
