"""A system for lape_bench; nothing is imported here, so that listings need not wait for torch."""
