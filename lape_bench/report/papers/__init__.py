"""Tables of papers, filled from records."""
