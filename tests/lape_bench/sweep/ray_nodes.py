"""A Ray cluster of several nodes on this machine, over the loopback alone."""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# At the machine's own address, which is reached over the loopback: to clients Ray names it so, even for 127.0.0.1.
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
HEAD = {"include_dashboard": False}
VARIABLES = {
    # Ray checks every half second, not every three, whether a node is there: it misses one that was killed within seconds. How
    # long an answer may take stays as it is, for busy machines.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    # On a busy machine a process takes longer than a minute to start.
    "RAY_worker_register_timeout_seconds": "600",
}


@contextmanager
def nodes(environments: Sequence[Mapping[str, str]], **head: int) -> Iterator[Any]:
    """Give a cluster with a node for each environment, whose first, the head, may have other resources."""
    from ray.cluster_utils import Cluster  # an extra

    # Ray takes the handler of SIGTERM and keeps it; what forks later, such as a pool that another test ends so, would hang.
    before = signal.getsignal(signal.SIGTERM)
    # A session's folder holds sockets, whose paths must be short, so it is not the test's own.
    cluster = Cluster()
    try:
        for number, variables in enumerate(environments):
            add_node(cluster, variables, **({} if number else {**HEAD, **head}))
        yield cluster
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, before)


def add_node(cluster: Any, variables: Mapping[str, str], **resources: int) -> Any:
    """Add a node whose cells see these variables."""
    return cluster.add_node(
        **{**NODE, **resources}, env_vars={**os.environ, **VARIABLES, **variables}
    )


def workers() -> dict[int, str]:
    """Return the processes of this test's clusters that run a cell at the moment, by id, with what they are called."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:  # it has just ended
            continue
        if title.startswith("ray::_run_on_node") and _descends_from_here(path.parent):
            found[int(path.parent.name)] = title
    return found


def _descends_from_here(process: Path) -> bool:
    """Return True if a process, by its folder in /proc, was started by this one or by one that this one started."""
    try:
        while (pid := int(process.name)) != os.getpid():
            if pid <= 1:
                return False
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            process = process.with_name(fields[1])  # its parent
    except OSError:  # it has just ended
        return False
    return True
