"""Run cells as tasks of a Ray cluster, or of Ray on this machine alone."""

import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray
import torch
from filelock import FileLock
from pydantic import Field
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lape_bench.core.errors import UserError, explain_write_errors, summarize_error
from lape_bench.core.paths import home, new_file
from lape_bench.core.progress import Progress, Running
from lape_bench.evaluation.plan import PlannedCell
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.records.record import ERROR, LOCK, RECORD, Cell, RunRecord, cell_folder, read_record
from lape_bench.runtime.artifacts import ArtifactStore, cache
from lape_bench.sweep.engine import (
    Engine,
    EngineSettings,
    WorkerLost,
    dispatch,
    refuse_gpu_of_this_machine,
    require_ready_machines,
    with_resources,
)
from lape_bench.sweep.grid import PlannedItem, Resources, SweepItem
from lape_bench.sweep.machine import GIB, MachineReport, SubmitHost
from lape_bench.sweep.ray_coordinator import Coordinator, RemoteArtifactStore, RemoteProgress
from lape_bench.sweep.ray_progress import ClusterProgressBars
from lape_bench.sweep.run_cell import CellOutcome, collected_warnings, try_run

logger = logging.getLogger(__name__)

POLL_SECONDS, CONNECT_SECONDS = 1.0, 10.0
CARRIED = "carried"  # the folder of records on a machine that sends its records back
LOCAL = "local"


class RaySettings(EngineSettings):
    """How a sweep uses Ray."""

    retries: int = Field(
        2, ge=0, description="how often a cell runs again if its process or machine is lost"
    )
    shared: bool | None = Field(
        None,
        description="whether machines share the records and cache of this one; unset: each machine finds out; false: files are transferred",
    )


class RayEngine(Engine):
    """Runs cells on a Ray cluster.

    Args:
        address: address of the cluster's head, such as "10.0.0.1:6379"; "local" starts Ray on this machine alone.
        settings: how Ray is used.
    """

    def __init__(self, address: str, settings: RaySettings) -> None:
        self.address, self.settings = address, settings

    def run(
        self, items: Sequence[PlannedItem], options: RunOptions, progress: Progress, cells: Running
    ) -> Iterator[tuple[Cell, CellOutcome]]:
        """See `Engine`."""
        tasks = [item.cell.task for item in items]
        with self._joined(options), SubmitHost.this_machine(tasks, options) as submit_host:
            items = [
                PlannedItem(item.planned, self.settings.resources_of(item.resources))
                for item in items
            ]
            require_ready_machines(
                self._machine_reports(submit_host, [item.resources for item in items])
            )
            cluster = _Cluster(
                options, submit_host, self.settings.shared, ClusterProgressBars(progress, cells)
            )
            try:
                yield from dispatch(items, options, cluster, self.settings.retries + 1)
            finally:
                cluster.close()

    def check(
        self, items: Sequence[SweepItem], options: RunOptions, progress: Progress
    ) -> list[MachineReport]:
        """See `Engine`."""
        tasks = [item.cell.task for item in items]
        with self._joined(options), SubmitHost.this_machine(tasks, options) as submit_host:
            return self._machine_reports(
                submit_host, [self.settings.resources_of(item.resources) for item in items]
            )

    def require_available(self, options: RunOptions) -> None:
        """See `Engine`."""
        refuse_gpu_of_this_machine(options)
        try:
            _require_listener(self.address)
        except (OSError, ValueError) as error:
            raise self._no_answer(error) from error

    def _no_answer(self, error: Exception) -> UserError:
        return UserError(
            f"no Ray answers at '{self.address}' ({' '.join(str(error).split())[:200]})",
            allowed="HOST:PORT of a cluster's head",
            next_step="start a cluster with 'ray start --head', or use --on ray for this machine alone",
        )

    @contextmanager
    def _joined(self, options: RunOptions) -> Iterator[None]:
        """Connect to Ray for the duration of the block."""
        self.require_available(options)
        local_options = {"include_dashboard": False} if self.address == LOCAL else {}
        before = signal.getsignal(
            signal.SIGTERM
        )  # Ray replaces this handler and does not restore it
        try:
            ray.init(self.address, log_to_driver=False, logging_level="error", **local_options)
        except (OSError, RuntimeError, ValueError) as error:
            raise self._no_answer(error) from error
        try:
            yield
        finally:
            ray.shutdown()
            signal.signal(signal.SIGTERM, before)

    def _machine_reports(
        self, submit_host: SubmitHost, requests: Sequence[Resources]
    ) -> list[MachineReport]:
        """Return the report of this machine and of each machine of the cluster.

        Raises:
            UserError: no machine has the resources of a cell, so the cell would wait forever.
        """
        nodes = [node for node in ray.nodes() if node["Alive"]]
        _require_resources(nodes, [_resources(r, submit_host.compute.device) for r in requests])
        report = ray.remote(num_cpus=0, max_retries=0)(_report_machine)
        answers = [
            report.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ).remote(submit_host)
            for node in nodes
        ]
        reports = [
            _machine_report(node, answer) for node, answer in zip(nodes, answers, strict=True)
        ]
        # Ray notices only after a while that a machine is gone.
        alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        present = [
            report for node, report in zip(nodes, reports, strict=True) if node["NodeID"] in alive
        ]
        return [submit_host.report(has_device=False), *present]


class _Cluster:
    """Cells as Ray tasks: Ray starts each on a node that has room.

    Args:
        options: how they are run.
        submit_host: the machine that starts the sweep.
        shared: whether machines share its folders; None: each machine finds out.
        bars: show the progress of cells.
    """

    waits_inside = False  # a machine with its own cache does not see an artifact before it is done

    def __init__(
        self,
        options: RunOptions,
        submit_host: SubmitHost,
        shared: bool | None,
        bars: ClusterProgressBars,
    ) -> None:
        self._options = options.model_copy(update={"out": submit_host.out})
        self._submit_host, self._shared, self._bars = submit_host, shared, bars
        node_id = ray.get_runtime_context().get_node_id()
        this_node = NodeAffinitySchedulingStrategy(node_id, soft=False)
        coordinator = ray.remote(num_cpus=0, max_concurrency=32, max_restarts=-1)(Coordinator)
        self._coordinator = coordinator.options(scheduling_strategy=this_node).remote(cache())
        # A process that runs several cells imports torch once, which takes seconds. If a node has several GPUs, each cell gets
        # a new process: torch would keep using the GPU of the first cell, even if Ray assigns another one to the next.
        most_gpus = max(node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"])
        max_calls = 0 if most_gpus <= 1 else 1
        self._run = ray.remote(max_retries=0, max_calls=max_calls)(_run_on_node)
        self._running: dict[Any, tuple[int, PlannedCell]] = {}

    def has_room(self) -> bool:
        return True

    def start(self, number: int, item: PlannedItem) -> None:
        resources = _resources(item.resources, self._options.compute.device)
        options = with_resources(self._options, item.resources, resources["GPU"])
        reference = self._run.options(
            num_cpus=resources["CPU"], num_gpus=resources["GPU"], memory=resources["memory"]
        ).remote(number, item.planned, options, self._submit_host, self._shared, self._coordinator)
        self._running[reference] = number, item.planned

    def ended(self) -> Sequence[tuple[int, CellOutcome | WorkerLost]]:
        references = list(self._running)
        ready, _ = ray.wait(references, num_returns=len(references), timeout=POLL_SECONDS)
        outcomes: list[tuple[int, CellOutcome | WorkerLost]] = []
        for reference in ready:
            number, planned = self._running.pop(reference)
            self._coordinator.note_progress.remote(number, None)
            outcomes.append((number, self._outcome(reference, planned.cell)))
        titles = {number: planned.cell.title for number, planned in self._running.values()}
        with suppress(RayError):  # the coordinator starts again if its process dies
            self._bars.show(titles, ray.get(self._coordinator.progress.remote()))
        return outcomes

    def _outcome(self, reference: Any, cell: Cell) -> CellOutcome | WorkerLost:
        outcome: CellOutcome
        try:
            outcome, files, warnings = ray.get(reference)
        except RayTaskError as error:  # such as a missing package on a machine
            return summarize_error(error.cause)
        except RayError as error:
            return WorkerLost(f"its process or machine was lost ({type(error).__name__})")
        for warning in warnings:
            logger.warning(warning)
        if files is not None and isinstance(outcome, RunRecord):
            try:
                _receive(self._options, cell, outcome, files)
            except UserError as error:
                return str(error)
        return outcome

    def close(self) -> None:
        """Remove the bars."""
        self._bars.close()


def _require_listener(address: str) -> None:
    """Raise an `OSError` or `ValueError` if nothing listens at HOST:PORT; Ray itself would try for minutes."""
    if address != LOCAL:
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _run_on_node(
    number: int,
    planned: PlannedCell,
    options: RunOptions,
    submit_host: SubmitHost,
    shared: bool | None,
    coordinator: Any,
) -> tuple[CellOutcome, dict[str, bytes] | None, list[str]]:
    """Run a cell on a machine of the cluster.

    Returns:
        Its outcome; the content of each file of its record's folder, by name, or None if the machine sees the folder of the
        records; and the warnings.
    """
    submit_host.enter_folder()
    for difference in submit_host.code_differences():  # a machine that has joined since the check
        return difference, None, []
    machine = _machine(socket.gethostname(), ray.get_runtime_context().get_node_id())
    progress = RemoteProgress(coordinator, number, machine)
    artifact_store = (
        None
        if (submit_host.sees_cache() if shared is None else shared)
        else RemoteArtifactStore(coordinator)
    )
    # Ray's own handler raises SystemExit, which would be recorded as a failure of the cell. Without the handler, a killed
    # process counts as lost, and the cell runs again.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sees_records = submit_host.sees_records() if shared is None else shared
    with collected_warnings() as warnings:
        if sees_records:
            outcome, files = try_run(planned, options, progress, artifact_store), None
        else:
            outcome, files = _run_and_carry(planned, options, progress, artifact_store)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # this process stays alive, and others share the GPU
    return outcome, files, warnings


def _run_and_carry(
    planned: PlannedCell,
    options: RunOptions,
    progress: Progress,
    artifact_store: ArtifactStore | None,
) -> tuple[CellOutcome, dict[str, bytes] | None]:
    """Run a cell in a folder of this machine, and take its files out; see `_run_on_node`.

    No record stays: the submit host sends a cell that it has no record of, and a record of an earlier sweep may be of other code.
    """
    options = options.model_copy(update={"out": home() / CARRIED})
    outcome = try_run(planned, options, progress, artifact_store)
    if isinstance(outcome, str):
        return outcome, None
    folder = cell_folder(options.out, planned.cell, outcome.identity)
    paths = [path for path in folder.iterdir() if path.is_file() and path.name != LOCK]
    files = {path.name: path.read_bytes() for path in paths}
    for path in paths:
        path.unlink()
    return outcome, files


def _receive(options: RunOptions, cell: Cell, record: RunRecord, files: dict[str, bytes]) -> None:
    """Write the files that a machine sent back, the record last. A failed record never replaces a finished one."""
    folder = cell_folder(options.out, cell, record.identity)
    with explain_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            if record.status == "failed" and _is_finished(folder):
                return
            for name in sorted(files, key=lambda name: name == RECORD):
                with new_file(folder / name) as path:
                    path.write_bytes(files[name])
            if record.status == "finished":
                (folder / ERROR).unlink(missing_ok=True)


def _is_finished(folder: Path) -> bool:
    try:
        return read_record(folder).status == "finished"
    except UserError:
        return False


def _resources(resources: Resources, device: str) -> dict[str, float]:
    """Return the resources of a cell, by Ray's names; memory in bytes."""
    uses_gpu = ray.cluster_resources().get("GPU", 0) > 0 and device != "cpu"
    gpus = float(uses_gpu) if resources.gpus is None else resources.gpus
    return {"CPU": resources.cores, "GPU": gpus, "memory": int((resources.memory_gib or 0) * GIB)}


def _require_resources(
    nodes: Sequence[dict[str, Any]], requests: Sequence[dict[str, float]]
) -> None:
    """Raise a `UserError` if no node has the resources of a cell, so that the cell would wait forever."""
    for request in {str(request): request for request in requests}.values():
        if not any(_fits(request, node["Resources"]) for node in nodes):
            raise UserError(
                f"no machine of the cluster has the resources that a cell asks for: {_describe(request)}",
                allowed=f"the machines have {'; '.join(_describe(node['Resources']) for node in nodes)}",
                next_step="ask for less by 'resources' in the grid, or by --set cores=..., memory_gib=... or gpus=...",
            )


def _fits(request: dict[str, float], available: dict[str, float]) -> bool:
    return all(amount <= available.get(name, 0) for name, amount in request.items())


def _describe(resources: dict[str, float]) -> str:
    amounts = {name: resources.get(name, 0) for name in ("CPU", "GPU")}
    cores, gpus = f"{amounts['CPU']:g} cores", f"{amounts['GPU']:g} GPUs"
    return f"{cores}, {gpus}, {resources.get('memory', 0) / GIB:.1f} GiB"


def _machine(host: str, node: str) -> str:
    """Name a node of the cluster; a host may have several."""
    return f"{host} ({node[:6]})"


def _report_machine(submit_host: SubmitHost) -> MachineReport:
    """Report a machine of the cluster. The GPUs are left to cells, so this task has none."""
    submit_host.enter_folder()
    return submit_host.report(has_device=False)


def _machine_report(node: dict[str, Any], answer: Any) -> MachineReport:
    """Return a machine's report, with the name and the resources that Ray knows."""
    name = _machine(node["NodeManagerHostname"], node["NodeID"])
    cores, gpus = (int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU"))
    try:
        report: MachineReport = ray.get(answer)
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        problem = f"it cannot run lape_bench ({type(cause).__name__}: {str(cause)[:200]})"
        report = MachineReport(name=name, problems=(problem,))
    return report.model_copy(update={"name": name, "cores": cores, "gpus": gpus})
