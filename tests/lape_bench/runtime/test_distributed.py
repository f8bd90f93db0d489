"""Two processes that share every batch take the steps that one takes alone."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.core.seeding import Seeds
from lape_bench.data.audio_store import Clips
from lape_bench.learning.augmentations.views import Views
from lape_bench.learning.systems.pretrained_system import load_upstream
from lape_bench.learning.training.pretrain import PretrainConfig, pretrain
from lape_bench.runtime.artifacts import cache, list_artifacts
from lape_bench.runtime.batch_random import BatchRandom
from lape_bench.runtime.distributed import (
    ALONE,
    ProcessGroup,
    is_main_process,
    join_process_group,
)
from lape_bench.runtime.profiling import StageProfiler
from lape_bench.system import RunContext
from tests.baselines.test_upstreams import UPSTREAMS
from tests.lape_bench.conftest import Bench
from tests.lape_bench.runtime.distributed_program import learn

PROGRAM = Path(__file__).with_name("distributed_program.py")
TWO = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0")  # fmt: skip


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What every upstream has after a few steps, alone and shared."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("alone", "shared", "resumed")}
    for name in UPSTREAMS:
        learn(name, folders["alone"], 0, ALONE)
    # Each run starts from its folder alone, so one that was stopped goes on as in new processes.
    # The first is stopped within an epoch, the second after it.
    runs = [f"{folders['shared']}=0", *[f"{folders['resumed']}={last}" for last in (2, 2, 0)]]
    program = [sys.executable, *TWO, str(PROGRAM), os.pathsep.join(runs), *UPSTREAMS]
    subprocess.run(program, check=True, cwd=PROGRAM.parents[2])
    return folders


def content(folder: Path, system: str, rank: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / f"{system}-{rank}.pt")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("system", UPSTREAMS)
def test_two_processes_learn_what_one_does(system: str, learned: dict[str, Path]) -> None:
    alone, shared = (content(learned[name], system) for name in ("alone", "shared"))
    for ours, theirs in zip(shared["curve"], alone["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-2)
    assert_close(shared["bank"], alone["bank"])
    assert shared["after"].keys() == alone["after"].keys()
    for name, after in alone["after"].items():
        # What rounding moves a little, ReLU may move more; a gradient or a statistic of half the batch is far off.
        moved = (after - alone["before"][name]).double().norm()
        apart = (after - shared["after"][name]).double().norm()
        assert apart <= 0.05 * moved + 1e-6, (
            name
        )  # a bias before batch norm moves by rounding alone


@pytest.mark.slow
@pytest.mark.parametrize("system", UPSTREAMS)
def test_both_hold_the_same_to_the_byte(system: str, learned: dict[str, Path]) -> None:
    first, second = (content(learned["shared"], system, rank) for rank in (0, 1))
    assert first["curve"] == second["curve"]
    for name, tensor in first["after"].items():
        assert torch.equal(tensor, second["after"][name]), name
    assert torch.equal(first["bank"], second["bank"])


@pytest.mark.slow
@pytest.mark.parametrize("system", UPSTREAMS)
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_that_were_stopped_go_on_and_end_with_the_same_bytes(
    system: str, rank: int, learned: dict[str, Path]
) -> None:
    undisturbed, resumed = (content(learned[name], system, rank) for name in ("shared", "resumed"))
    assert undisturbed["curve"] == resumed["curve"]
    for name, tensor in undisturbed["after"].items():
        assert torch.equal(tensor, resumed["after"][name]), name


@pytest.mark.parametrize(
    ("rows", "size", "most"), [(48, 2, 16), (50, 3, 12), (7, 4, 8), (101, 4, 32), (7, 3, 6)]
)
def test_ranks_deal_every_batch_out_evenly_and_leave_fewer_rows_than_there_are_ranks(
    rows: int, size: int, most: int
) -> None:
    order = torch.randperm(rows)
    process_group = [stand_in(rank, size) for rank in range(size)]
    batches = process_group[0].batches(order, -(-rows // most))
    assert size <= min(map(len, batches)) <= max(map(len, batches)) <= most
    assert len({len(batch) for batch in batches}) <= 2
    assert torch.equal(torch.cat(batches), order[: rows - rows % size])
    for batch in batches:
        dealt = torch.stack([each.local_rows(batch) for each in process_group])
        assert torch.equal(dealt.T.flatten(), batch)


def test_ranks_draw_together_what_one_draws_alone() -> None:
    def drawn(rank: int, size: int) -> list[torch.Tensor]:
        random = BatchRandom(torch.Generator().manual_seed(0), stand_in(rank, size))
        rows = 12 // size
        return [
            random.uniform(2, rows),
            random.uniform(rows),
            random.integers(9, rows),
            random.distinct(5, 3),
        ]

    alone = drawn(0, 1)
    for rank in range(3):
        *shared, some = drawn(rank, 3)
        for ours, theirs in zip(shared, alone[:-1], strict=True):
            assert torch.equal(ours, theirs[..., rank::3])
        assert torch.equal(some, alone[-1])


def stand_in(rank: int, size: int) -> ProcessGroup:
    process_group = ProcessGroup()
    process_group.rank, process_group.size = rank, size
    return process_group


PRETRAIN = [
    "pretrain", "--corpus", "synthetic-sounds", "--system", "simclr", "--device", "cpu",
    "--precision", "float32", "--set", "width=8", "--set", "pretrain.window_seconds=0.2", "--epochs", "1",
]  # fmt: skip


@pytest.mark.slow
def test_two_processes_keep_an_upstream_once_and_find_it(learned: dict[str, Path]) -> None:
    for rank in (0, 1):
        assert torch.load(learned["shared"] / f"kept-{rank}.pt") == [True, False]
    kinds = [info.kind for info in list_artifacts(learned["shared"] / "artifacts")]
    assert kinds == ["upstream"]


@pytest.mark.slow
def test_an_upstream_of_two_processes_is_kept_once_and_found_by_one(
    own_artifacts: Path, bench: Bench
) -> None:
    command = [sys.executable, *TWO, "-m", "lape_bench", *PRETRAIN]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.count("pre-trained in") == 1
    assert "found in the cache" in bench(*PRETRAIN)[1]
    assert [info.kind for info in list_artifacts(cache())] == ["upstream"]


def test_a_cell_is_refused_to_several_processes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "a run", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    code, _, error = bench("run", "--device", "cpu")
    assert code == 2
    assert "a cell is run by one" in error


@pytest.mark.parametrize(
    ("device", "said"), [("cuda:1", "cannot share the device 'cuda:1'"), ("cuda", "can use 0 GPUs")]
)
def test_processes_without_a_gpu_each_are_refused(
    device: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match=said), join_process_group(torch.device(device)):
        pass


def test_processes_on_several_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a run")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with (
        pytest.raises(UserError, match="several machines"),
        join_process_group(torch.device("cpu")),
    ):
        pass


def test_a_world_size_that_a_cluster_sets_is_not_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "1")
    with join_process_group(torch.device("cpu")) as process_group:
        assert (process_group.size, is_main_process()) == (1, True)


@pytest.mark.parametrize(
    ("batch_size", "clips", "said"),
    [
        (
            16,
            40,
            "batch_size is 16, which 3 processes cannot share evenly; a multiple of 3, at least 6",
        ),
        (3, 40, "batch_size is 3, which 3 processes cannot share evenly"),
        (6, 2, "holds 2 clips, and 3 processes share them"),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(
    batch_size: int, clips: int, said: str, tmp_path: Path
) -> None:
    cpu = torch.device("cpu")
    context = RunContext(
        cpu,
        "float32",
        Seeds(0),
        Progress(quiet=True),
        tmp_path,
        StageProfiler(cpu),
        process_group=stand_in(0, 3),
    )
    some = Clips.pack([str(n) for n in range(clips)], [np.zeros(1600, np.float32)] * clips, 16_000)
    kind = load_upstream("simclr")
    settings = kind.Settings.model_validate({"width": 8})
    objective = kind.build_objective(kind.new_encoder(settings), settings, clips)
    with pytest.raises(UserError, match=said):
        pretrain(
            objective, Views((64, 21), clips), some, PretrainConfig(batch_size=batch_size), context
        )
