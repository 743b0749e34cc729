"""Processes that work for another one end with it, however it ends."""

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


def end_with_parent() -> None:
    """Ends this process at once when the one that started it has gone, even if that was killed.

    For the processes of a ProcessPoolExecutor: they hold both ends of the queue that they read from, and would wait at
    it for ever, with all their memory.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
