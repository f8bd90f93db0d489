"""A stranger's encoder in a single file."""

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from lape_bench.conformance.check import check_system
from lape_bench.core.errors import UserError
from lape_bench.core.progress import Progress
from lape_bench.evaluation.plan import load_system
from lape_bench.learning.systems.plain_encoder import as_system, is_system
from lape_bench.plugins import single_file
from lape_bench.plugins.registry import SYSTEMS
from lape_bench.runtime.device import Compute
from lape_bench.system import TargetTask
from lape_bench.unfused.config import UnfusedConfig
from lape_bench.unfused.system import Unfused

Bench = Callable[..., tuple[int, str, str]]
CODE = '''"""Energy after a few filters."""

import sys

import torch
from torch import nn


class Filters(nn.Module):
    """A strided convolution over the waveform."""

    sample_rate = 8_000

    def __init__(self, width: int = 16, power: float = 1.0) -> None:
        super().__init__()
        self.embedding_size, self.power = width, power
        self.filters = nn.Conv1d(1, width, 200, stride=80)

    def forward(self, waveforms):
        heard = self.filters(nn.functional.pad(waveforms, (100, 100)).unsqueeze(1))
        bands = heard.abs().add(1e-5).pow(self.power).mean(dim=2).log()
        return 3 * (bands - bands.mean(dim=1, keepdim=True))


class Levels:
    """No module, so that there is nothing to train."""

    embedding_size = 3

    def __call__(self, waveforms):
        return torch.stack([waveforms.std(1), waveforms.abs().amax(1), waveforms.diff(dim=1).std(1)], 1)


class Masked(Filters):
    """Leaves padding out: only frames that lie in the clip are averaged."""

    uses_lengths = True

    def forward(self, waveforms, lengths):
        frames = self.filters(waveforms.unsqueeze(1)).abs().add(1e-5)
        real = torch.arange(frames.shape[2], device=frames.device) <= (lengths[:, None] - 200) // 80
        bands = ((frames * real[:, None]).sum(dim=2) / real.sum(dim=1, keepdim=True)).log()
        return 3 * (bands - bands.mean(dim=1, keepdim=True))


class Looking(Masked):
    """Fails unless each clip stands at the start of its window, and some clip is shorter than it in each large batch."""

    def forward(self, waveforms, lengths):
        places = torch.arange(1, waveforms.shape[1] + 1, device=waveforms.device)
        ends = (places * (waveforms != 0)).amax(dim=1)
        if waveforms.any():  # operations are counted on zeros
            assert (ends <= lengths).all() and (ends > lengths - 50).all(), (ends, lengths)
        assert len(lengths) < 10 or lengths.amin() < waveforms.shape[1]
        return super().forward(waveforms, lengths)


class Undecided(Filters):
    uses_lengths = "yes"


class Narrow(Filters):
    """Says one size and gives another."""

    def forward(self, waveforms):
        return super().forward(waveforms)[:, :3]


class Needy(nn.Module):
    def __init__(self, weights):
        super().__init__()


class Harness(Filters):
    def __init__(self, linear=True):
        super().__init__()


class Private(Filters):
    def __init__(self, _width=8):
        super().__init__()


class Module(Filters):
    def __init__(self, activation=nn.ReLU()):
        super().__init__()


class Array(Filters):
    def __init__(self, weights: torch.Tensor = None):
        super().__init__()


class ByPosition(Filters):
    def __init__(self, width=8, /):
        super().__init__()


class Kilohertz(Filters):
    sample_rate = "8k"


class Tiny(Filters):
    sample_rate = 16


class FilesAsked(Filters):
    @property
    def files(self):
        return ("weights.pt",)


class FilesCounted(Filters):
    files = 3


class Asked(Filters):
    @property
    def sample_rate(self):
        return 8_000


class Dated(Filters):
    version = "1.0"


class Forever(Filters):
    version = float("inf")


class Reserved(Filters):
    def __init__(self, model_dump: int = 1):
        super().__init__()


class Copied(Filters):
    def __init__(self, copy: bool = False, json: str = ""):
        super().__init__()


class Sizeless(nn.Module):
    def forward(self, waveforms):
        return waveforms


class Later(Filters):
    def __init__(self, sample_rate: int = 22_050):
        super().__init__()
        self.sample_rate = sample_rate


class Stored(Filters):
    def __init__(self, weights: str = "none"):
        super().__init__()
        self.scale = float(open(weights).read())

    def forward(self, waveforms):
        return self.scale * super().forward(waveforms)


class Double(Filters):
    def forward(self, waveforms):
        return super().forward(waveforms).double()


class Fails(Filters):
    def forward(self, waveforms):
        return {}["no such\\nkey"]  # here


class Leaves(Filters):
    def forward(self, waveforms):
        sys.exit("no license")


class Nothing(Filters):
    def forward(self, waveforms):
        return super().forward(waveforms) / 0 * 0


nothing = 3
'''
TARGET = TargetTask(classes=("a", "b"), window_seconds=0.5, metric="accuracy")
TINY = ["--protocol", "linear", "--device", "cpu", "--precision", "float32", "--quiet"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine" / "encoders.py"
    path.parent.mkdir()
    path.write_text(CODE)
    return path


def test_an_encoder_becomes_a_system_with_its_arguments_as_settings(file: Path) -> None:
    kind = load_system(f"{file}:Filters")
    settings = kind.Settings.model_validate({"width": 4})
    assert settings.model_dump(include={"width", "power"}) == {"width": 4, "power": 1.0}
    assert kind.sample_rate == 8_000
    assert kind.protocols == ("finetune", "linear", "mlp", "knn")
    with pytest.raises(ValueError, match="width"):
        kind.Settings.model_validate({"width": "wide"})
    # It has no log-mels for views to be made of.
    assert "augment" not in kind.Settings().model_dump()["finetune"]


OWN_FEATURES = """import torch
from lape_bench.learning.encoders.log_mel import LogMel, LogMelEncoder


class Bands(LogMelEncoder):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.log_mel, self.embedding_size = LogMel(), width
        self.layer = torch.nn.Linear(64, width)

    def forward(self, features):
        return self.layer(features.mean(dim=2))
"""


def test_an_encoder_with_features_of_its_own_gets_them_and_not_waveforms(
    file: Path, synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    file.write_text(OWN_FEATURES)
    kind = load_system(f"{file}:Bands")
    encoder = kind(kind.Settings(), TARGET, "linear").build_encoder()
    assert encoder.features(torch.randn(2, 8_000)).shape == (2, 64, 51)
    bench("run", "--system", f"{file}:Bands", *TINY, "--out", str(tmp_path / "out"))
    (record,) = (tmp_path / "out").rglob("record.json")
    kinds = {artifact["kind"] for artifact in json.loads(record.read_text())["artifacts"]}
    assert "normalization" in kinds  # fitted to the task, as that of the systems that come along


def test_what_is_no_module_is_never_trained(file: Path) -> None:
    assert not issubclass(SYSTEMS.load(f"{file}:Levels", callable, ""), nn.Module)
    assert load_system(f"{file}:Levels").protocols == ("linear", "mlp", "knn")


@pytest.mark.parametrize("name", ["Filters", "Levels", "Masked"])
def test_all_keep_the_contract(name: str, file: Path, synthetic: Path, progress: Progress) -> None:
    compute = Compute(device="cpu", precision="float32", threads=1)
    results = list(check_system(f"{file}:{name}", {}, compute, progress))
    protocols = load_system(f"{file}:{name}").protocols
    assert {result.group for result in results} == {"system", "encoder", *protocols}
    assert not [result for result in results if not result.holds]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Filter", "no class 'Filter' in {file}: did you mean 'Filters'?"),
        (
            "",
            "{file} is a file, and a system is a class in it; name its class too: {file}:MyEncoder",
        ),
        ("nothing", "{file}:nothing is of type int, not a class derived from"),
        ("Needy", "the argument 'weights' of the encoder Needy has no default"),
        ("Harness", "the argument 'linear' of the encoder Harness cannot be a setting"),
        ("Private", "the argument '_width' of the encoder Private cannot be a setting"),
        ("Module", "Module has the default ReLU(), which no record can hold; numbers"),
        ("Array", "the arguments of the encoder Array cannot be settings (PydanticSchema"),
        ("ByPosition", "the argument 'width' of the encoder ByPosition cannot be given by its"),
        ("Kilohertz", "sample_rate of the encoder Kilohertz is '8k'; a whole number above 0, on"),
        ("Asked", "sample_rate of the encoder Asked is a property, which no class can be"),
        ("Forever", "version of the encoder Forever is inf; a whole number above 0"),
        ("Reserved", "the arguments of the encoder Reserved cannot be settings (ValueError: Fiel"),
        ("Tiny", "sample_rate of the encoder Tiny is 16; 1,000 to 400,000 Hz, such as 16_000"),
        (
            "FilesAsked",
            "files of the encoder FilesAsked is a property, which no class can be asked",
        ),
        ("FilesCounted", "files of the encoder FilesCounted is 3; a path or a tuple of paths"),
        ("Undecided", "uses_lengths of the encoder Undecided is 'yes'; True, if it is called with"),
        ("Dated", "version of the encoder Dated is '1.0'; a whole number above 0"),
    ],
)
def test_what_cannot_be_a_system_is_refused(name: str, said: str, file: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_system(f"{file}:{name}")
    assert said.format(file=file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_fails_is_named(file: Path) -> None:
    with pytest.raises(UserError, match=r"the plug-in file .*nowhere\.py does not exist"):
        load_system(f"{file.with_name('nowhere.py')}:Filters")
    file.write_text("import a_module_that_nobody_has\n")
    with pytest.raises(
        UserError,
        match=r"raised ModuleNotFoundError: No module named .*_has', at encoders.py:1 in <module>; fix",
    ):
        load_system(f"{file}:Filters")
    file.write_text("import sys\nsys.exit('no license')\n")
    with pytest.raises(UserError, match=r"raised SystemExit: no license, at encoders.py:2 in <"):
        load_system(f"{file}:Filters")
    with pytest.raises(UserError, match=r"encoders\.py is a file, .*: .*encoders\.py:MyEncoder"):
        load_system(str(file))
    with pytest.raises(UserError, match="is not a file"):
        load_system(f"{file.parent.rename(file.parent.with_suffix('.py'))}:Filters")


def test_an_embedding_of_another_size_is_told_with_both(
    file: Path, synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    code, _, said = bench("run", "--system", f"{file}:Narrow", *TINY, "--out", out)
    assert code == 1
    assert "Narrow turned" in said
    assert "windows into a tensor of shape" in said
    assert "(batch, embedding_size); make embedding_size the number" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Sizeless", "embedding_size of the encoder Sizeless is not there; a whole number above 0"),
        (
            "Later",
            "works at 22,050 Hz and is given audio at 8,000 Hz; set sample_rate on the class",
        ),
        ("Fails", "KeyError: 'no such\\nkey', at encoders.py:{line} in forward"),
        ("Leaves", "SystemExit: no license, at encoders.py:"),
        ("Nothing", "windows are not finite, the first of clip"),
    ],
)
def test_what_goes_wrong_inside_is_told_in_a_line_that_says_where(
    name: str, said: str, file: Path, synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    system = f"{file}:{name}"
    code, board, err = bench(
        "run",
        "--system",
        system,
        "--system",
        "log-mel-statistics",
        *TINY,
        "--out",
        str(tmp_path / "out"),
    )
    line = 1 + [line.endswith("# here") for line in file.read_text().splitlines()].index(True)
    (told,) = [each for each in err.splitlines() if " failed: " in each]
    assert said.format(line=line) in told
    assert "error.txt" in err
    assert code == 1
    assert "log-mel-statistics" in board  # the other is run all the same


def test_lengths_reach_an_encoder_in_fine_tuning_and_in_scoring(
    file: Path, synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    few = ("--set", "finetune.epochs=1", "--set", "finetune.min_steps=1")
    how = ("--protocol", "finetune", "--device", "cpu", "--precision", "float32", "--quiet")
    out = str(tmp_path / "out")
    task = ("--task", "birdsong-synthetic")  # its clips have 0.7 to 1.3 s, and its windows 1 s
    code, board, said = bench("run", "--system", f"{file}:Looking", *task, *how, *few, "--out", out)
    assert (code, said) == (0, "")
    assert "Looking" in board


def test_names_that_pydantic_has_too_and_numbers_of_another_precision_are_fine(
    file: Path, synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    for name in ("Copied", "Double"):
        code, board, err = bench(
            "run", "--system", f"{file}:{name}", *TINY, "--out", str(tmp_path / "out")
        )
        assert (code, err) == (0, "")
        assert name in board


def test_files_beside_are_never_taken_for_others_of_their_name(file: Path, tmp_path: Path) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "beside_both.py").write_text(f"NAME = {place!r}\n")
        code = "from beside_both import NAME\n" + CODE + f"# {place}\n"
        (tmp_path / place / "mine.py").write_text(code)
    one, two = (f"{tmp_path / place / 'mine.py'}:Filters" for place in ("one", "two"))
    assert sys.modules[load_system(one).__module__].NAME == "one"
    with pytest.raises(UserError, match=r"two/mine\.py imports .*two/beside_both\.py, but another"):
        load_system(two)
    del sys.modules["beside_both"]  # as in a process of its own
    assert sys.modules[load_system(two).__module__].NAME == "two"
    (tmp_path / "linked").symlink_to(tmp_path / "two")
    by_link = (
        f"{tmp_path / 'linked' / 'mine.py'}:Filters"  # one file has one code, however it is spelled
    )
    assert load_system(by_link).__module__ == load_system(two).__module__
    assert SYSTEMS.origin(by_link) == SYSTEMS.origin(two)
    (tmp_path / "two" / "beside_both.py").write_text("NAME = 'new'\n")
    with pytest.raises(UserError, match=r"beside_both\.py has changed since this process imported"):
        SYSTEMS.origin(two)


def test_one_code_in_two_folders_reads_what_lies_beside_each(tmp_path: Path) -> None:
    said = []
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "beside.txt").write_text(place)
        code = f"from pathlib import Path\nNAME = Path(__file__).with_name('beside.txt').read_text()\n{CODE}"
        (tmp_path / place / "mine.py").write_text(code)
        module = load_system(f"{tmp_path / place / 'mine.py'}:Filters").__module__
        said.append(sys.modules[module].NAME)
    assert said == ["one", "two"]


def test_annotations_that_are_kept_as_text_are_types_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "later.py"
    typed = "width: int = 16, power: float = 1, weights: str | None = None"
    signed = CODE.replace("width: int = 16, power: float = 1.0", typed)
    path.write_text("from __future__ import annotations\n" + signed)
    settings = load_system(f"{path}:Filters").Settings
    given = settings.model_validate({"power": 0.5, "weights": "ssl.pt"})
    assert given.model_dump(include={"power", "weights"}) == {"power": 0.5, "weights": "ssl.pt"}
    with pytest.raises(ValueError, match="valid integer"):
        settings.model_validate({"width": 0.5})
    path.write_text(
        "from __future__ import annotations\n" + CODE.replace("width: int", "width: Unheard")
    )
    assert load_system(f"{path}:Filters").Settings.model_validate({"width": 8})


def test_a_default_of_none_is_accepted_whatever_the_annotation_says(tmp_path: Path) -> None:
    path = tmp_path / "none.py"
    path.write_text(CODE.replace("width: int = 16,", "width: int = 16, weights: str = None,"))
    settings = load_system(f"{path}:Filters").Settings
    assert settings.model_validate(settings().model_dump(mode="json")) == settings()
    with pytest.raises(ValueError, match="valid string"):
        settings.model_validate({"weights": 3})
    config = UnfusedConfig.model_validate({"teacher": f"{path}:Filters"})
    assert Unfused(config, TARGET, "linear").teacher.build_encoder().embedding_size == 16


def test_what_a_class_from_beside_the_file_computes_is_kept_by_its_code(
    synthetic: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, beside, out = tmp_path / "main.py", tmp_path / "levels_beside.py", tmp_path / "out"
    main.write_text("from levels_beside import Levels\n")
    for statistic in ("std(1)", "abs().mean(1)"):
        beside.write_text(CODE.replace("waveforms.std(1)", f"waveforms.{statistic}"))
        monkeypatch.delitem(sys.modules, "levels_beside", raising=False)  # as in another run
        single_file._imported_as.clear()
        run = (
            "run",
            "--system",
            f"{main}:Levels",
            "--protocol",
            "knn",
            "--task",
            "synthetic-sounds",
        )
        assert bench(*run, "--out", str(out))[0] == 0
    records = [json.loads(path.read_text()) for path in out.rglob("record.json")]
    embeddings = [{each["hash"] for each in record["artifacts"]} for record in records]
    assert len(embeddings) == 2
    assert not embeddings[0] & embeddings[1]


@pytest.mark.parametrize(
    "value", ["x" * 300, "~nobody_of_this_name/x", "a\0b", "", ".", "..", "/", "relu"]
)
def test_a_setting_that_names_no_file_is_only_a_setting(value: str, file: Path) -> None:
    kind = load_system(f"{file}:Stored")
    assert kind(kind.Settings(weights=value), TARGET, "linear").provenance == {}


@pytest.mark.parametrize("files", ["({path},)", "({path})"], ids=["a tuple", "a path alone"])
def test_files_that_a_class_names_are_what_it_rests_on(
    files: str, file: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.bin"
    file.write_text(f"{CODE}\nLevels.files = {files.format(path=repr(str(weights)))}\n")
    kind = load_system(f"{file}:Levels")
    found = []
    for content in ("one", "two"):
        weights.write_text(content)
        found.append(kind(kind.Settings(), TARGET, "linear").provenance["files"])
    assert [text[:21] for text in found] == ["weights.bin, SHA-256 "] * 2
    assert found[0] != found[1]
    weights.unlink()
    with pytest.raises(UserError, match=r"a file of Levels .*weights.bin does not exist"):
        _ = kind(kind.Settings(), TARGET, "linear").provenance


def test_a_file_that_a_setting_names_is_part_of_the_run(
    file: Path, synthetic: Path, bench: Bench, tmp_path: Path
) -> None:
    weights, out = tmp_path / "scale.txt", tmp_path / "out"
    system = ("--system", f"{file}:Stored", "--set", f"weights={weights}")
    for scale in ("1.0", "0.0"):
        weights.write_text(scale)
        assert bench("run", *system, *TINY, "--out", str(out))[0] == 0
    records = [json.loads(path.read_text()) for path in out.rglob("record.json")]
    assert len({record["metrics"]["accuracy"] for record in records}) == len(records) == 2
    assert {record["provenance"]["setting weights"][:9] for record in records} == {"scale.txt"}


def test_folders_and_lists_of_files_that_settings_name_are_part_of_the_run(
    file: Path, tmp_path: Path
) -> None:
    file.write_text(
        CODE
        + "\n\nclass Listed(Filters):\n    def __init__(self, parts=(), folder=''):\n        ...\n"
    )
    (tmp_path / "ckpt").mkdir()
    places = [tmp_path / "a.pt", tmp_path / "ckpt" / "b.pt"]
    kind = load_system(f"{file}:Listed")
    given = {"parts": [str(places[0]), "none"], "folder": str(tmp_path / "ckpt")}
    traced = []
    for content in ("old", "newer"):
        for place in places:
            place.write_text(content)
        traced.append(kind(kind.Settings.model_validate(given), TARGET, "linear").provenance)
    assert set(traced[0]) == {"setting parts", "setting folder"}
    assert not set(traced[0].values()) & set(traced[1].values())


def test_a_run_is_found_again_until_the_file_changes(
    file: Path, synthetic: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = (
        "run",
        "--system",
        "encoders.py:Filters",
        "--set",
        "width=8",
        *TINY,
        "--out",
        str(out),
    )
    monkeypatch.chdir(file.parent)
    _, board, _ = bench(*command)
    assert "encoders.py:Filters (width=8)" in board
    (first,) = out.rglob("record.json")
    record = json.loads(first.read_text())
    assert record["environment"]["system_package"].startswith("file encoders.py, SHA-256 ")
    assert record["metrics"]["accuracy"] > 1 / 8
    bench(*command)
    assert len(list(out.rglob("record.json"))) == 1
    written = file.stat()
    file.write_text(CODE.replace("mean(dim=2)", "amax(dim=2)"))
    os.utime(file, ns=(written.st_atime_ns, written.st_mtime_ns))  # and it is as long as it was
    bench(*command)
    scores = {
        json.loads(path.read_text())["metrics"]["accuracy"] for path in out.rglob("record.json")
    }
    assert len(list(out.rglob("record.json"))) == len(scores) == 2


def test_what_lies_beside_the_file_is_found_and_is_part_of_it(
    file: Path, synthetic: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, beside = tmp_path / "out", file.parent / "pooling_beside.py"
    plain = "heard.abs().add(1e-5).pow(self.power).mean(dim=2)"
    pooled = CODE.replace(plain, "pool(heard.abs().add(1e-5).pow(self.power))")
    file.write_text("from pooling_beside import pool\n" + pooled)
    # Of two lengths: what Python has compiled it takes for new by the second and the length.
    for pool in ("mean(dim=2)", "amax(dim=2) + 0"):
        beside.write_text(f"def pool(bands):\n    return bands.{pool}\n")
        monkeypatch.delitem(sys.modules, "pooling_beside", raising=False)  # as in another run
        single_file._imported_as.clear()
        assert bench("run", "--system", f"{file}:Filters", *TINY, "--out", str(out))[0] == 0
    records = [json.loads(path.read_text()) for path in out.rglob("record.json")]
    assert len({record["metrics"]["accuracy"] for record in records}) == len(records) == 2
    assert {record["provenance"]["file"].split("; ")[1][:17] for record in records} == {
        "pooling_beside.py"
    }
    embeddings = [{each["hash"] for each in record["artifacts"]} for record in records]
    assert not embeddings[0] & embeddings[1]


def test_the_encoder_of_the_readme_runs_as_written(
    synthetic: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parents[4] / "README.md").read_text(encoding="utf-8")
    code = readme.partition("# my_encoder.py\n")[2].partition("```")[0]
    (tmp_path / "my_encoder.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    code_of_exit, board, said = bench(
        "run", "--system", "my_encoder.py:MyEncoder", "--set", "width=128", *TINY, "--out", "out"
    )
    assert (code_of_exit, said) == (0, "")
    assert "my_encoder.py:MyEncoder (width=128)" in board


# --- classes that are no modules --------------------------------------------------------------------------


class _Projection:
    """Its size is known to objects alone."""

    def __init__(self, width: int = 8) -> None:
        self.embedding_size = width
        self.matrix = torch.zeros(400, width)

    def __call__(self, waveforms: torch.Tensor) -> torch.Tensor:
        return waveforms[:, :400] @ self.matrix


class _Annotated:
    embedding_size: int

    def __init__(self) -> None:
        vars(self).update(embedding_size=8)

    def __call__(self, waveforms: torch.Tensor) -> torch.Tensor:
        return waveforms[:, : self.embedding_size]


class _Inherited(_Projection):
    pass


class _Sizeless:
    def __call__(self, waveforms: torch.Tensor) -> torch.Tensor:
        return waveforms


@pytest.mark.parametrize("kind", [_Projection, _Annotated, _Inherited])
def test_a_callable_class_may_tell_its_size_on_the_object(kind: type) -> None:
    assert is_system(kind)
    system = as_system(kind)
    assert system.protocols == ("linear", "mlp", "knn")


def test_a_callable_class_without_a_size_is_no_encoder() -> None:
    assert not is_system(_Sizeless)


class _Stated(_Projection):
    n_parameters = 400 * 8


@pytest.mark.parametrize(("kind", "known"), [(_Projection, None), (_Stated, 400 * 8)])
def test_parameters_of_a_class_that_is_no_module_are_unknown_unless_it_states_them(
    kind: type, known: int | None
) -> None:
    system = as_system(kind)
    tested = system(system.Settings(), TARGET, "linear")
    tested.encoder = tested.build_encoder()
    tested.head, tested.n_training_parameters = nn.Linear(8, 2), 0
    classifier = 8 * 2 + 2
    counts = tested.count_parameters()
    assert counts.encoder == known
    assert counts.inference == counts.training == (None if known is None else known + classifier)
    assert tested.count_macs() is None


def test_the_sizes_of_a_class_that_is_no_module_are_unknown_as_those_of_a_teacher_too(
    file: Path,
) -> None:
    given = {"teacher": f"{file}:Levels", "downstream_encoder": "teacher"}
    system = Unfused(UnfusedConfig.model_validate(given), TARGET, "linear")
    system.encoder, system.head = system.build_encoder(), nn.Linear(3, 2)
    system.n_training_parameters = 0
    assert system.count_parameters().encoder is None
    assert system.count_macs() is None


@pytest.mark.parametrize("stated", [-1, 2.5, "many", True])
def test_a_number_of_parameters_that_is_none_is_refused(stated: object) -> None:
    system = as_system(type("Odd", (_Projection,), {"n_parameters": stated}))
    with pytest.raises(UserError, match="n_parameters of the encoder"):
        system(system.Settings(), TARGET, "linear").build_encoder()


@functools.cache
def _kept() -> nn.Linear:
    return nn.Linear(400, 8)


class _Sharing(nn.Module):
    embedding_size = 8

    def __init__(self) -> None:
        super().__init__()
        self.net = _kept()

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        embeddings: torch.Tensor = self.net(waveforms[:, :400])
        return embeddings


def test_weights_that_an_earlier_cell_trained_are_no_start_of_a_new_one() -> None:
    system = as_system(_Sharing)
    first = system(system.Settings(), TARGET, "finetune").build_encoder()
    first.load_state_dict(first.state_dict())  # as a kept model is loaded
    assert system(system.Settings(), TARGET, "linear").build_encoder() is not first
    optimizer = torch.optim.Adam(first.parameters())
    first(torch.randn(4, 400)).sum().backward()
    optimizer.step()
    with pytest.raises(UserError, match=r"weights that an earlier cell .*copy\.deepcopy"):
        system(system.Settings(), TARGET, "linear").build_encoder()


def test_files_that_only_an_object_names_are_refused() -> None:
    class Late(_Projection):
        def __init__(self) -> None:
            super().__init__()
            self.files = ("weights.pt",)

    system = as_system(Late)
    with pytest.raises(UserError, match="sets files in an object; files on the class"):
        system(system.Settings(), TARGET, "linear").build_encoder()


def test_an_encoder_outside_of_torch_may_return_its_embeddings_on_another_device() -> None:
    class Elsewhere(_Projection):
        def __call__(self, waveforms: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(waveforms), 8)

    system = as_system(Elsewhere)
    encoder = system(system.Settings(), TARGET, "linear").build_encoder()
    assert encoder(torch.zeros(2, 400, device="meta")).device.type == "meta"
