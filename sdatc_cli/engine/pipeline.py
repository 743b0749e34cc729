"""Three stages that overlap in time: one thread fetches frames, the caller works on them, one thread stores them.

The queues between them are short, so memory does not grow with the length of the video. An error in any stage, or
Ctrl-C in the caller, stops all three and is raised to the caller once both threads have ended. What the caller made
until then is stored first.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

POLL = 0.1  # seconds between looks at whether another stage has stopped
_END = object()


@dataclass
class Timing:
    """Seconds the caller's stage spent working, and waiting for either side; all wall-clock."""

    total: float = 0.0
    waited_for_input: float = 0.0
    waited_for_output: float = 0.0

    @property
    def working(self) -> float:
        return self.total - self.waited_for_input - self.waited_for_output


class _Stopped(Exception):
    """Another stage has ended the run."""


class _Line:
    """A bounded queue that gives up when the run has stopped."""

    def __init__(self, depth: int, stop: threading.Event) -> None:
        self._queue: Queue[Any] = Queue(depth)
        self._stop = stop

    def put(self, item: Any) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(item, timeout=POLL)
            except Full:
                continue
        raise _Stopped

    def get(self) -> Any:
        while not self._stop.is_set():
            try:
                return self._queue.get(timeout=POLL)
            except Empty:
                continue
        raise _Stopped


def run(
    source: Iterable[T],
    work: Callable[[Iterator[T]], Iterator[R]],
    store: Callable[[R], None],
    depth: int = 4,
    cancel: Callable[[], None] = lambda: None,
) -> Timing:
    """Drives `work(source)` into `store`. `source` is iterated in one thread, `store` called in another, `work` here.

    depth: items each of the two queues may hold. `cancel` makes a `source` that is waiting for something give up; it is
    called at the end, however that comes. Raises what any stage raised, the first one first. What `work` gave before it
    failed, or was interrupted, is stored.
    """
    stop = threading.Event()
    errors: list[BaseException] = []
    fetched, finished = _Line(depth, stop), _Line(depth, stop)

    def fetch() -> None:
        for item in source:
            fetched.put(item)
        fetched.put(_END)

    def keep() -> None:
        while (item := finished.get()) is not _END:
            store(item)

    timing = Timing()
    threads = [_stage(task, errors, stop) for task in (fetch, keep)]
    began = time.perf_counter()
    try:
        try:
            for result in work(_received(fetched, timing)):
                _timed_put(finished, result, timing)
        except _Stopped:
            raise
        except BaseException as error:
            errors.append(error)  # what was made before is stored all the same
        _timed_put(finished, _END, timing)
        while threads[1].is_alive():
            threads[1].join(POLL)
    except _Stopped:
        pass
    finally:
        stop.set()
        cancel()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    timing.total = time.perf_counter() - began
    return timing


def _stage(task: Callable[[], None], errors: list[BaseException], stop: threading.Event) -> threading.Thread:
    """Runs `task` in a thread; what it raises goes to `errors` and stops the run."""

    def guarded() -> None:
        try:
            task()
        except _Stopped:
            pass
        except BaseException as error:
            errors.append(error)
            stop.set()

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    return thread


def _received(line: _Line, timing: Timing) -> Iterator[Any]:
    while True:
        began = time.perf_counter()
        item = line.get()
        timing.waited_for_input += time.perf_counter() - began
        if item is _END:
            return
        yield item


def _timed_put(line: _Line, item: Any, timing: Timing) -> None:
    began = time.perf_counter()
    line.put(item)
    timing.waited_for_output += time.perf_counter() - began
