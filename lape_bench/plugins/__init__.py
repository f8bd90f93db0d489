"""Find tasks and systems in packages, files and classes."""
