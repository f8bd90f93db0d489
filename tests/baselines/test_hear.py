"""Modules of the HEAR 2021 API: called by hand, frozen or fine-tuned by what they are, refused in one sentence."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lape_bench.baselines.hear import Hear, HearEncoder, _code, _facts
from lape_bench.conformance.check import check_system
from lape_bench.core.errors import UserError
from lape_bench.core.paths import sha256
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import load_system
from lape_bench.evaluation.run_options import RunOptions
from lape_bench.evaluation.runner import run_cell
from lape_bench.learning.training.cached_embeddings import state_checksum
from lape_bench.records.record import Cell
from lape_bench.runtime.device import Compute
from lape_bench.system import TargetTask

CPU = Compute(device="cpu", precision="float32", threads=1)
TARGET = TargetTask(classes=("a", "b"), window_seconds=0.5, metric="accuracy")
Write = Callable[..., str]

TORCH = """
import torch
from torch import nn

class Filters(nn.Module):
    sample_rate = 8_000
    scene_embedding_size = 12
    timestamp_embedding_size = 12

    def __init__(self):
        super().__init__()
        self.filters = nn.Conv1d(1, 12, 200, stride=80)

    def forward(self, audio):
        bands = (self.filters(audio.unsqueeze(1)).abs() + 1e-5).mean(dim=2).log()
        return 3 * (bands - bands.mean(dim=1, keepdim=True))

def load_model(model_file_path):
    model = Filters()
    if model_file_path:
        model.load_state_dict(torch.load(model_file_path, weights_only=True))
    return model

def get_scene_embeddings(audio, model):
    return model(audio)
"""
NUMPY = """
import numpy as np

class Levels:
    sample_rate = 8_000
    scene_embedding_size = 3
    scale = 1.0

def load_model(model_file_path=""):
    model = Levels()
    if model_file_path:
        model.scale = float(open(model_file_path).read())
    return model

def get_scene_embeddings(audio, model):
    audio = model.scale * audio.cpu().numpy() ** 2
    return np.stack([audio.mean(1), audio.max(1), np.diff(audio).std(1)], 1)
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Write:
    """Write an importable module and return its name, which no other test has."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def module(code: str) -> str:
        name = f"hear_module_{abs(hash((request.node.name, code)))}"
        (tmp_path / f"{name}.py").write_text(code)
        return name

    return module


def load(argument: str, protocol: Any = "linear") -> HearEncoder:
    kind = Hear.from_argument(argument)
    return kind(kind.Settings(), TARGET, protocol).build_encoder().eval()


def test_an_embedding_is_what_the_module_says_of_the_window(write: Write, tmp_path: Path) -> None:
    name = write(TORCH)
    module = __import__(name)
    torch.manual_seed(3)
    theirs = module.Filters().eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pt")
    encoder = load(f"{name}@{tmp_path / 'weights.pt'}")
    assert (encoder.sample_rate, encoder.embedding_size) == (8_000, 12)
    windows = 0.2 * torch.randn(3, 4_000)
    assert_close(encoder(encoder.features(windows)), theirs(windows))


def test_audio_beyond_full_scale_is_clipped_as_the_api_promises(write: Write) -> None:
    encoder = load(write(TORCH))
    loud = 2 * torch.randn(2, 4_000)
    assert encoder.features(loud).abs().max() == 1
    quiet = loud / 10
    assert torch.equal(encoder.features(quiet), quiet)


def test_load_model_gets_a_path_where_it_asks_for_one_and_none_is_named(write: Write) -> None:
    assert load(write(TORCH)).embedding_size == 12  # called with an empty one
    assert load(write(NUMPY)).model.scale == 1.0
    optionless = NUMPY.replace('model_file_path=""', "").replace("if model_file_path", "if False")
    assert load(write(optionless)).model.scale == 1.0


@pytest.mark.parametrize(
    ("code", "because"),
    [
        (TORCH, ""),
        (NUMPY, "its load_model does not return a torch.nn.Module"),
        (TORCH.replace("model(audio)", "model(audio).detach()"), "no gradient flows back"),
        (TORCH.replace("model(audio)", "model(audio).detach().numpy()"), "no gradient flows back"),
        (
            TORCH.replace("model = Filters()", "model = Filters().requires_grad_(False)"),
            "no gradient flows back",
        ),
    ],
    ids=["module", "numpy", "detached", "answers in numpy", "frozen"],
)
def test_what_gradients_flow_through_is_fine_tuned_and_the_rest_says_why_not(
    code: str, because: str, write: Write
) -> None:
    kind = Hear.from_argument(write(code))
    assert ("finetune" in kind.protocols) == (not because)
    assert because in kind.frozen_because


def test_gradients_reach_the_model_s_own_tensors(write: Write) -> None:
    encoder = load(write(TORCH), "finetune")
    encoder(torch.randn(2, 4_000)).square().sum().backward()
    assert {name for name, each in encoder.named_parameters() if each.grad is not None} == {
        "model.filters.weight",
        "model.filters.bias",
    }


def test_numpy_answers_come_back_as_float32_also_in_bf16(write: Write) -> None:
    encoder = load(write(NUMPY))
    windows = torch.rand(2, 4_000)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder(windows)
    squares = windows.numpy() ** 2
    expected = np.stack([squares.mean(1), squares.max(1), np.diff(squares).std(1)], 1)
    assert found.dtype == torch.float32
    assert_close(found, torch.from_numpy(expected))


FILTERS = 12 * (200 + 1)  # weights and biases


@pytest.mark.parametrize(
    ("code", "parameters", "macs"),
    [(TORCH, FILTERS, 2 * (12 * 200 * 48 + 12 * 2)), (NUMPY, None, None)],
    ids=["module", "numpy"],
)
def test_the_size_of_a_model_is_unknown_if_it_is_no_module(
    code: str, parameters: int | None, macs: int | None, write: Write
) -> None:
    kind = Hear.from_argument(write(code))
    system = kind(kind.Settings(), TARGET, "linear")
    system.encoder = system.build_encoder()
    system.head = torch.nn.Linear(system.encoder.embedding_size, 2)
    system.n_training_parameters = 0
    counts = system.count_parameters()
    inference = None if parameters is None else parameters + 12 * 2 + 2
    assert (counts.encoder, counts.inference, counts.training) == (parameters, inference, inference)
    assert system.count_macs() == macs  # of a second: two windows, each of 48 frames


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("no_such_module_anywhere", "there is no module 'no_such_module_anywhere'"),
        ("my-module.py", "'my-module.py' in hear:my-module.py is not the name of a module"),
        ("json", "the module 'json' has no load_model and no get_scene_embeddings"),
        ("json@no/such/weights.pt", "no/such/weights.pt do not exist"),
    ],
)
def test_what_cannot_be_found_is_told_in_one_sentence(argument: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        Hear.from_argument(argument)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("import torch\n", "import no_such_package\n"), "cannot be imported (ModuleNotFoundError"),
        (("model = Filters()", "1 / 0"), "cannot load its model (ZeroDivisionError: division"),
        (("sample_rate = 8_000", "rate = 8_000"), "has no sample_rate"),
        (
            ("model(audio)", "model(audio)[:, :3]"),
            "shape (2, 3); a tensor of shape (2, 12), (batch, scene_",
        ),
        (
            ("return model(audio)", "raise ValueError('no\\nway')"),
            "noise (ValueError: no way, at hear_module_",
        ),
        (("sample_rate = 8_000", "sample_rate = None"), "has the sample_rate None"),
        (
            ("import torch\n", "import sys, torch\nsys.exit(3)\n"),
            "imported (SystemExit: 3, at hear_module_",
        ),
    ],
    ids=["import", "load", "attributes", "shape", "embed", "rate", "exit"],
)
def test_a_module_that_does_not_keep_to_the_api_is_told_in_one_sentence(
    change: tuple[str, str], said: str, write: Write
) -> None:
    with pytest.raises(UserError) as caught:
        Hear.from_argument(write(TORCH.replace(*change)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_of_the_current_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hear_of_this_folder.py").write_text(NUMPY)
    monkeypatch.chdir(tmp_path)
    assert load_system("hear:hear_of_this_folder").sample_rate == 8_000


def test_weights_that_a_module_reads_by_itself_are_traced(write: Write, tmp_path: Path) -> None:
    file = tmp_path / "own.pt"
    name = write(
        TORCH.replace("if model_file_path", f"model_file_path = {str(file)!r}\n    if True")
    )
    found = []
    for scale in (1.0, 2.0):
        tensors = {"filters.weight": torch.full((12, 1, 200), scale)}
        torch.save(tensors | {"filters.bias": torch.zeros(12)}, file)
        _facts.cache_clear()  # as in another run
        kind = Hear.from_argument(name)
        found.append(kind(kind.Settings(), TARGET, "linear").provenance["tensors"])
    assert found[0] != found[1]


def test_a_module_in_a_folder_without_init_is_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "hear_of_a_namespace").mkdir()
    (tmp_path / "hear_of_a_namespace" / "inner.py").write_text(NUMPY)
    kind = Hear.from_argument("hear_of_a_namespace.inner")
    traced = kind(kind.Settings(), TARGET, "linear").provenance["module"]
    assert "hear_of_a_namespace, SHA-256 " in traced


def test_code_beside_the_module_is_traced_too(
    write: Write, tmp_path: Path, synthetic: Path, progress: Progress
) -> None:
    beside = tmp_path / "hear_beside.py"
    name = write("import hear_beside\n" + NUMPY.replace("audio ** 2", "hear_beside.f(audio)"))
    cell = Cell(system=f"hear:{name}", task="synthetic-sounds", protocol="knn")
    records = []
    for code in ("def f(audio): return audio ** 2", "def f(audio): return 0 * audio"):
        beside.write_text(code)
        sys.modules.pop("hear_beside", None), sys.modules.pop(name, None)
        _code.cache_clear(), _facts.cache_clear()  # as in another run
        records.append(run_cell(cell, RunOptions(out=tmp_path / "out", compute=CPU), progress))
        assert (
            records[-1].provenance["module"].endswith(f"hear_beside.py, SHA-256 {sha256(beside)}")
        )
    assert records[0].identity != records[1].identity


@pytest.mark.parametrize(
    "change",
    [
        ("return model\n", "return model.to(torch.bfloat16)\n"),
        ("    def forward", "    def get_extra_state(self): return {'steps': 3}\n    def forward"),
    ],
    ids=["bf16", "extra state"],
)
def test_a_model_whose_state_is_more_than_float32_is_traced(
    change: tuple[str, str], write: Write
) -> None:
    code = TORCH.replace("model(audio)", "model(audio.to(model.filters.weight.dtype)).float()")
    kind = Hear.from_argument(write(code.replace(*change)))
    assert kind(kind.Settings(), TARGET, "linear").provenance["tensors"]


def test_a_model_that_its_module_keeps_is_the_same_for_every_run(write: Write) -> None:
    kept = TORCH.replace("model = Filters()", "model = KEPT") + "\nKEPT = Filters()\n"
    system = load_system(f"hear:{write(kept)}")
    made = [system(system.Settings(), TARGET, "finetune").build_encoder() for _ in range(2)]
    before = state_checksum(made[1].model)
    with torch.no_grad():
        made[0].model.filters.weight.zero_()  # as training would
    made.append(system(system.Settings(), TARGET, "finetune").build_encoder())
    assert [state_checksum(each.model) for each in made[1:]] == [before] * 2
    lock = "\n    def __deepcopy__(self, memo):\n        raise TypeError('no')\n\n    def forward"
    locked = load_system(f"hear:{write(kept.replace('    def forward', lock, 1))}")
    with pytest.raises(
        UserError, match=r"returns the same model again, which cannot be copied \(TypeError: no"
    ):
        locked(locked.Settings(), TARGET, "finetune").build_encoder()


def test_a_record_names_code_and_weights_by_their_hashes_and_other_weights_are_another_cell(
    write: Write, tmp_path: Path, synthetic: Path, progress: Progress
) -> None:
    name, weights = write(NUMPY), tmp_path / "scale.txt"
    cell = Cell(system=f"hear:{name}@{weights}", task="synthetic-sounds", protocol="knn")
    options = RunOptions(out=tmp_path / "out", compute=CPU)
    records = []
    for scale in ("1.0", "1e-9"):  # of the latter nothing is left but rounding
        weights.write_text(scale)
        record = run_cell(cell, options, progress)
        assert record.provenance["weights"] == f"scale.txt, SHA-256 {sha256(weights)}"
        assert record.provenance["module"].endswith(sha256(tmp_path / f"{name}.py"))
        records.append(record)
    assert records[0].identity != records[1].identity
    assert not {each.hash for each in records[0].artifacts} & {
        each.hash for each in records[1].artifacts
    }


@pytest.mark.parametrize("code", [TORCH, NUMPY], ids=["module", "numpy"])
def test_both_kinds_keep_the_contract(
    code: str, brief_check: dict[str, Any], write: Write, synthetic: Path, progress: Progress
) -> None:
    settings = brief_check if code == TORCH else {}
    results = list(check_system(f"hear:{write(code)}", settings, CPU, progress))
    assert [result for result in results if not result.holds] == []
    groups = {result.group for result in results}
    assert ("finetune" in groups) == (code == TORCH)


def test_finetune_is_refused_with_the_reason_where_there_is_no_gradient(
    write: Write, synthetic: Path, progress: Progress, tmp_path: Path
) -> None:
    cell = Cell(system=f"hear:{write(NUMPY)}", task="synthetic-sounds", protocol="finetune")
    with pytest.raises(
        UserError, match=r"'finetune' \(its load_model does not return a torch\.nn\.Mod"
    ):
        run_cell(cell, RunOptions(out=tmp_path, compute=CPU), progress)
