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
    return cluster.add_node(**{**NODE, **resources}, env_vars={**os.environ, **variables})


def workers() -> dict[int, str]:
    """Return the processes that run a cell at the moment, by id, with what they are called."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:  # it has just ended
            continue
        if title.startswith("ray::_run_on_node"):
            found[int(path.parent.name)] = title
    return found
