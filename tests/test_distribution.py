"""A wheel holds every file of the product that the tree holds, under one name in site-packages."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = {"lape_bench": "", "tasks": "tasks", "baselines": "baselines", "unfused": "unfused"}
PLACES = {
    **{room: f"lape_bench/{inside}".rstrip("/") for room, inside in ROOMS.items()},
    "results/published": "lape_bench/published",
    "results/reference": "lape_bench/reference",
}
CACHES = {"__pycache__", ".ruff_cache", ".mypy_cache"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel built from a copy of the tree."""
    folder = tmp_path_factory.mktemp("build")
    for name in (*ROOMS, "results/published", "results/reference"):
        shutil.copytree(ROOT / name, folder / name, ignore=lambda _, names: CACHES & set(names))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        "out",
        ".",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (folder / "out").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def test_a_wheel_takes_every_file_of_the_product_along(wheel: set[str]) -> None:
    wanted = {
        f"{inside}/{path.relative_to(ROOT / room).as_posix()}"
        for room, inside in PLACES.items()
        for path in (ROOT / room).rglob("*")
        if path.is_file() and not CACHES & set(path.parts)
    }
    # What is written about a room for people who read the tree.
    notes = {
        "lape_bench/tasks/README.md",
        "lape_bench/published/README.md",
        "lape_bench/reference/README.md",
    }
    assert wanted - notes <= wheel


def test_an_install_adds_one_name(wheel: set[str]) -> None:
    names = {name.partition("/")[0] for name in wheel}
    assert {name for name in names if not name.endswith(".dist-info")} == {"lape_bench"}
