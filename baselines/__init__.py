"""Systems that others are compared with, one file each, plug-ins of the harness."""
