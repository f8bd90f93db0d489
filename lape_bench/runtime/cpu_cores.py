"""The cores of this machine that this process may use."""


def available() -> int:
    """Return how many cores this process may use, by its affinity and by the quota of its container."""
    from joblib import cpu_count  # slow to import, and listings need none

    return int(cpu_count())
