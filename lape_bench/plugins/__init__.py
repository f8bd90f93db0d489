"""How packages and files of others become tasks and systems."""
