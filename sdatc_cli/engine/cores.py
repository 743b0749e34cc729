"""How many processor cores this process may use."""

import math
import os

from sdatc_cli.engine.confines import processors


def cores() -> int:
    """Of those of the machine, where the system confines a process to some, or to the time of some."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, max(1, math.ceil(processors() or count)))


def confine_torch() -> None:
    """Has PyTorch compute with one thread a core at most: it counts those of the machine, and more threads than a
    container has the time for wait for each other. OMP_NUM_THREADS still decides where it is set."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > cores():
        torch.set_num_threads(cores())
