"""The CPU cores that this process may use."""


def available() -> int:
    """Return the number of cores that this process may use, by its affinity and the quota of its container."""
    from joblib import cpu_count  # slow to import, and listings do not need it

    return int(cpu_count())
