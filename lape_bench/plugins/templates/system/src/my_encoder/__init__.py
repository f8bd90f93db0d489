"""A system for lape_bench. This file imports nothing, so that listings need not wait for torch."""
