"""The program that reads an untrusted input in a process of its own; `isolated.py` starts it and talks to it.

It takes one pickled `Request` from stdin, which then stays open for as long as its parent lives. Its answers on stdout
are a kind and a size (HEADER) and a pickle; behind a frame's pickle follow the pixels of its arrays.
"""

import os
import pickle
import signal
import struct
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdatc_cli.errors import InputError, SdatcError
from sdatc_cli.host_memory import host_memory_ran_out
from sdatc_cli.media.container import show
from sdatc_cli.media.evidence import evidence
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.probe import probe
from sdatc_cli.media.read import Care, Frame, FrameReader

HEADER = struct.Struct("<cQ")  # kind, bytes of the pickle
STEP = struct.Struct("<qd")  # number of a packet, seconds or NaN; the whole of READ and DECODE
READ, DECODE, FRAME, END, FAILED = b"R", b"D", b"F", b"E", b"X"
_LOG = 1 << 20  # bytes that codecs may say on stderr


@dataclass(frozen=True)
class Request:
    """What to do. With `info` its frames are read and the first `skip` of them not sent, or with
    `evidence` that of its compression alone; else `path` is probed.

    `memory` limits the address space in bytes. `care` is (left_out, stop, threads) of read.Care.
    """

    path: Path
    memory: int
    info: MediaInfo | None = None
    protocols: tuple[str, ...] = ()
    start: float | None = None
    duration: float | None = None
    skip: int = 0
    care: tuple[frozenset[int], int | None, bool] = (frozenset(), None, True)
    evidence: bool = False


class _Answers:
    """The way back to the parent; when it has gone, so does this process."""

    def __init__(self, handle: int) -> None:
        self._file = os.fdopen(handle, "wb")

    def send(self, kind: bytes, content: bytes, arrays: tuple[np.ndarray, ...] = ()) -> None:
        """Waits until the parent has taken all but what the pipe holds."""
        try:
            self._file.write(HEADER.pack(kind, len(content)) + content)
            for array in arrays:
                self._file.write(array.reshape(-1).view(np.uint8).data)
            self._file.flush()
        except OSError:
            os._exit(1)

    def tell(self, step: str, number: int, time: float | None) -> None:
        """What is done next, see read.Care."""
        self.send(READ if step == "read" else DECODE, STEP.pack(number, float("nan") if time is None else time))


def main() -> None:
    """Answers one request."""
    for name in (signal.SIGINT, signal.SIGTERM):  # the parent decides when this ends
        signal.signal(name, signal.SIG_IGN)
    answers = _Answers(os.dup(1))
    os.dup2(2, 1)  # libraries that print would spoil the answers
    request: Request = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit(request.memory)
    try:
        kind, content = END, _answer(request, answers)
    except SdatcError as error:
        kind, content = FAILED, (type(error), str(error))
    except Exception as error:  # a mistake in this program, told as such by the parent, unless memory ran out
        kind, content = FAILED, (RuntimeError, f"{type(error).__name__} in the decoder: {error}")
        if host_memory_ran_out(error):
            content = (InputError, f"{show(request.path)}: reading it takes more memory than a video may")
    answers.send(kind, pickle.dumps(content))
    os._exit(0)  # without the clean-up of codecs that may be broken


def _answer(request: Request, answers: _Answers) -> Any:
    """The MediaInfo or the Evidence that was asked for; or, after all frames, what was damaged."""
    if request.info is None:
        return probe(request.path, request.protocols)
    if request.evidence:
        return evidence(request.info)
    care = Care(*request.care, tell=answers.tell)
    with FrameReader(request.info, request.start, request.duration, care) as reader:
        for count, frame in enumerate(reader):
            if count >= request.skip:
                _send_frame(frame, answers)
        return reader.damage


def _send_frame(frame: Frame, answers: _Answers) -> None:
    arrays = tuple(np.ascontiguousarray(a) for a in (frame.image, frame.alpha) if a is not None)
    shapes = [(array.shape, array.dtype.str) for array in arrays]
    rest = (frame.pts, frame.time_base, frame.index, frame.name, frame.duration, frame.tags)
    answers.send(FRAME, pickle.dumps((shapes, rest)), arrays)


def _end_with_parent() -> None:
    """Waits for the end of stdin, which comes when the parent has ended in whatever way."""
    with suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(1)


def _limit(memory: int) -> None:
    """No runaway memory, no core dumps, no endless complaints."""
    try:
        import resource
    except ImportError:  # Windows
        return
    for what, most in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, _LOG)):
        hard = resource.getrlimit(what)[1]
        with suppress(ValueError, OSError):
            resource.setrlimit(what, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    main()
