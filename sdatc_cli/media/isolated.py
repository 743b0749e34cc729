"""Reads untrusted inputs in a process of its own, so that a codec that crashes, hangs or devours memory harms nobody.

This guards against faults, not against an attacker who takes the decoder over: that process may do what the person may.
"""

import math
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from sdatc_cli.errors import InputError
from sdatc_cli.media.container import one_line, show
from sdatc_cli.media.decoder import DECODE, FAILED, FRAME, HEADER, READ, STEP, Request
from sdatc_cli.media.evidence import Evidence
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.read import Frame

PROGRAM = "sdatc_cli.media.decoder"
PATIENCE = 120.0  # seconds without any progress of a decoder that is waited for
_START = 4  # times as long for its start, on a busy machine
_MOST_DEATHS = 12  # of the decoder of one input
_LEAST_MEMORY = 4 << 30  # bytes of address space, most of which is never touched
_MEMORY_OF_THREAD = 160 << 20  # its stack and heap
_FRAMES_HELD = 80  # by a decoder with many threads and references, 6 bytes a pixel
_PIPE = 1 << 20  # bytes, where the system lets us choose


class _Died(Exception):
    """The decoder has ended without an answer; the text says how."""


class _Child:
    """One run of decoder.py. `step`, `number`, `time`: what it began last, "start" before the first packet."""

    def __init__(self, request: Request) -> None:
        """Raises InputError where no process can be started."""
        self.step, self.number, self.time = "start", 0, math.nan
        self._hung = False
        self._waiting_since: float | None = None
        how: dict[str, Any] = {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
        if os.name == "posix":
            how = {"process_group": 0}  # Ctrl-C is for the parent alone
        try:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", PROGRAM], env=_environment(), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=self._log, bufsize=1 << 16, **how,
            )  # fmt: skip
        except OSError as error:
            raise InputError(f"{show(request.path)}: no process to read it could be started ({error})") from error
        assert self._process.stdin is not None and self._process.stdout is not None
        self._answers: Any = self._process.stdout
        _enlarge(self._answers.fileno())
        with suppress(OSError):  # it died; the first answer that is missing tells
            self._process.stdin.write(pickle.dumps(request))
            self._process.stdin.flush()
        threading.Thread(target=self._watch, daemon=True).start()

    def receive(self) -> Any:
        """The next answer that is not a step: a Frame, or at the end anything else. Raises _Died, or its error."""
        while True:
            self._waiting_since = time.monotonic()
            kind, size = HEADER.unpack(self._exactly(HEADER.size))
            content = self._exactly(size)
            if kind in (READ, DECODE):
                self.step = "read" if kind == READ else "decode"
                self.number, self.time = STEP.unpack(content)
                continue
            answer = pickle.loads(content)
            frame = self._frame(*answer) if kind == FRAME else None
            self._waiting_since = None
            if kind == FAILED:
                raise answer[0](answer[1])
            return frame or answer

    def _exactly(self, size: int) -> bytes:
        data = self._answers.read(size)
        if len(data) < size:
            raise _Died(self._reason())
        return data

    def _frame(self, shapes: list[tuple[tuple[int, ...], str]], rest: tuple[Any, ...]) -> Frame:
        arrays = [np.empty(shape, dtype) for shape, dtype in shapes]
        for array in arrays:
            target = array.reshape(-1).view(np.uint8).data
            if self._answers.readinto(target) < len(target):
                raise _Died(self._reason())
        pts, time_base, index, name, duration, tags = rest
        return Frame(arrays[0], pts, time_base, index, name, duration, arrays[1] if len(arrays) > 1 else None, tags)

    def _reason(self) -> str:
        """How the process ended, in words."""
        if self._hung:
            return f"gave nothing for {PATIENCE:.0f} s"
        code = self._process.wait()
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"ended with status {code}" + (f": {one_line(ValueError(lines[-1][:200]))}" if lines else "")

    def _watch(self) -> None:
        """Ends a process that is waited for and does nothing."""
        while self._process.poll() is None:
            since = self._waiting_since
            patience = PATIENCE * (_START if self.step == "start" else 1)
            if since is not None and time.monotonic() - since > patience:
                self._hung = True
                self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(min(1.0, PATIENCE / 4))

    def kill(self) -> None:
        """Ends the process; who waits for it gets _Died."""
        self._process.kill()

    def end(self) -> None:
        """Ends the process and lets go of it."""
        self.kill()
        self._process.wait()
        for file in (self._process.stdin, self._answers, self._log):
            with suppress(OSError):  # a broken pipe
                if file is not None:
                    file.close()


class IsolatedReader:
    """As `FrameReader`, bit for bit, but another process decodes.

    When that dies or hangs, it is started again and works on one packet at a time; a packet at which it dies twice is
    left out. `damage` tells. Frames that were delivered are not delivered again.
    """

    def __init__(self, info: MediaInfo, start: float | None = None, duration: float | None = None) -> None:
        self.info = info
        self.damage: list[str] = []
        self._part = start, duration
        self._child: _Child | None = None
        self._cancelled = False
        self._restarts: list[str] = []
        self._points: set[tuple[str, int]] = set()  # where it died
        self._left_out: frozenset[int] = frozenset()
        self._stop: int | None = None

    def __enter__(self) -> "IsolatedReader":
        self._child = self._begin(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; iteration must have ended."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def cancel(self) -> None:
        """Ends the iteration, which may be in another thread, at once."""
        self._cancelled = True
        if self._child is not None:
            self._child.kill()

    def __iter__(self) -> Iterator[Frame]:
        """Raises InputError where nothing can be read, or where the decoder dies again and again."""
        done = 0
        while not self._cancelled:
            child = self._child = self._child or self._begin(done)
            try:
                answer = child.receive()
            except _Died as death:
                if not self._cancelled:
                    self._learn(child, str(death), done)
                continue
            except BaseException:
                self.close()
                raise
            if not isinstance(answer, Frame):
                self.close()
                self.damage = [*answer, *self._told()]
                return
            done += 1
            yield answer

    def _begin(self, skip: int) -> _Child:
        info = self.info
        care = self._left_out, self._stop, not self._restarts
        return _Child(Request(info.path, _memory_for(info), info, info.protocols, *self._part, skip, care))

    def _learn(self, child: _Child, how: str, done: int) -> None:
        """Draws the lesson from a death. Raises InputError when there is none."""
        self.close()
        self._restarts.append(how)
        point = child.step, child.number
        if point in self._points or len(self._restarts) >= _MOST_DEATHS:
            if child.step == "start" or len(self._restarts) >= _MOST_DEATHS:
                at = "" if math.isnan(child.time) else f" ({child.time:.2f} s)"
                raise InputError(
                    f"{show(self.info.path)}: the decoder {how} at frame {done}{at}, "
                    f"{len(self._restarts)} times in all; the file is too damaged for it"
                )
            if child.step == "read":
                self._stop = child.number
            else:
                self._left_out |= {child.number}
        self._points.add(point)

    def _told(self) -> Iterator[str]:
        if self._restarts:
            count = len(self._restarts)
            hows = ", ".join(dict.fromkeys(self._restarts))
            yield f"the decoder {hows} and was started again ({count} time{'s' if count > 1 else ''})"


def probe(path: Path, protocols: tuple[str, ...] = ()) -> MediaInfo:
    """As `probe.probe`, in another process.

    Raises InputError if the input is missing, unreadable, holds no frames or brings the decoder down.
    """
    child = _Child(Request(Path(path), _memory(), protocols=protocols))
    try:
        return child.receive()
    except _Died as death:
        raise InputError(f"{show(Path(path))}: the decoder {death} on this file; it cannot be restored") from death
    finally:
        child.end()


def evidence(info: MediaInfo) -> Evidence:
    """As `evidence.evidence`, in another process; nothing at all where that brings the decoder down."""
    child = _Child(Request(info.path, _memory_for(info), info, info.protocols, evidence=True))
    try:
        return child.receive()
    except (_Died, InputError):  # reading the frames will tell
        return Evidence()
    finally:
        child.end()


def _memory_for(info: MediaInfo) -> int:
    return _memory() + 6 * _FRAMES_HELD * info.width * info.height


def _memory() -> int:
    return _LEAST_MEMORY + _MEMORY_OF_THREAD * (os.cpu_count() or 1)


def _environment() -> dict[str, str]:
    """The decoder finds the same modules, and is content with little."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(dict.fromkeys([root, *filter(None, sys.path)]))
    return os.environ | {"PYTHONPATH": path, "MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}


def _enlarge(pipe: int) -> None:
    """Lets a pipe hold more, for fewer changes between the processes; Linux only."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
