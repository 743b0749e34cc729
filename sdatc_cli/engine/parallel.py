"""One video made by many processes: the stretches are planned, handed out, noted in the journal, and joined here.

The output is that of `job.upscale` on one device of the same kind, to the bit, and either takes up the unfinished work
of the other.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from sdatc_cli.engine import stretch
from sdatc_cli.engine.crew import Crew, Event, Failed, Finished, Lost, Notice, Progress
from sdatc_cli.engine.job import Job, Result, Watcher, expected_frames, first_tile, identity_of, open_journal
from sdatc_cli.engine.join import check_settings, join, record, trouble
from sdatc_cli.engine.journal import Journal
from sdatc_cli.engine.pipeline import Timing
from sdatc_cli.engine.scan import Task
from sdatc_cli.engine.scanner import Scanner
from sdatc_cli.engine.unit import Made
from sdatc_cli.errors import DeviceError, InputError, OutputError, UsageError
from sdatc_cli.media.video_track import VideoTrack
from sdatc_models.config import ModelConfig

RETRIES = 2  # of a stretch whose maker was lost


def upscale(job: Job, crew: Crew, config: ModelConfig, watcher: Watcher) -> Result:
    """Runs a job on a crew; `config` is that of its networks.

    Raises the classes of errors.py; finished stretches are kept then.
    """
    began = time.perf_counter()
    if not job.resumable:
        raise UsageError(f"{job.out}: several devices or machines write a video file; use one device for pictures")
    for line in job.info.notices:
        watcher.notice(line)
    identity = identity_of(job)
    journal = open_journal(job, identity, watcher.notice)
    try:
        check_settings(job.output, journal.folder)
        work = _Work(job, crew, config, watcher, journal)
        damage = work.do()
        if not journal.segments:
            raise InputError(f"{job.info.path}: no frames between the start and the end that were asked for")
        if identity_of(job) != identity:
            raise InputError(f"{job.info.path}: changed while it was read; run the command again")
        notices = join(journal, job.output)
        frames = sum(segment.frames for segment in journal.segments)
        journal.remove()
    except OutputError as error:
        raise type(error)(f"{error}{journal.kept()}") from error
    except OSError as error:
        raise trouble(journal, error) from error
    finally:
        journal.abandon()
    for line in [*damage, *notices]:
        watcher.notice(line)
    size = job.info.width, job.info.height
    seconds = time.perf_counter() - began
    return Result(frames, work.resumed, size, job.size, work.timing(), seconds, work.peak, work.tile)


@dataclass
class _Work:
    """The state of one run: what is being made, what is to be made again, and what it all took."""

    job: Job
    crew: Crew
    config: ModelConfig
    watcher: Watcher
    journal: Journal
    tile: int | None = None
    peak: dict[str, int] = field(default_factory=dict)
    resumed: int = 0
    _again: list[Task] = field(default_factory=list)
    _active: dict[int, Task] = field(default_factory=dict)
    _progress: dict[int, int] = field(default_factory=dict)
    _losses: Counter[int] = field(default_factory=Counter)
    _timings: list[Timing] = field(default_factory=list)
    _seconds: float = 0.0
    _most: int = 1  # tasks that were worked on at a time

    def do(self) -> list[str]:
        """Makes all stretches that the journal lacks; returns what of the input could not be read.

        Raises the classes of errors.py, OSError.
        """
        job = self.job
        self.resumed = self._stored()
        self.watcher.progress(self.resumed, self._total())
        clock = VideoTrack(job.output).clock
        done = frozenset(segment.first // stretch.STRETCH for segment in self.journal.segments)
        with Scanner(job.info, job.start, job.duration, clock, stretch.STRETCH) as scanner, self.crew:
            began = time.perf_counter()
            earlier = self.journal.segments
            self.tile = first_tile(job, self.config, earlier, self.crew.free, self.watcher.notice)
            self._hand_out(task for task in scanner if task.number not in done)
            self._seconds = time.perf_counter() - began
            return scanner.damage

    def _hand_out(self, plan: Iterator[Task]) -> None:
        while True:
            while len(self._active) < self.crew.size and (task := self._next(plan)) is not None:
                self._active[task.number] = task
                self.crew.submit(task, self.tile)
            self._most = max(self._most, len(self._active))
            if not self._active:
                return
            for event in self.crew.events():
                self._hear(event)

    def _next(self, plan: Iterator[Task]) -> Task | None:
        return self._again.pop(0) if self._again else next(plan, None)

    def _hear(self, event: Event) -> None:
        match event:
            case Progress(number, frames) if number in self._active:
                self._progress[number] = frames
                self.watcher.progress(self._stored() + sum(self._progress.values()), self._total())
            case Notice(line):
                self.watcher.notice(line)
            case Finished(number, made):
                self._keep(number, made)
            case Lost(number, why):
                self._lose(number, why)
            case Failed(error):
                raise error

    def _keep(self, number: int, made: Made) -> None:
        self._active.pop(number)
        self._progress.pop(number, None)
        record(self.journal, made.segment)
        self._timings.append(made.timing)
        for where, size in made.peak.items():
            self.peak[where] = max(size, self.peak.get(where, 0))
        tile = made.segment.tile
        if tile is not None and (self.tile is None or tile < self.tile):
            self.tile = tile  # memory ran out: the others need not try what failed
        self.watcher.progress(self._stored() + sum(self._progress.values()), self._total())

    def _lose(self, number: int, why: str) -> None:
        task = self._active.pop(number)
        self._progress.pop(number, None)
        self._losses[number] += 1
        last = task.first + task.frames - 1
        if self._losses[number] > RETRIES:
            raise DeviceError(
                f"frames {task.first} to {last} failed {RETRIES + 1} times ({why}); "
                f"{self._stored()} finished frames are kept, the same command goes on from there"
            )
        self.watcher.notice(f"frames {task.first} to {last} are made again: {why}")
        self._again.append(task)

    def _stored(self) -> int:
        return sum(segment.frames for segment in self.journal.segments)

    def _total(self) -> int | None:
        return expected_frames(self.job.info, self.job.start, self.job.duration)

    def timing(self) -> Timing:
        """Of the whole run; what was waited for is the mean over those that worked, starting and idling included."""
        working = sum(timing.working for timing in self._timings) / self._most
        output = sum(timing.waited_for_output for timing in self._timings) / self._most
        return Timing(self._seconds, max(self._seconds - working - output, 0.0), output)
