"""The machine a run is on: devices, processes, cores, memory, and the cache of artifacts."""
