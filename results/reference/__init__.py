"""Reference results, one pack of cells for each task."""
