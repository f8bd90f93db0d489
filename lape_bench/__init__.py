"""lape_bench: the benchmark harness for low-resource audio classification."""

from importlib.metadata import version

__version__ = version("lape_bench")
