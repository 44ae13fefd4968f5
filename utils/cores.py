"""How many cores this process may use."""


def usable_cores() -> int:
    """Cores of this process's affinity, within the quota of its container (cgroups); at least 1."""
    import joblib  # not above: `--help` need not wait for it

    return joblib.cpu_count()
