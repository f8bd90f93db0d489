import ast
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from lape_bench.plugins.scaffold import LONGEST_NAME, TEMPLATE, template

Bench = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[3]
LONGEST = "a" * LONGEST_NAME


def files(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("my-encoder", "my_encoder"),
        ("wide_net", "wide_net"),
        ("v2-a_b", "v2_a_b"),
        ("my_encoder_v2",) * 2,
        (LONGEST,) * 2,
    ],
)
def test_a_package_is_written_under_its_name_and_registers_it(
    name: str, module: str, bench: Bench, tmp_path: Path
) -> None:
    code, out, _ = bench("systems", "new", name, "--out", str(tmp_path))
    assert code == 0
    assert f"next: pip install -e {tmp_path / name}\n" in out
    assert f"bench run --system {name} " in out
    written = files(tmp_path / name)
    assert set(written) == {
        "README.md",
        "pyproject.toml",
        f"src/{module}/__init__.py",
        f"src/{module}/system.py",
        "tests/test_system.py",
    }
    project = tomllib.loads(written["pyproject.toml"])
    assert project["project"]["name"] == name
    points = project["project"]["entry-points"]["lape_bench.systems"]
    assert points == {name: f"{module}.system:SmallConvNetSystem"}
    assert f"from {module}.system import" in written["tests/test_system.py"]
    assert f'SYSTEM = "{name}"' in written["tests/test_system.py"]


def test_no_file_keeps_the_template_s_name_or_outgrows_the_line(
    bench: Bench, tmp_path: Path
) -> None:
    bench("systems", "new", LONGEST, "--out", str(tmp_path))
    for path, text in files(tmp_path / LONGEST).items():
        assert "my-encoder" not in text
        assert "my_encoder" not in text
        if path.endswith(".py"):
            ast.parse(text)
            assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My-Encoder", "is not a valid name for a package; lowercase letters"),
        ("my encoder", "is not a valid name for a package"),
        ("3d", "is not a valid name for a package"),
        ("a--b", "is not a valid name for a package"),
        ("a-", "is not a valid name for a package"),
        ("../up", "is not a valid name for a package"),
        ("hear:mine", "is not a valid name for a package"),
        (LONGEST + "a", "is not a valid name for a package"),
        ("supervised", "there is already a system 'supervised'"),
        ("log_mel_statistics", "there is already a system 'log-mel-statistics'"),
        ("class", "Python already has a keyword 'class'"),
        ("json", "Python already has a module 'json'"),
        ("torch", "Python already has a module 'torch'"),
        ("lape-bench", "Python already has a module 'lape_bench'"),
    ],
)
def test_a_name_that_cannot_be_or_is_taken_is_refused(
    name: str, said: str, bench: Bench, tmp_path: Path
) -> None:
    code, out, err = bench("systems", "new", name, "--out", str(tmp_path))
    assert (code, out) == (2, "")
    assert said in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_what_is_there_is_never_overwritten(kind: str, bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.touch()
    else:
        path.symlink_to(tmp_path / "nowhere")
    code, _, err = bench("systems", "new", "mine", "--out", str(tmp_path))
    assert code == 2
    assert f"{path} already exists; choose another name" in err
    assert [each.name for each in tmp_path.iterdir()] == ["mine"]


def test_a_place_that_cannot_be_written_is_said(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = bench("systems", "new", "mine", "--out", str(tmp_path / "file"))
    assert code == 2
    assert "cannot be written" in err


def test_every_file_of_the_template_is_installed_with_the_harness() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["lape_bench.plugins"]
    installed = {
        path for pattern in patterns for path in (ROOT / "lape_bench" / "plugins").glob(pattern)
    }
    assert {TEMPLATE / name for name in template()} <= installed
