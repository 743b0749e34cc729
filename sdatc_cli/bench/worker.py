"""The process that scores, so that a method on a GPU need not wait for metrics on the CPU."""

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
from types import TracebackType

from sdatc_cli.errors import DeviceError, SdatcError

from .scoring import NETWORK, Plan, RawVideo, Scores, load_networks, score_clip

POLL = 0.2  # seconds
_ticks: "Queue[int] | None" = None


def _prepare(ticks: "Queue[int]") -> None:
    global _ticks
    _ticks = ticks
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides


def _score(truth: RawVideo, versions: Sequence[RawVideo], plan: Plan) -> list[Scores]:
    ticks = _ticks
    return score_clip(truth, versions, plan, (lambda: None) if ticks is None else (lambda: ticks.put(1)))


def _warm_up(plan_names: Sequence[str], device: str) -> None:
    with contextlib.suppress(SdatcError):  # told when scoring
        load_networks([name for name in plan_names if name in NETWORK], device)


class Scorer:
    """One worker process; while the first clip is restored, it reads the networks of the metrics `names`.

    `tick` is called, while waiting, once for every frame that it has scored.
    """

    def __init__(self, names: Sequence[str], device: str, tick: Callable[[], None]):
        context = multiprocessing.get_context("spawn")
        self.tick = tick
        self.ticks: Queue[int] = context.Queue()
        self.pool = ProcessPoolExecutor(1, context, _prepare, (self.ticks,))
        self.pool.submit(_warm_up, names, device)

    def __enter__(self) -> "Scorer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for process in list((self.pool._processes or {}).values()):
                process.terminate()
        self.pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, truth: RawVideo, versions: Sequence[RawVideo], plan: Plan) -> "Future[list[Scores]]":
        """Starts scoring the versions of one clip."""
        return self.pool.submit(_score, truth, versions, plan)

    def result(self, future: "Future[list[Scores]]") -> list[Scores]:
        """Waits for a submitted clip. DeviceError when the process died, as it does when memory runs out."""
        while not wait([future], timeout=POLL).done:
            self.drain()
        self.drain()
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise DeviceError(
                "the scoring process died, most likely for lack of memory; --frames takes less"
            ) from error

    def drain(self) -> None:
        """Passes on the ticks that have arrived."""
        while not self.ticks.empty():
            self.ticks.get()
            self.tick()
