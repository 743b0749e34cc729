"""What the parent hears of processes that fail before or beside their work."""

import errno
import signal
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sdatc_cli.engine import scanner, workers
from sdatc_cli.engine.crew import Failed, Lost, Notice
from sdatc_cli.engine.job import Job
from sdatc_cli.engine.workers import Orders, WorkerCrew
from sdatc_cli.errors import DeviceError, OutputError, SdatcError
from sdatc_cli.media.info import MediaInfo

CPU = torch.device("cpu")
JOB = Job(MediaInfo(Path("in.mkv"), "video", 32, 24), Path("out.mkv"))


@pytest.fixture(autouse=True)
def own_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would run in a process of its own leaves those of the tests alone."""
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)


def too_large(device: torch.device, dtype: torch.dtype) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def test_networks_that_do_not_fit_are_told_in_one_line() -> None:
    ours, theirs = Pipe()
    workers._work(theirs, Orders(JOB, too_large, CPU, torch.float32, torch.get_num_threads()))
    failed = ours.recv()
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, SdatcError)
    assert (failed.error.exit_code, str(failed.error).partition(";")[0]) == (DeviceError.exit_code, "memory ran out")
    assert "too_large" in failed.error.__notes__[0], "for --debug"


def test_a_worker_ends_quietly_when_its_parent_was_killed() -> None:
    """The parent had not read all that it was told: its end is heard as a reset, not as an end."""
    pipe = SimpleNamespace(send=lambda event: None, recv=lambda: reset())

    def reset() -> None:
        raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    workers._work(pipe, Orders(JOB, lambda *_: None, CPU, torch.float32, torch.get_num_threads()))  # type: ignore[arg-type]


def test_a_worker_that_cannot_be_replaced_ends_nothing_while_others_work() -> None:
    crew = WorkerCrew(JOB, too_large, [CPU, CPU], torch.float32)
    ends = [Pipe(), Pipe()]
    process: Any = SimpleNamespace(join=lambda: None)
    crew._workers = [
        workers._Worker(orders, process, ours, number, ready=number == 0)
        for number, (orders, (ours, _)) in enumerate(zip(crew._orders, ends, strict=True))
    ]
    crew._begun = True
    assert crew.size == 2
    ends[1][1].send(Failed(DeviceError("memory ran out")))
    told = crew.events()
    assert [type(event) for event in told] == [Notice, Lost] and crew.size == 1
    assert told[1] == Lost(1, "a worker on cpu could not be replaced (memory ran out)")
    crew._workers[0].ready = False
    ends[0][1].send(Failed(DeviceError("memory ran out")))
    assert [type(event) for event in crew.events()] == [Failed]


def test_a_scan_that_fails_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scanner, "FrameReader", full)
    ours, theirs = Pipe()
    scanner._scan(theirs, JOB.info, None, None, SimpleNamespace(), 48)  # type: ignore[arg-type]
    told = ours.recv()
    assert told.exit_code == OutputError.exit_code and str(told).startswith("the disk is full")
