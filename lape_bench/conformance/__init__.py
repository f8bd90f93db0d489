"""Test a system against the claims of its contract."""
