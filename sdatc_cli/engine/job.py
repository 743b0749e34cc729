"""One video (image, folder) from a file to a file."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from sdatc_cli.engine.memory import Frugal, free_bytes, peak_bytes, tile_for
from sdatc_cli.engine.pipeline import Timing, run
from sdatc_cli.engine.plan import LENGTH
from sdatc_cli.engine.restore import restore_frames
from sdatc_cli.errors import InputError
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.read import Frame, FrameReader
from sdatc_cli.media.write import EncodeOptions, MediaWriter
from sdatc_models.restorer import RestoreOptions, Restorer

# Peak bytes of the networks for one LR pixel of one frame, whole frames. lite: measured in fp32 (9,200 at 320x180,
# 12,300 at 160x90). base: an estimate; where it is too low, the tile is halved on the way.
BYTES_PER_PIXEL = {"lite": 12_000, "base": 60_000}


@dataclass(frozen=True)
class Job:
    """What to make of what. `start` and `duration` are seconds; `tile_auto` lets free memory choose `restore.tile`."""

    info: MediaInfo
    out: Path
    scale: int = 4
    restore: RestoreOptions = field(default_factory=RestoreOptions)
    tile_auto: bool = True
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    start: float | None = None
    duration: float | None = None
    overwrite: bool = False


class Watcher(Protocol):
    """Hears of a job while it runs; called from one thread at a time, the one that stores frames or the caller's."""

    def progress(self, done: int, total: int | None) -> None:
        """`done` frames are stored; `total` is an estimate."""

    def notice(self, line: str) -> None:
        """Something a person should know."""


@dataclass(frozen=True)
class Result:
    """What a job did. Seconds are wall-clock, from the first frame asked for to the last one stored."""

    frames: int
    input_size: tuple[int, int]  # width, height
    output_size: tuple[int, int]
    timing: Timing
    seconds: float  # all of it, opening and closing files included
    peak: dict[str, int]  # bytes: "host", "device"
    tile: int | None

    @property
    def fps(self) -> float:
        return self.frames / self.timing.total if self.timing.total else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "frames": self.frames,
            "input_size": list(self.input_size),
            "output_size": list(self.output_size),
            "seconds": round(self.seconds, 3),
            "fps": round(self.fps, 4),
            "network_seconds": round(self.timing.working, 3),
            "decode_wait_seconds": round(self.timing.waited_for_input, 3),
            "encode_wait_seconds": round(self.timing.waited_for_output, 3),
            "peak_memory_bytes": self.peak,
            "tile": self.tile,
        }


def upscale(job: Job, load: Callable[[], Restorer], watcher: Watcher) -> Result:
    """Runs a job. `load` is called once the output is known to be good. Raises the classes of errors.py."""
    began = time.perf_counter()
    info = job.info
    for line in info.notices:
        watcher.notice(line)
    width, height = job.scale * info.width, job.scale * info.height
    total = expected_frames(info, job.start, job.duration)
    stored = 0
    with (
        FrameReader(info, job.start, job.duration) as reader,
        MediaWriter(job.out, info, width, height, job.encode, job.overwrite, job.start, job.duration) as writer,
    ):
        network = frugal(load(), job, watcher.notice)
        watcher.progress(0, total)

        def store(frame: Frame) -> None:
            nonlocal stored
            writer.write(frame)
            stored += 1
            watcher.progress(stored, total)

        def work(frames: Iterator[Frame]) -> Iterator[Frame]:
            return restore_frames(frames, network, job.scale)

        timing = run(reader, work, store)
        if not stored:
            raise InputError(f"{info.path}: no frames between the start and the end that were asked for")
    for line in [*reader.damage, *writer.notices]:
        watcher.notice(line)
    return Result(
        frames=stored,
        input_size=(info.width, info.height),
        output_size=(width, height),
        timing=timing,
        seconds=time.perf_counter() - began,
        peak=peak_bytes(network.restorer.device),
        tile=network.options.tile,
    )


def frugal(restorer: Restorer, job: Job, notice: Callable[[str], None]) -> Frugal[Restorer]:
    """The network with the tile that free memory allows."""
    options = job.restore
    if job.tile_auto:
        free = free_bytes(restorer.device)
        tile = tile_for(
            free, LENGTH, job.info.height, job.info.width, BYTES_PER_PIXEL.get(restorer.config.name, 12_000)
        )
        if tile is not None:
            notice(f"frames are restored in tiles of {tile} pixels, to fit the free memory; --tile N sets another size")
        options = replace(options, tile=tile)
    return Frugal(restorer, options, notice)


def expected_frames(info: MediaInfo, start: float | None, duration: float | None) -> int | None:
    """How many frames a run will probably read; None when the container does not tell."""
    count = info.frame_count
    if count is None or not (start or duration) or not info.frame_rate:
        return count
    rate = float(info.frame_rate)
    left = max(0, count - round((start or 0) * rate))
    return left if duration is None else min(left, round(duration * rate))
