"""Ctrl-C reaches every process of a terminal; those that work for another one leave it to that one."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Holds Ctrl-C back until the block ends. A process that starts meanwhile never sees it: its parent decides."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
