"""The Python API. Its names are available as `lape_bench.NAME`."""
