"""Recordings: downloaded, decoded, split and verified."""
