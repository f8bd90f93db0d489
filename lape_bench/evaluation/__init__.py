"""Cells: planned, run, scored and recorded."""
