"""Start a Ray cluster of several nodes on this machine, over the loopback interface only."""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Nodes have the machine's own address, which is reached over the loopback: Ray gives it to clients even for 127.0.0.1.
NODE = {"object_store_memory": 80 * 2**20}
# Nobody reads its dashboard or the logs that it collects, and no machines are added to it on demand.
HEAD = {
    "num_cpus": 0,
    "include_dashboard": False,
    "include_log_monitor": False,
    "no_monitor": True,
}
VARIABLES = {
    # Ray checks nodes every half second, not every three, so it notices a killed node within seconds. The time limit of an answer
    # stays the same, for busy machines.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    # On a busy machine a process takes longer than a minute to start.
    "RAY_worker_register_timeout_seconds": "600",
    # Ray gives its workers the lowest priority, so beside other tests they would hardly run.
    "RAY_worker_niceness": "0",
}


@contextmanager
def head(**variables: str) -> Iterator[Any]:
    """Yield a cluster of one node, the head, which runs no cells.

    Args:
        variables: environment variables of its processes.
    """
    from ray.cluster_utils import Cluster  # an extra

    # Ray replaces the handler of SIGTERM. If it were not restored, a process pool that a later test ends by SIGTERM would hang.
    before = signal.getsignal(signal.SIGTERM)
    # Ray's folder is not the test's own, since it holds sockets, whose paths must be short.
    cluster = Cluster()
    try:
        _add_node(cluster, variables, **HEAD)
        signal.signal(signal.SIGTERM, before)
        yield cluster
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, before)


@contextmanager
def nodes(cluster: Any, count: int = 1, **variables: str) -> Iterator[None]:
    """Add nodes to a cluster for the duration of the block. Cells on them see these environment variables."""
    added = [_add_node(cluster, variables, num_cpus=1) for _ in range(count)]
    try:
        yield
    finally:
        for node in added:
            if node in cluster.worker_nodes:
                cluster.remove_node(node, allow_graceful=False)


def _add_node(cluster: Any, variables: Mapping[str, str], **resources: int) -> Any:
    return cluster.add_node(**NODE, **resources, env_vars={**os.environ, **VARIABLES, **variables})


def workers() -> dict[int, str]:
    """Return the title of each process of this test's clusters that is running a cell, by process ID."""
    titles = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:  # it has just ended
            continue
        if title.startswith("ray::_run_on_node") and _descends_from_here(path.parent):
            titles[int(path.parent.name)] = title
    return titles


def _descends_from_here(process: Path) -> bool:
    """Return True if a process, given by its folder in /proc, is a descendant of this one."""
    try:
        while (pid := int(process.name)) != os.getpid():
            if pid <= 1:
                return False
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            process = process.with_name(fields[1])  # its parent
    except OSError:  # it has just ended
        return False
    return True
