"""One record for the terminal: score, stages and their cost, curves, clusters, artifacts."""

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from lape_bench.core.config import flatten
from lape_bench.core.errors import UserError
from lape_bench.records.record import RECORD, RunRecord, read_record
from lape_bench.report.formatting import count, known_count, percent

BARS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 24  # characters
MOST_NAMED = 3  # records in an error


def find_record(path: Path) -> RunRecord:
    """Read the record at `path`; see `find_folder`."""
    return read_record(find_folder(path))


def find_folder(path: Path) -> Path:
    """Return the folder of a record, given that folder, its `record.json`, or a folder around it.

    Raises:
        UserError: the path holds no record, or several.
    """
    if path.is_file() and (path.parent / RECORD).is_file():
        return path.parent
    records = sorted(path.rglob(RECORD)) if path.is_dir() else []
    if not records:
        raise UserError(
            f"{path} holds no record",
            allowed="a cell's folder, or the record.json in it",
            next_step="'bench run' makes one; it lies below --out, which is 'results' by default",
        )
    if len(records) > 1:
        examples = ", ".join(str(record.parent) for record in records[:MOST_NAMED])
        raise UserError(
            f"{path} holds {len(records)} records", next_step=f"name one, such as {examples}"
        )
    return records[0].parent


def record_view(record: RunRecord) -> Group:
    """Return a record as text and tables that rich can print."""
    parts: list[Any] = [Text(record.cell.title), _facts(record)]
    if record.stages:
        parts += ["", _stages(record)]
    if record.artifacts:
        parts += ["", _artifacts(record)]
    if record.curves:
        parts += ["", _curves(record)]
    if record.diagnosis:
        parts += ["", *map(Text, _diagnosis(record.diagnosis))]
    return Group(*parts)


def _facts(record: RunRecord) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in (_result(record) | _origin(record)).items():
        if text:
            table.add_row(name, Text(text))
    return table


def _result(record: RunRecord) -> dict[str, str]:
    rows: dict[str, str] = {}
    if record.status == "failed":
        rows["failed"] = record.error or "for an unknown reason"
    scores = record.metrics.items()
    rows["scores"] = ", ".join(f"{name.replace('_', ' ')} {percent(v)} %" for name, v in scores)
    if record.task:
        rows["clips"] = ", ".join(f"{side} {count:,}" for side, count in record.task.clips.items())
        rows["data"] = f"{record.task.data}, manifest {record.task.manifest_hash[:12]}"
    if record.parameters:
        counts = record.parameters.model_dump().items()
        rows["parameters"] = ", ".join(f"{name} {known_count(count)}" for name, count in counts)
    selection = record.selection.items()
    rows["selection"] = ", ".join(f"{choice} by {how}" for choice, how in selection)
    if record.validation is not None and record.task:
        metric = record.task.metric.replace("_", " ")
        rows["validation"] = f"{metric} {percent(record.validation)} %"
    return rows


def _origin(record: RunRecord) -> dict[str, str]:
    """Return what the result was computed from: settings, provenance, machine and time."""
    changed = flatten(record.cell.settings).items()
    environment = record.environment
    machine = [environment.get(key, "") for key in ("device", "precision")]
    machine += [f"{environment['threads']} threads"] if "threads" in environment else []
    machine.append(f"torch {environment.get('torch', '?')}")
    machine.append(f"commit {environment.get('commit', '?')[:12]}")
    return {
        "settings": ", ".join(f"{key}={value}" for key, value in changed) or "defaults",
        "provenance": "; ".join(record.provenance.values()),
        "machine": ", ".join(filter(None, machine)),
        "finished": record.finished_at,
        "resumed": f"{count(record.resumed, 'time')} after a kill" if record.resumed else "",
    }


def _stages(record: RunRecord) -> Table:
    table = _table("stage", ("seconds", "right"), ("peak MiB", "right"))
    for stage in record.stages:
        table.add_row(Text(stage.name), f"{stage.seconds:.1f}", f"{stage.peak_memory_mib:,.0f}")
    return table


def _artifacts(record: RunRecord) -> Table:
    table = _table("artifact", ("hash", "left"), ("seconds", "right"), ("", "left"))
    for artifact in record.artifacts:
        origin = "found in the cache" if artifact.found else "computed"
        table.add_row(
            Text(artifact.kind), Text(artifact.hash[:12]), f"{artifact.seconds:.1f}", origin
        )
    return table


def _curves(record: RunRecord) -> Table:
    numbers = [(name, "right") for name in ("first", "last")]
    table = _table("curve", ("epochs", "right"), ("value", "left"), *numbers, ("shape", "left"))
    for stage, rows in record.curves.items():
        names = dict.fromkeys(name for row in rows for name in row if name != "epoch")
        for number, name in enumerate(names):
            values = [row[name] for row in rows if name in row]
            head = (Text(stage), str(len(rows))) if number == 0 else ("", "")
            ends = (f"{values[0]:.4g}", f"{values[-1]:.4g}")
            table.add_row(*head, Text(name.replace("_", " ")), *ends, sparkline(values))
    return table


def _diagnosis(diagnosis: dict[str, float | tuple[int, ...]]) -> Iterable[str]:
    sizes = diagnosis.get("cluster_sizes")
    if isinstance(sizes, tuple) and sizes:
        empty = sum(size == 0 for size in sizes)
        yield (
            f"clusters: {len(sizes)}, of {min(sizes)} to {max(sizes)} clips (median "
            f"{statistics.median(sizes):g}), {empty or 'none'} empty"
        )
    for name, value in diagnosis.items():
        if not isinstance(value, tuple):
            yield f"{name.replace('_', ' ')}: {value:.3f}"


def sparkline(values: Sequence[float]) -> str:
    """Draw values as bars between their lowest and highest; a value that is not finite is a gap."""
    bars = min(len(values), CURVE_WIDTH)
    picked = [values[round(k * (len(values) - 1) / max(bars - 1, 1))] for k in range(bars)]
    finite = [value for value in picked if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((v - low) * scale)] if math.isfinite(v) else " " for v in picked)


def _table(first: str, *columns: tuple[str, Any]) -> Table:
    """Return an empty table; a column is a heading and its justification."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)
    return table
