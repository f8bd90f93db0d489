"""The public API: what `import lape_bench` gives, and what its examples show."""

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import lape_bench as lb
from lape_bench import _HOMES

SLOW = ("torch", "pandas", "numpy", "pydantic", "rich", "scipy")


def test_importing_the_package_imports_nothing_slow() -> None:
    program = f"import lape_bench, sys; print([name for name in {SLOW} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "expression",
    ["lb.list_systems()", "lb.list_tasks()", "lb.get_task('esc10')", "lb.load_results"],
)
def test_listings_and_results_do_not_import_torch(expression: str) -> None:
    program = f"import lape_bench as lb, sys; {expression}; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_every_public_name_resolves_and_is_listed() -> None:
    assert dir(lb) == sorted(lb.__all__)
    for name in lb.__all__:
        assert getattr(lb, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'evaluat'"):
        importlib.import_module("lape_bench").__getattr__("evaluat")


def test_a_public_name_is_no_module_of_that_name() -> None:
    for name in _HOMES:
        assert not isinstance(getattr(lb, name), ModuleType)
        assert not (Path(lb.__file__).parent / f"{name}.py").exists()


def test_type_checkers_and_python_find_the_same_names() -> None:
    tree = ast.parse(Path(lb.__file__).read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lape_bench.")
        for alias in node.names
    }
    assert typed == {name: f"lape_bench.{module}" for name, module in _HOMES.items()}


@pytest.mark.parametrize(
    "module",
    sorted({f"lape_bench.{module}" for module in _HOMES.values()}),
)
def test_examples_in_docstrings_hold(
    module: str, own_artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(importlib.import_module(module)).failed == 0


def test_every_function_of_the_api_has_an_example() -> None:
    functions = [getattr(lb, name) for name in _HOMES if name.islower()]
    assert not [each.__name__ for each in functions if ">>>" not in (each.__doc__ or "")]
