"""Fixtures: a cache of its own for every test, small audio, and the real recordings where they are."""

import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings

from lape_bench.conformance import check
from lape_bench.conformance.harness import CLIPS_A_CLASS, CheckData, load_check_data
from lape_bench.core.paths import home
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.catalog import load_card
from lape_bench.data.prepare import prepare
from lape_bench.plugins import single_file
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.system import LabeledClips, RunContext

REAL_AUDIO = Path(
    os.environ.get("LAPE_BENCH_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
)
REAL_ARCHIVES = {
    "asc-keywords": "asc-mini.zip",
    "asc-speaker": "asc-mini.zip",
    "esc10": "esc10.zip",
    "fsdd-digits": "fsdd.zip",
}
SILENT_PROGRESS = Progress(quiet=True)

# The same examples in every run, and no time limits: they fail on a busy machine. `settings(max_examples=...)` inherits this.
settings.register_profile(
    "untimed",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")


# The files with the longest tests, the longest first.
LONGEST = ("test_ray_engine.py", "test_check.py", "test_distributed.py", "test_types.py")


@pytest.hookimpl(trylast=True)  # when all tests that do not run are left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have every worker of pytest-xdist start with slow tests, and end with quick ones.

    A worker starts with its share of the list, in order. One that has finished takes over tests from the end of
    another's share: quick ones, so that all workers end at the same time. The slow tests of a file stay together, since
    they may share a fixture.
    """
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    slow: dict[Path, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("slow"):
            slow.setdefault(item.path, []).append(item)
    files = sorted(slow.values(), key=_rank)
    quick = iter([item for item in items if not item.get_closest_marker("slow")])
    shares: list[pytest.Item] = []
    for worker in range(workers):
        first = [item for file in files[worker::workers] for item in file]
        size = (len(items) - len(shares)) // (workers - worker)  # as `--dist worksteal` divides
        shares += [*first, *islice(quick, max(0, size - len(first)))]
    items[:] = [*shares, *quick]


def _rank(items: list[pytest.Item]) -> int:
    """Return the place of a file's slow tests among all."""
    name = items[0].path.name
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def pytest_collection_finish() -> None:
    """Leave what is imported out of garbage collections, each of which would go through all of it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for this test alone."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("LAPE_BENCH_HOME", str(folder))
    return folder


@pytest.fixture(autouse=True)
def no_plug_in_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Python forgets the folders of plug-ins of a single file, and the modules from this test's folder."""
    for name, empty in (("_folders", []), ("_imported_as", {}), ("_codes", {})):
        monkeypatch.setattr(single_file, name, empty)
    monkeypatch.setattr(SYSTEMS, "_classes", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = dict(sys.modules)
    yield
    for name, module in [*sys.modules.items()]:
        # To ask thousands of modules for their files takes long.
        new = before.get(name) is not module
        if new and (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture(scope="session")
def synthetic_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the synthetic task is prepared; read only."""
    folder = tmp_path_factory.mktemp("synthetic")
    before = os.environ.get("LAPE_BENCH_HOME")
    os.environ["LAPE_BENCH_HOME"] = str(folder)
    try:
        prepare(load_card("synthetic-sounds"), None, SILENT_PROGRESS)
    finally:
        if before is None:
            del os.environ["LAPE_BENCH_HOME"]
        else:
            os.environ["LAPE_BENCH_HOME"] = before
    return folder


@pytest.fixture
def synthetic(synthetic_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use the shared cache folder in which the synthetic task is prepared."""
    monkeypatch.setenv("LAPE_BENCH_HOME", str(synthetic_home))
    assert home() == synthetic_home
    return synthetic_home


def own_home(folder: Path, synthetic_home: Path) -> Path:
    """Make a cache folder in which the synthetic task is prepared and no artifact is kept."""
    folder.mkdir()
    for room in ("data", "manifests", "store"):
        (folder / room).symlink_to(synthetic_home / room)
    return folder


@pytest.fixture
def own_artifacts(synthetic_home: Path, cache: Path) -> Path:
    """The test's own cache folder, in which the synthetic task is prepared and no artifact is kept."""
    return own_home(cache, synthetic_home)


@pytest.fixture
def brief_check(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Check systems on half the clips, cut to 0.4 s, and on shorter windows, of which a clip still has two.

    Returns:
        Settings by which fine-tuning learns in few steps.
    """
    for side, clips in CLIPS_A_CLASS.items():
        monkeypatch.setitem(CLIPS_A_CLASS, side, clips // 2)

    def cut(labeled: LabeledClips) -> LabeledClips:
        clips = labeled.clips
        lengths = np.minimum(clips.lengths, round(0.4 * clips.rate))
        return replace(labeled, clips=replace(clips, lengths=lengths, key=f"{clips.key} cut"))

    def shorter_clips(rate: int, progress: Progress) -> CheckData:
        data = load_check_data(rate, progress)
        return CheckData(cut(data.train), cut(data.validation), cut(data.test))

    monkeypatch.setattr(check, "load_check_data", shorter_clips)
    shorter = check.target_task().model_copy(update={"window_seconds": 0.25})
    monkeypatch.setattr(check, "target_task", lambda: shorter)
    return {"finetune": {"epochs": 3, "min_steps": 1, "batch_size": 8, "learning_rates": [3e-3]}}


@pytest.fixture
def progress() -> Progress:
    return SILENT_PROGRESS


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def context(tmp_path: Path) -> RunContext:
    """A run on the CPU in float32, with a work folder of its own."""
    device = torch.device("cpu")
    work = tmp_path / "work"
    work.mkdir()
    return RunContext(
        device, "float32", Seeds(0, "test"), SILENT_PROGRESS, work, StageProfiler(device)
    )


@pytest.fixture
def write_clip() -> Callable[..., Path]:
    """Write a short noise clip; two seeds give two contents."""

    def write(
        path: Path, seed: int = 0, seconds: float = 0.3, rate: int = 8000, **how: str
    ) -> Path:
        noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * rate))
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, noise.astype(np.float32), rate, **how)
        return path

    return write


@pytest.fixture(scope="session")
def real_audio() -> Path:
    """Folder of the real recordings."""
    if not (REAL_AUDIO / "asc-mini.zip").is_file():
        pytest.skip(f"no real recordings: set LAPE_BENCH_TEST_DATA, or put them at {REAL_AUDIO}")
    return REAL_AUDIO


@pytest.fixture(scope="session")
def real_home(real_audio: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which the real recordings are prepared, once for all workers; read only."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    home, done = folder / "real", folder / "real.done"
    with FileLock(folder / "real.lock"):
        if not done.exists():
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LAPE_BENCH_HOME", str(home))
                for task, archive in REAL_ARCHIVES.items():
                    prepare(load_card(task), real_audio / archive, SILENT_PROGRESS)
            done.touch()
    return home


@pytest.fixture
def real_recordings(real_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use the shared cache folder in which the real recordings are prepared."""
    monkeypatch.setenv("LAPE_BENCH_HOME", str(real_home))
    return real_home


@pytest.fixture(autouse=True)
def _no_messages_of_other_tests() -> Iterator[None]:
    """What a command has set up to print messages ends with the test."""
    logger = logging.getLogger("lape_bench")
    yield
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    """One thread a test process: workers share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
