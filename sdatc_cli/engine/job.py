"""One video (image, folder) from a file to a file."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from sdatc_cli import __version__
from sdatc_cli.engine.join import check_room
from sdatc_cli.engine.journal import VERSION, Journal, Segment, input_identity, work_folder
from sdatc_cli.engine.memory import Frugal, clip_bytes, free_bytes, peak_bytes, tile_bytes, tile_for
from sdatc_cli.engine.pipeline import Timing, run
from sdatc_cli.engine.plan import LENGTH
from sdatc_cli.engine.restore import restore_frames
from sdatc_cli.engine.segments import SegmentedVideo
from sdatc_cli.errors import InputError, UsageError
from sdatc_cli.media.container import show
from sdatc_cli.media.encoders import CONTAINERS, EncodeOptions
from sdatc_cli.media.images import is_image
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.isolated import IsolatedReader
from sdatc_cli.media.output_plan import OutputPlan
from sdatc_cli.media.read import Frame
from sdatc_cli.media.target import TargetFile, check_target
from sdatc_cli.media.write import SEVERAL, MediaWriter
from sdatc_models.config import ModelConfig
from sdatc_models.restorer import RestoreOptions, Restorer


@dataclass(frozen=True)
class Job:
    """What to make of what. `start` and `duration` are seconds; `tile_auto` lets free memory choose `restore.tile`.

    A video output is written in stretches that survive a crash: `resume` takes up earlier ones, which lie in `work_dir`
    or beside the output. `folder`: the output is one of frames, whatever its name ends in. `model` identifies the
    weights and how they compute: work of other weights is not taken up.
    """

    info: MediaInfo
    out: Path
    scale: int = 4
    restore: RestoreOptions = field(default_factory=RestoreOptions)
    tile_auto: bool = True
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    start: float | None = None
    duration: float | None = None
    overwrite: bool = False
    resume: bool = True
    work_dir: Path | None = None
    folder: bool = False
    model: dict[str, Any] = field(default_factory=dict)

    def made_by(self, weights: dict[str, str], device: str, dtype: str) -> "Job":
        """The job with what its work depends on: the weights' checksums, the kind of device, the number format."""
        return replace(self, model={"weights": weights, "device": device, "dtype": dtype})

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the output, before rotation."""
        return self.scale * self.info.width, self.scale * self.info.height

    @property
    def output(self) -> OutputPlan:
        """What the stretches of a video output share."""
        return OutputPlan(self.out, self.info, self.size, self.encode, self.start, self.duration, self.overwrite)

    @property
    def resumable(self) -> bool:
        """Whether the output is a video file, which is written in stretches."""
        return not self.folder and self.out.suffix.lower() in CONTAINERS and not self.out.is_dir()

    def identity(self) -> dict[str, Any]:
        """All that the output depends on. OSError when the input has gone."""
        settings = {"scale": self.scale, "start": self.start, "duration": self.duration, "tile_auto": self.tile_auto}
        return {
            "version": f"{VERSION}, sdatc {__version__}",
            "input": input_identity(self.info),
            "settings": settings | asdict(self.restore),
            "encoder": {key: str(value) for key, value in asdict(self.encode).items()},
            "model": self.model,
        }


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
    resumed: int  # of them, finished by an earlier run
    input_size: tuple[int, int]  # width, height
    output_size: tuple[int, int]
    timing: Timing
    seconds: float  # all of it, opening and closing files included
    peak: dict[str, int]  # bytes: "host", "device"
    tile: int | None

    @property
    def fps(self) -> float:
        """Frames a second of this run."""
        return (self.frames - self.resumed) / self.timing.total if self.timing.total else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "frames": self.frames,
            "resumed_frames": self.resumed,
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
    for line in job.info.notices:
        watcher.notice(line)
    total = expected_frames(job.info, job.start, job.duration)
    identity = identity_of(job)
    with ExitStack() as stack:
        reader = stack.enter_context(IsolatedReader(job.info, job.start, job.duration))
        sink, lacks, stored, earlier = open_sink(job, identity, stack, watcher.notice)
        resumed = stored
        network = frugal(load(), job, earlier, watcher.notice)
        watcher.progress(stored, total)

        def store(frame: Frame) -> None:
            nonlocal stored
            if isinstance(sink, SegmentedVideo):
                sink.tile = network.options.tile
            sink.write(frame)
            stored += 1
            watcher.progress(stored, total)

        def work(frames: Iterator[Frame]) -> Iterator[Frame]:
            return restore_frames(frames, network, job.scale, lacks)

        timing = run(reader, work, store, cancel=reader.cancel)
        if not stored:
            raise InputError(f"{job.info.path}: no frames between the start and the end that were asked for")
        if identity_of(job) != identity:
            raise InputError(f"{job.info.path}: changed while it was read; run the command again")
    for line in [*reader.damage, *sink.notices]:
        watcher.notice(line)
    peak = peak_bytes(network.restorer.device)
    size = job.info.width, job.info.height
    seconds = time.perf_counter() - began
    return Result(stored, resumed, size, job.size, timing, seconds, peak, network.options.tile)


def open_sink(
    job: Job, identity: dict[str, Any], stack: ExitStack, notice: Callable[[str], None]
) -> tuple[MediaWriter | SegmentedVideo, Callable[[int], bool], int, Sequence[Segment]]:
    """Where frames go; whether it lacks a frame, how many frames it has, and the stretches they are in.

    Raises UsageError or OutputError.
    """
    if not job.resumable:
        count = expected_frames(job.info, job.start, job.duration) or 0
        if count > 2 and is_image(job.out) and not (job.folder or job.out.is_dir()):  # of a few, it may be wrong
            raise UsageError(f"{show(job.out)}: {SEVERAL}")
        how = job.encode, job.overwrite, job.start, job.duration, job.folder
        writer = MediaWriter(job.out, job.info, *job.size, *how)
        return stack.enter_context(writer), lambda index: True, 0, ()
    journal = open_journal(job, identity, notice)
    try:
        sink = SegmentedVideo(journal, job.output)
    except BaseException:
        journal.abandon()
        raise
    earlier = tuple(journal.segments)
    return stack.enter_context(sink), lambda index: not sink.has(index), sink.stored, earlier


def open_journal(job: Job, identity: dict[str, Any], notice: Callable[[str], None]) -> Journal:
    """The journal of a video output, with the earlier work that can be taken up. Raises OutputError."""
    check_target(job.out, job.info.path, job.overwrite)
    if job.work_dir is not None:
        TargetFile(job.out, job.overwrite).discard()  # told now where it cannot be written, not when all is done
    journal = Journal(work_folder(job.out, job.work_dir), job.out)
    try:
        earlier = journal.begin(identity, job.resume)
        left = (expected_frames(job.info, job.start, job.duration) or 0) - sum(s.frames for s in journal.segments)
        short = check_room(journal, job.size, max(left, 0))
    except BaseException:
        journal.abandon()
        raise
    for line in filter(None, [earlier, short]):
        notice(line)
    return journal


def frugal(restorer: Restorer, job: Job, earlier: Sequence[Segment], notice: Callable[[str], None]) -> Frugal[Restorer]:
    """The network with the tile that a run begins with."""
    restorer.unet.recordings.clear()  # of an earlier file: their memory passes for free
    tile = first_tile(job, restorer.config, earlier, free_bytes(restorer.device), notice)
    return Frugal(restorer, replace(job.restore, tile=tile), notice)


def first_tile(
    job: Job, config: ModelConfig, earlier: Sequence[Segment], free: int | None, notice: Callable[[str], None]
) -> int | None:
    """The tile that an earlier run ended with, else that of --tile, else the one that `free` bytes allow.

    None for whole frames.
    """
    if earlier:
        return earlier[-1].tile
    return pick_tile(job, config, free, notice) if job.tile_auto else job.restore.tile


def pick_tile(job: Job, config: ModelConfig, free: int | None, notice: Callable[[str], None]) -> int | None:
    """The tile that `free` bytes allow the networks of a configuration; None for whole frames."""
    cost, height, width = tile_bytes(config), job.info.height, job.info.width
    tile = tile_for(free, LENGTH, height, width, cost)
    if tile is not None:
        notice(f"frames are restored in tiles of {tile} pixels, to fit the free memory; --tile N sets another size")
    need = clip_bytes(LENGTH, height, width, tile, cost)
    if free is not None and need > free:
        notice(f"memory may run out: a clip takes up to {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    return tile


def expected_frames(info: MediaInfo, start: float | None, duration: float | None) -> int | None:
    """How many frames a run will probably read; None when the container does not tell."""
    count = info.frame_count
    rate = float(info.frame_rate or (25 if info.kind == "frames" else 0))  # a folder is read as if it had 25
    if count is None or not (start or duration) or not rate:
        return count
    left = max(0, count - round((start or 0) * rate))
    return left if duration is None else min(left, round(duration * rate))


def identity_of(job: Job) -> dict[str, Any]:
    """`job.identity`, with InputError in place of OSError."""
    try:
        return job.identity()
    except OSError as error:
        raise InputError(f"{job.info.path}: cannot be read any more ({error.strerror})") from error
