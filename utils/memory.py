"""Peak memory of this process."""

import sys

try:
    import resource
except ImportError:  # on Windows
    resource = None


def peak_memory() -> int | None:
    """The most bytes that this process has had resident so far; None where the system does not say it."""
    if resource is None:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # kibibytes, but for macOS
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
