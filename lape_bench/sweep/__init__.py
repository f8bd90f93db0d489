"""Sweeps: a grid in a file, expanded into cells, run in processes here or by the engines of a cluster.

A failing cell is recorded and the others go on; a stopped sweep is taken up by running it again, since finished cells are not
run twice and an unfinished one resumes.
"""
