"""Figures that others published, each with its source; `lape_bench.report.published` reads them."""
