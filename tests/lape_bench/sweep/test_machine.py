"""Reports of machines, and whether a machine sees the folders of the submit host."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.records.record import Cell
from lape_bench.runtime.device import Compute
from lape_bench.sweep.engine import require_ready_machines
from lape_bench.sweep.grid import SweepItem
from lape_bench.sweep.local_engine import LocalEngine
from lape_bench.sweep.machine import MARK, MachineReport, SubmitHost
from tests.lape_bench.conftest import Bench
from tests.lape_bench.sweep.conftest import options


def marks(folder: Path) -> list[Path]:
    return list(folder.glob(f"{MARK}*"))


def test_a_machine_sees_the_folders_that_it_shares_and_no_others(
    synthetic: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = options(tmp_path)
    with SubmitHost.this_machine(["synthetic-sounds"], own) as submit_host:
        assert submit_host.sees_records()
        assert submit_host.sees_cache()
        monkeypatch.setenv("LAPE_BENCH_HOME", str(cache))
        assert not submit_host.sees_cache()
        moved = dataclasses.replace(submit_host, out=tmp_path / "elsewhere")
        assert not moved.sees_records()
    assert not marks(own.out)
    assert not marks(synthetic)


def test_records_may_lie_in_the_cache(cache: Path, tmp_path: Path) -> None:
    cache.mkdir()
    (tmp_path / "link").symlink_to(cache)
    own = options(tmp_path).model_copy(update={"out": tmp_path / "link"})
    with SubmitHost.this_machine([], own) as submit_host:
        assert submit_host.sees_records()
        assert submit_host.sees_cache()
    assert not marks(cache)


def test_marks_of_killed_sweeps_are_removed_and_marks_of_running_sweeps_stay(
    synthetic: Path, tmp_path: Path
) -> None:
    own = options(tmp_path)
    own.out.mkdir()
    abandoned, locked = (own.out / f"{MARK}{name}" for name in ("abandoned", "locked"))
    abandoned.touch()
    with FileLock(locked), SubmitHost.this_machine([], own):
        assert not abandoned.exists()
        assert locked.exists()


def test_a_report_names_tasks_that_are_missing_or_have_other_data(
    bench: Bench,
    esc_folder: Path,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    write_clip: Callable[..., Path],
) -> None:
    def problems(submit_host: SubmitHost) -> tuple[str, ...]:
        return submit_host.report().problems

    assert bench("data", "prepare", "esc10", "--from", str(esc_folder))[0] == 0
    with SubmitHost.this_machine(["esc10", "synthetic-sounds"], options(tmp_path)) as submit_host:
        assert problems(submit_host) == ()  # a synthetic task is generated when it is needed
        monkeypatch.setenv("LAPE_BENCH_HOME", str(tmp_path / "empty"))
        (lacking,) = problems(submit_host)
        assert "'esc10' is not prepared; run 'bench data prepare esc10" in lacking
        first = next(esc_folder.rglob("1-*.ogg"))
        write_clip(first, 99, rate=16_000, format="OGG", subtype="VORBIS")
        assert bench("data", "prepare", "esc10", "--from", str(esc_folder))[0] == 0
        (other,) = problems(submit_host)
        assert "'esc10' was prepared from other data than where the sweep starts" in other
        monkeypatch.setenv("LAPE_BENCH_HOME", str(cache))
        (cache / "store").rename(cache / "gone")
        (silent,) = problems(submit_host)
        assert "the audio of 'esc10' is not in the cache" in silent


def test_a_report_names_other_versions_and_a_missing_device(
    synthetic: Path, tmp_path: Path
) -> None:
    with SubmitHost.this_machine([], options(tmp_path)) as submit_host:
        other = dataclasses.replace(
            submit_host,
            environment={**submit_host.environment, "torch": "1.0", "machine": "another"},
        )
        (problem,) = other.report().problems
        assert problem.startswith("torch is ")
        assert "1.0 where the sweep starts" in problem
        elsewhere = dataclasses.replace(submit_host, compute=Compute(device="cuda:7"))
        assert "no device 'cuda:7'" in str(elsewhere.report().problems)
        assert elsewhere.report(has_device=False).problems == ()


def test_a_sweep_is_refused_if_a_machine_has_a_problem() -> None:
    good, bad = (
        MachineReport(name="a"),
        MachineReport(name="b", problems=("it is full.", "and old")),
    )
    require_ready_machines([good])
    with pytest.raises(UserError, match="1 of 2 machines cannot run this sweep: b: it is full"):
        require_ready_machines([good, bad])


def test_this_machine_is_checked_too(tmp_path: Path, cache: Path, progress: Progress) -> None:
    cell = Cell(system="log-mel-statistics", task="esc10", protocol="linear", fold=1)
    (report,) = LocalEngine().check([SweepItem(cell)], options(tmp_path), progress)
    assert "'esc10' is not prepared" in str(report.problems)
    assert report.cores >= 1
    assert report.memory_gib > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on", "rai"], "there is no engine 'rai': did you mean 'ray'?"),
        (["--on", "ray:"], "there is no engine 'ray:'"),
        (["--on", "ray", "--set", "core=2"], "'core' is not a known key: did you mean 'cores'"),
        (["--on", "ray", "--jobs", "2"], "--jobs is for this machine only"),
        (["--set", "cores=2"], "--set cores=2 is a setting of an engine, but no engine is named"),
        (["--on", "ray:127.0.0.1:9"], "no Ray answers at '127.0.0.1:9'"),
        (["--on", "ray:ray://here:1"], "HOST:PORT of a cluster's head"),
        (["--on", "ray", "--device", "cuda:1"], "names a GPU of this machine"),
        (["--on", "slurm", "--set", "hours=0"], "'hours'"),
        (["--on", "slurm", "--set", "hours=1:30"], "'hours'"),
        (["--on", "slurm", "--set", "sbatch.time=60"], "--time follows from the setting hours"),
        (["--on", "slurm", "--set", "sbatch.job_name=a"], "--job-name is chosen by the sweep"),
        (["--on", "slurm", "--set", "hours=.inf"], "'hours'"),
        (["--on", "slurm", "--set", "memory_gib=.inf"], "'memory_gib'"),
        (["--on", "ray", "--set", "gpus=.inf"], "'gpus'"),
        (["--on", "ray", "--set", "gpus=1.5"], "a share of a GPU is at most 1"),
    ],
    ids=str,
)
def test_a_wrong_engine_or_setting_is_refused_in_one_sentence(
    arguments: list[str], message: str, bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("{systems: [log-mel-statistics], tasks: [synthetic-sounds]}")
    code, _, errors = bench("sweep", str(path), *arguments)
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1


def test_check_prints_every_machine_and_exits_with_1_if_one_has_a_problem(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("{systems: [log-mel-statistics], tasks: [synthetic-sounds, esc10]}")
    code, output, _ = bench("sweep", str(path), "--check", "--out", str(tmp_path / "out"))
    assert code == 1
    assert "records, cache" in output
    assert "'esc10' is not prepared" in output
    assert "1 of 1 machines cannot run this sweep yet" in output
    path.write_text("{systems: [log-mel-statistics], tasks: [synthetic-sounds]}")
    code, output, _ = bench("sweep", str(path), "--check", "--out", str(tmp_path / "out"))
    assert code == 0
    assert "these machines have what the sweep needs" in output
