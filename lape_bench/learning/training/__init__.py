"""The training loop, what runs on it, and the probes."""
