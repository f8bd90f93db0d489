"""The machine of a run: devices, processes, CPU cores, memory, and the cache of artifacts."""
