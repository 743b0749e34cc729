"""Processes of their own: one that scores, so that a GPU need not wait for it, and one for each method.

A method alone in its process has a peak of memory that is its own, and takes nothing else down when memory runs out.
"""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from sdatc_cli.engine.interrupts import without_ctrl_c
from sdatc_cli.engine.orphans import end_with_parent
from sdatc_cli.errors import DeviceError, SdatcError

from .meter import Meter
from .methods import Job, Method
from .scoring import NETWORK, Plan, RawVideo, Scores, load_networks, score_clip

T = TypeVar("T")
POLL = 0.1  # seconds


class Child:
    """One process that calls functions for us. `tick` is called here for every step it reports."""

    def __init__(self, what: str, tick: Callable[[], None]):
        context = multiprocessing.get_context("spawn")
        self.what, self.tick = what, tick
        self.ticks: Queue[int] = context.Queue()
        self.pool = ProcessPoolExecutor(1, context, _prepare, (self.ticks,))

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(at_once=kind is not None)

    def close(self, at_once: bool = False) -> None:
        """Ends the process; `at_once` in the middle of its work."""
        if at_once:
            for process in list((self.pool._processes or {}).values()):
                process.terminate()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[..., T], *arguments: Any) -> "Future[T]":
        """Starts a call of a function of this module; with the first call the process starts."""
        with without_ctrl_c():
            return self.pool.submit(function, *arguments)

    def result(self, future: "Future[T]") -> T:
        """Waits for a call. DeviceError when the process died, as it does when memory runs out."""
        while not wait([future], timeout=POLL).done:
            self._drain()
        self._drain()
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise DeviceError(f"{self.what} ended without a word, most likely for lack of memory") from error

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Calls a function of this module and waits for it."""
        return self.result(self.submit(function, *arguments))

    def _drain(self) -> None:
        while not self.ticks.empty():
            self.ticks.get()
            self.tick()


# ---- what runs in the processes -------------------------------------------------------------------------------------

_ticks: "Queue[int] | None" = None
_method: Method | None = None


@dataclass(frozen=True)
class Restored:
    """A restored clip, and what it took."""

    video: RawVideo
    seconds: float
    count: int
    peak_bytes: int | None
    notices: tuple[str, ...]


def _prepare(ticks: "Queue[int]") -> None:
    global _ticks
    _ticks = ticks
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _tick() -> None:
    if _ticks is not None:
        _ticks.put(1)


def load_method(method: Method) -> dict[str, Any]:
    """Keeps a method, its weights read; returns its settings, complete now."""
    global _method
    method.load()
    _method = method
    return method.settings


def restore(job: Job, path: Path) -> Restored:
    """Restores a clip into a raw file with the method that was loaded."""
    assert _method is not None
    meter = Meter(_method.device)
    _method.notices.clear()
    frames: list[int] = []

    def images(results: Iterator[tuple[int, np.ndarray]]) -> Iterator[np.ndarray]:
        for index, image in meter.over(results):
            frames.append(index)
            yield image
            _tick()

    video = RawVideo.write(path, images(_method.restore(job)), frames)  # not gathered: the peak is the method's own
    return Restored(video, meter.seconds, meter.count, meter.peak_bytes, tuple(_method.notices))


def warm_up(names: Sequence[str], device: str) -> None:
    """Reads the networks of metrics ahead of time."""
    with contextlib.suppress(SdatcError):  # told when scoring
        load_networks([name for name in names if name in NETWORK], device)


def score(truth: RawVideo, versions: Sequence[RawVideo], plan: Plan) -> list[Scores]:
    """As `score_clip`."""
    return score_clip(truth, versions, plan, _tick)
