"""Errors, settings, paths, progress and seeds, which all other rooms use."""
