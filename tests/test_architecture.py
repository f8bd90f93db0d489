"""Imports run one way, plug-ins know the harness only, and listings stay light."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lape_bench.records import Cell, RunRecord, write_record

ROOT = Path(__file__).parents[1]
LAYERS = [
    ["errors"],
    [
        "config",
        "cores",
        "paths",
        "ranks",
        "seeding",
        "metrics",
        "clusters",
        "environment",
        "memory",
        "imports",
        "inspection",
        "sweep.schedule",
    ],
    ["single_file"],
    ["draws", "registry", "progress", "data.audio", "records", "features"],
    ["predictions"],
    [
        "report.table",
        "report.wording",
        "data.pins",
        "data.synthesis",
        "task",
        "store",
        "artifacts",
        "costs",
        "scaffold",
    ],
    [
        "data.class_folders",
        "data.clip_table",
        "data.datasheet",
        "data.draw",
        "data.twin",
        "data.near_duplicates",
        "data.manifest",
        "data.download",
        "data.sources",
        "batches",
        "audit",
    ],
    ["catalog", "data.fetch", "data.inventory", "splits", "data.verify", "system"],
    [
        "data.gather",
        "data.lock",
        "data.new_task",
        "report.frame",
        "report.latex",
        "report.paper",
        "report.published",
        "report.significance",
        "report.show",
        "report.verification",
        "report.merging",
    ],
    ["report.names"],
    [
        "report.figures.style",
        "data.prepare",
        "report.alignment",
        "report.average_ranks",
        "report.label_curve",
    ],
    [
        "report.ranks",
        "report.figures.confusion",
        "report.figures.critical_difference",
        "report.figures.embedding_map",
        "report.figures.learning_curves",
    ],
    ["report.leaderboard"],
    [
        "report.pair",
        "report.paper_cells",
        "report.page",
        "report.figures.cost",
        "report.figures.label_fractions",
    ],
    ["report.paper_tables", "report.compare"],
    ["report.comparison_text"],
    ["corpus", "device"],
    ["learning.folded_norm", "learning.cuda_graph"],
    ["learning.shared_norm"],
    ["learning.encoders", "learning.heads", "learning.augment", "learning.weights"],
    [
        "learning.clustering",
        "learning.momentum",
        "learning.multiscale_transformer",
        "learning.normalised_mse",
        "learning.pairs",
        "learning.k_mix",
    ],
    ["learning.barlow_twins", "learning.contrast"],
    ["learning.inference", "learning.training"],
    ["learning.classify", "learning.probe", "learning.embeddings", "learning.pretrain"],
    ["learning.downstream", "report.embedded_clips"],
    ["learning.adapter"],
    ["learning.layered_transformer"],
    ["learning.door", "learning.spectrogram"],
    ["learning.upstream"],
    ["learning.ntt"],
    ["learning.momentum_contrast"],
    ["runner", "pretraining"],
    ["conformance.claims"],
    ["conformance.bench", "conformance.devices"],
    ["conformance.encoder", "conformance.trained"],
    ["sweep.grid", "sweep.attempt", "sweep.node", "sweep.desk", "check"],
    ["sweep.engine", "sweep.view"],
    ["sweep.local", "sweep.on_ray", "sweep.on_slurm"],
    ["sweep.choice"],
    ["cli.options"],
    ["cli.reports", "cli.results", "cli.data", "cli.tasks", "cli.systems", "cli.artifacts"],
    ["cli.runs", "cli.comparisons", "cli.figures"],
    ["cli.app"],
]
CELLS = ROOT / "results" / "boards" / "unfused_cells.csv"
RANK = {module: rank for rank, layer in enumerate(LAYERS) for module in layer}
FOR_PLUGINS = (
    "system",
    "artifacts",
    "draws",
    "features",
    "batches",
    "store",
    "config",
    "errors",
    "seeding",
    "learning.",
)
PLUG_INS = ("tasks", "baselines", "unfused")
TEMPLATE = "lape_bench/templates/system/src/my_encoder"
FOR_TASKS = ("task", "errors", "seeding", "config")


def harness_files() -> dict[str, Path]:
    package = ROOT / "lape_bench"
    return {
        ".".join(path.relative_to(package).with_suffix("").parts): path
        for path in sorted(package.rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
        and package / "templates" not in path.parents
    }


def imported(path: Path) -> Iterator[str]:
    """Modules of the project that a file imports, without the package's name."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("lape_bench")
        ):
            base = node.module.removeprefix("lape_bench").removeprefix(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".removeprefix(".")
                yield full if full in RANK else base
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("lape_bench."):
                    yield alias.name.removeprefix("lape_bench.")


@pytest.mark.parametrize("module", harness_files())
def test_a_module_imports_only_from_the_layers_below_it(module: str) -> None:
    assert module in RANK, f"give {module} a place in LAYERS"
    for other in imported(harness_files()[module]):
        if other:  # the package itself holds the version alone
            assert RANK[other] < RANK[module], f"{module} imports {other}"


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("baselines", FOR_PLUGINS),
        ("unfused", FOR_PLUGINS),
        ("tasks", FOR_TASKS),
        (TEMPLATE, FOR_PLUGINS),
    ],
    ids=str,
)
def test_a_plug_in_room_knows_the_harness_s_contracts_alone(
    room: str, allowed: tuple[str, ...]
) -> None:
    for path in sorted((ROOT / room).glob("*.py")):
        for other in imported(path):
            assert other.startswith(allowed), f"{path.name} imports {other}"


def test_the_harness_names_no_plug_in() -> None:
    for module, path in harness_files().items():
        rooms = [name for name in imported(path) if name.split(".")[0] in PLUG_INS]
        assert not rooms, f"{module} imports {rooms}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["tasks"],
        ["tasks", "show", "esc10"],
        ["tasks", "new", "birds", "--from", "empty"],
        ["systems"],
        ["systems", "new", "mine"],
        ["report", "--out", "empty"],
        ["merge", "into", "empty"],
        ["report", "--paper", "unfused", "--suite", "open", "--out", str(CELLS)],
        ["ranks", "--out", "empty"],
        ["compare", "s", "t", "--task", "u", "--out", "empty"],
        ["report", "--out", "cells.csv", "--html", "page.html"],
        ["figure", "parameters", "--out", "cells.csv", "--file", "a.png"],
        ["figure", "confusion", "cell", "--file", "a.png"],
        ["show", "cell"],
        ["artifacts", "list"],
        ["artifacts", "prune"],
    ],
    ids=" ".join,
)
def test_listings_and_reports_do_not_import_torch(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copy(ROOT / "results" / "boards" / "unfused_cells.csv", tmp_path / "cells.csv")
    cell = Cell(system="s", task="t", protocol="linear")
    record = RunRecord(cell=cell, identity="0", settings={}, system_version=1, status="failed")
    write_record(tmp_path / "cell", record)
    program = (
        "import sys; from lape_bench.cli import app as cli; sys.argv = ['bench', *sys.argv[1:]]\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "sys.exit(3 if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
