"""Figures that others published, each with its source; `lape_bench.report.papers.published` reads them."""
