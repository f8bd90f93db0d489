"""The benchmarks are not part of a test run, so renames could break them unnoticed: each is at least imported here."""

import importlib
import pkgutil

import pytest

from tests import benchmarks

NAMES = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]


def test_benchmarks_are_found() -> None:
    assert "test_shares" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_can_be_imported(name: str) -> None:
    importlib.import_module(f"tests.benchmarks.{name}")
