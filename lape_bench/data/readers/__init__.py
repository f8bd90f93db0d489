"""Readers for a user's own recordings and for generated ones."""
