"""One process for each device of this machine. A process that dies is replaced; its stretch is reported as lost."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType

import torch

from sdatc_cli.engine.crew import Event, Failed, Finished, Lost, Notice, Progress
from sdatc_cli.engine.interrupts import without_ctrl_c
from sdatc_cli.engine.job import Job
from sdatc_cli.engine.journal import work_folder
from sdatc_cli.engine.memory import Frugal, free_bytes
from sdatc_cli.engine.scan import Task
from sdatc_cli.engine.unit import make_stretch
from sdatc_cli.errors import DeviceError, SdatcError
from sdatc_cli.explain import as_told
from sdatc_models.restorer import Restorer

POLL = 0.5  # seconds
Loader = Callable[[torch.device, torch.dtype], Restorer]  # must be a function of a module, or a partial of one


@dataclass(frozen=True)
class Ready:
    """A worker has its networks; `free` bytes of its device are left."""

    free: int


@dataclass(frozen=True)
class Orders:
    """All that a worker needs to know beside its tasks; `threads` are those of a CPU."""

    job: Job
    load: Loader
    device: torch.device
    dtype: torch.dtype
    threads: int


@dataclass
class _Worker:
    """A process, and the number of the stretch it makes."""

    orders: Orders
    process: BaseProcess
    pipe: Connection
    number: int | None = None
    ready: bool = False


class WorkerCrew:
    """A crew of processes on this machine, one for each of `devices`; the same device may be named several times."""

    def __init__(self, job: Job, load: Loader, devices: Sequence[torch.device], dtype: torch.dtype):
        threads = share_of_threads(len(devices))
        self._orders = [Orders(job, load, device, dtype, threads) for device in devices]
        self._workers: list[_Worker] = []
        self._free: list[int] = []
        self._begun = False

    @property
    def size(self) -> int:
        return len(self._workers)

    @property
    def free(self) -> int | None:
        return min(self._free, default=None)

    def __enter__(self) -> "WorkerCrew":
        try:
            self._workers = [_start(orders) for orders in self._orders]
            while not all(worker.ready for worker in self._workers):
                for event in self.events():
                    if isinstance(event, Failed):
                        raise event.error
        except BaseException:
            self._end(at_once=True)
            raise
        self._begun = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(at_once=kind is not None)

    def submit(self, task: Task, tile: int | None) -> None:
        worker = next(worker for worker in self._workers if worker.number is None)
        worker.number = task.number
        with contextlib.suppress(OSError):  # it has died; `events` will tell
            worker.pipe.send((task, tile))

    def events(self) -> list[Event]:
        heard: list[Event] = []
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(pipes), POLL):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                event = worker.pipe.recv()
            except (EOFError, OSError):
                heard += self._bury(worker)
                continue
            if isinstance(event, Ready):
                worker.ready = True
                shared = sum(orders.device == worker.orders.device for orders in self._orders)
                self._free.append(event.free // shared)
                continue
            if isinstance(event, Finished):
                worker.number = None
            elif isinstance(event, Lost):
                self._replace(worker)
            elif isinstance(event, Failed) and not worker.ready:
                heard += self._do_without(worker, event)
                continue
            heard.append(event)
        return heard

    def _bury(self, worker: _Worker) -> list[Event]:
        """A worker has ended: puts another in its place, unless it never came so far as to work."""
        worker.process.join()
        worker.pipe.close()
        code = worker.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        likely = ", most likely for lack of memory" if code == -getattr(signal, "SIGKILL", 9) else ""
        why = f"the worker on {worker.orders.device} ended ({how}{likely})"
        if not worker.ready:
            return self._do_without(worker, Failed(DeviceError(f"{why} before it began to work")))
        self._workers[self._workers.index(worker)] = _start(worker.orders)
        return [] if worker.number is None else [Lost(worker.number, why)]

    def _do_without(self, worker: _Worker, failed: Failed) -> list[Event]:
        """A worker could not begin: when it was to replace another and some are at work, these do without it."""
        if not self._begun or not any(other.ready for other in self._workers):
            return [failed]
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        why = f"a worker on {worker.orders.device} could not be replaced ({failed.error})"
        lost = [] if worker.number is None else [Lost(worker.number, why)]
        return [Notice(f"{why}; the others go on"), *lost]

    def _replace(self, worker: _Worker) -> None:
        """Puts another in the place of a worker that is about to end, and would take the next task with it."""
        worker.process.terminate()
        worker.process.join()
        worker.pipe.close()
        self._workers[self._workers.index(worker)] = _start(worker.orders)

    def _end(self, at_once: bool) -> None:
        for worker in self._workers:
            if at_once:
                worker.process.terminate()
            with contextlib.suppress(OSError):
                worker.pipe.send(None)
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []


def share_of_threads(workers: int) -> int:
    """How many threads each process computes with on CPUs: as OMP_NUM_THREADS says, else an equal share."""
    threads = torch.get_num_threads()
    return threads if "OMP_NUM_THREADS" in os.environ else max(1, threads // workers)


def _start(orders: Orders) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, orders), daemon=True)
    with without_ctrl_c():
        process.start()
    theirs.close()
    return _Worker(orders, process, ours)


# ---- what runs in the processes -------------------------------------------------------------------------------------


def _work(pipe: Connection, orders: Orders) -> None:
    """Makes stretches until None comes, the parent has gone, or an error that may have spoilt the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(orders.threads)
    lock = threading.Lock()

    def tell(event: Event | Ready) -> None:
        with lock:
            pipe.send(event)

    with contextlib.suppress(EOFError, ConnectionError):  # the parent has gone
        try:
            restorer = orders.load(orders.device, orders.dtype)
            ready = Ready(free_bytes(orders.device))
        except Exception as error:
            tell(Failed(as_told(error)))
            return
        tell(ready)
        while (order := pipe.recv()) is not None:
            task, tile = order
            result = _result(task, tile, orders, restorer, tell)
            tell(result)
            if isinstance(result, Lost):
                return


def _result(
    task: Task, tile: int | None, orders: Orders, restorer: Restorer, tell: Callable[[Event], None]
) -> Finished | Failed | Lost:
    job = orders.job
    network = Frugal(restorer, replace(job.restore, tile=tile), lambda line: tell(Notice(line)))
    file = work_folder(job.out, job.work_dir) / f"{task.number:06}-{os.getpid()}.packets"

    def progress(frames: int) -> None:
        tell(Progress(task.number, frames))

    try:
        return Finished(task.number, make_stretch(task, job.output, network, job.scale, file, progress))
    except BrokenPipeError:
        raise  # the parent has gone
    except (SdatcError, OSError) as error:
        return Failed(error)
    except Exception as error:
        return Lost(task.number, f"{type(error).__name__} on {orders.device}: {error}")
