"""`bench`, the command line."""
