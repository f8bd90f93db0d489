"""Base classes of systems: from an encoder to something that learns a task."""
