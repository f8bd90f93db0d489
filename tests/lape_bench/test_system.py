"""What a run gives its system: artifacts of the run's own arithmetic, stages, and the task's own audio."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio

from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress, show_messages
from lape_bench.data.audio_store import Clips
from lape_bench.learning.training.checkpoints import load_tensors, save_tensors
from lape_bench.runtime.artifacts import Artifact
from lape_bench.system import RunContext, target_audio_only

CLIPS = Clips.pack(["a"], [np.ones(3, np.float32)], 10)


def make(context: RunContext, kind: str = "embeddings", **determined_by: object) -> Artifact:
    def compute(folder: Path, inside: RunContext) -> None:
        (folder / "work").write_text(str(inside.work_folder))

    return context.artifact(kind, "of a test", determined_by, compute)


def test_an_artifact_is_determined_by_its_inputs_and_by_the_arithmetic(context: RunContext) -> None:
    made = make(context, clips="a")
    assert json.loads((made.folder / "artifact.json").read_text()) == {
        "kind": "embeddings",
        "clips": "a",
        "device": "cpu",
        "precision": "float32",
        "torch": torch.__version__,
        "torchaudio": torchaudio.__version__.partition("+")[0],
    }
    others = [make(replace(context, precision="bf16"), clips="a"), make(context, clips="b")]
    assert len({made.hash, *(other.hash for other in others)}) == 3
    again = make(
        replace(
            context, checkpoint_stamp={"commit": "other"}, work_folder=context.work_folder / "other"
        ),
        clips="a",
    )
    assert not again.computed
    assert again.hash == made.hash


def test_an_artifact_is_made_in_a_work_folder_of_its_own(context: RunContext) -> None:
    made = [make(context, clips=name) for name in "ab"]
    folders = [Path((each.folder / "work").read_text()) for each in made]
    assert len({context.work_folder, *folders}) == 3
    assert not any(folder.is_relative_to(context.work_folder) for folder in folders)
    assert context.work_folder.is_dir()


def test_a_run_names_the_same_artifacts_whether_it_made_or_found_them(context: RunContext) -> None:
    def outer(folder: Path, inside: RunContext) -> None:
        assert inside.seeds is context.seeds
        assert inside.profiler is context.profiler
        make(inside, "inner")
        (folder / "file").touch()

    named = []
    for _ in range(2):
        run = replace(context, artifacts=[])
        make(run, "before")
        run.artifact("outer", "of a test", {}, outer)
        named.append([(each.kind, each.hash) for each in run.artifacts])
    assert [kind for kind, _ in named[0]][:: len(named[0]) - 1] == ["before", "outer"]
    assert named[0] == named[1]


def test_bytes_do_not_depend_on_what_of_a_curve_was_read_from_a_checkpoint(tmp_path: Path) -> None:
    def row(epoch: float) -> dict[str, float]:
        return {"epoch": epoch, "loss": 1 / epoch}

    def written(name: str, rows: list[dict[str, float]]) -> bytes:
        save_tensors(tmp_path / name / "it.pt", {"weights": torch.ones(2), "curve": rows})
        return (tmp_path / name / "it.pt").read_bytes()

    at_once = written("at once", [row(1), row(2), row(3)])
    written("checkpoint", [row(1), row(2)])
    before = load_tensors(tmp_path / "checkpoint" / "it.pt", torch.device("cpu"))["curve"]
    assert written("taken up", [*before, row(3)]) == at_once


def test_artifacts_lie_in_the_cache_of_the_run(
    context: RunContext, cache: Path, tmp_path: Path
) -> None:
    assert make(context).folder.parent == cache / "artifacts" / "embeddings"
    elsewhere = replace(context, artifact_folder=tmp_path / "x")
    assert make(elsewhere).folder.parent == tmp_path / "x" / "embeddings"


def test_a_killed_artifact_is_taken_up_under_the_run_s_stamp_alone(context: RunContext) -> None:
    seen: list[bool] = []

    def breaking(folder: Path, inside: RunContext) -> None:
        seen.append((inside.work_folder / "epoch").exists())
        (inside.work_folder / "epoch").touch()
        raise RuntimeError

    for commit in ("one", "one", "two"):
        with pytest.raises(RuntimeError):
            replace(context, checkpoint_stamp={"commit": commit}).artifact("x", "", {}, breaking)
    assert seen == [False, True, False]
    assert context.artifacts == []


@pytest.mark.parametrize("verbose", [True, False])
def test_whether_an_artifact_was_found_is_told_where_details_are_asked_for(
    verbose: bool, context: RunContext, capsys: pytest.CaptureFixture[str]
) -> None:
    show_messages(Progress(), verbose)
    name = make(context).hash[:12]
    make(context)
    told = [f"embeddings {name} computed", f"embeddings {name} found in the cache"]
    assert capsys.readouterr().err.splitlines() == (told if verbose else [])


def test_where_the_harness_gives_no_corpus_the_task_s_own_audio_is_all_there_is(
    context: RunContext,
) -> None:
    assert context.load_corpus is target_audio_only
    assert target_audio_only(("target",), CLIPS, CLIPS.rate) is CLIPS


@pytest.mark.parametrize(
    ("entries", "train"),
    [(("target",), None), (("esc10",), CLIPS), (("target", "esc10"), CLIPS), ((), CLIPS)],
    ids=str,
)
def test_other_audio_is_refused_where_the_harness_gives_no_corpus(
    entries: tuple[str, ...], train: Clips | None
) -> None:
    with pytest.raises(UserError, match=r"cannot be found here; 'target', the train audio"):
        target_audio_only(entries, train, CLIPS.rate)


def test_train_audio_is_given_at_the_system_s_rate_and_at_those_it_asked_for(
    context: RunContext,
) -> None:
    twice = replace(CLIPS, rate=2 * CLIPS.rate)
    given = replace(context, resampled_train={twice.rate: twice})
    assert given.train_at(CLIPS.rate, CLIPS) is CLIPS
    assert given.train_at(twice.rate, CLIPS) is twice
    with pytest.raises(UserError, match=r"not given at .*further_rates"):
        context.train_at(twice.rate, CLIPS)
