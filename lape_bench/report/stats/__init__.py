"""Statistics of reports: intervals, tests and ranks."""
