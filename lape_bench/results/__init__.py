"""Records read back: as tables, verified, merged."""
