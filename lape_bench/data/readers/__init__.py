"""Readers of a user's own recordings, and of generated ones."""
