"""Sweeps: a grid in a file is expanded into cells, which run in local processes or on a cluster.

A failed cell is recorded, and the others continue. A stopped sweep is resumed by running it again: finished cells are
not run twice, and unfinished cells resume.
"""
