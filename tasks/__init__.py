"""Task cards and the readers of their data-set layouts, plug-ins of the harness."""
