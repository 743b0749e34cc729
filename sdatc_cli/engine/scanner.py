"""The scan in a process of its own: it runs a few stretches ahead, and a decoder that crashes takes only it down."""

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from types import TracebackType

from sdatc_cli.engine.interrupts import without_ctrl_c
from sdatc_cli.engine.scan import Task, tasks
from sdatc_cli.errors import InputError, SdatcError
from sdatc_cli.explain import as_told
from sdatc_cli.media.clock import FrameClock
from sdatc_cli.media.container import show
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.read import FrameReader


class Scanner:
    """Iterates over the tasks of an input, once. A context manager.

    `damage`: after the last task, what could not be read, in lines for a person, as `FrameReader` tells it.
    """

    def __init__(
        self, info: MediaInfo, start: float | None, duration: float | None, clock: FrameClock, length: int
    ) -> None:
        """`clock` and `length` as `scan.tasks` takes them."""
        self.damage: list[str] = []
        self._info = info
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe(duplex=False)
        arguments = (theirs, info, start, duration, clock, length)
        self._process = context.Process(target=_scan, args=arguments, daemon=True)
        with without_ctrl_c():
            self._process.start()
        theirs.close()

    def __enter__(self) -> "Scanner":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.join()
        self._pipe.close()

    def __iter__(self) -> Iterator[Task]:
        """Raises InputError where nothing can be read, or where the decoder crashed."""
        while True:
            try:
                answer = self._pipe.recv()
            except (EOFError, OSError):
                raise InputError(
                    f"{show(self._info.path)}: the decoder crashed; with one --device what it cannot bear is left out"
                ) from None
            if isinstance(answer, Task):
                yield answer
                continue
            if isinstance(answer, SdatcError):
                raise answer
            self.damage = answer
            return


def _scan(
    pipe: Connection, info: MediaInfo, start: float | None, duration: float | None, clock: FrameClock, length: int
) -> None:
    """What runs in the process: sends the tasks, then the damage; or an error. Waits when it is far enough ahead."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ConnectionError):  # the parent has gone
        try:
            with FrameReader(info, start, duration) as reader:
                for task in tasks(reader.decoded(), clock, length):
                    pipe.send(task)
                pipe.send(reader.damage)
        except Exception as error:
            pipe.send(as_told(error))
