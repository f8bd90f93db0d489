"""Recordings: got, decoded, drawn into splits, and verified."""
