"""A Ray cluster of several nodes on this machine, over the loopback alone."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# At the machine's own address, which is reached over the loopback: to clients Ray names it so, even for 127.0.0.1.
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@contextmanager
def nodes(environments: Sequence[Mapping[str, str]]) -> Iterator[Any]:
    """Give a cluster with a node for each environment; the sweep starts on the first."""
    from ray.cluster_utils import Cluster  # an extra

    # A session's folder holds sockets, whose paths must be short, so it is not the test's own.
    cluster = Cluster()
    try:
        for number, variables in enumerate(environments):
            head = {} if number else {"include_dashboard": False}
            cluster.add_node(**NODE, **head, env_vars={**os.environ, **variables})
        yield cluster
    finally:
        cluster.shutdown()


def workers() -> dict[int, str]:
    """Return the processes that run a cell at the moment, by id, with what they are called."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = path.read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:  # it has just ended
            continue
        if title.startswith("ray::_run_there"):
            found[int(path.parent.name)] = title
    return found
