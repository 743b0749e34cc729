"""How many processor cores this process may use."""

import os


def cores() -> int:
    """Of those of the machine, where the system confines a process to some (affinity)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
