"""One pass over the input that decides everything about its stretches, so that any process can make any one of them.

The pass decodes all frames in order, as a run on one device does, but neither converts nor restores them. It settles
which frames there are, their numbers and times, and where the output's clock stands before each stretch. Checksums
identify the frames of a task: a process that begins to decode at a keyframe can tell whether it gets the same pictures.
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from sdatc_cli.engine.plan import LENGTH
from sdatc_cli.errors import InputError
from sdatc_cli.media.clock import ClockState, FrameClock
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.read import Decoded, Frame, FrameReader, Mark

AROUND = LENGTH  # frames on either side of a stretch that decide which clips its own frames are in
LEAD = 3  # frames between a keyframe and the first frame that is needed: what a deinterlacer takes to settle


@dataclass(frozen=True)
class Task:
    """Make stretch `number` of an output: its frames [first, stop), by absolute index.

    `marks` are those frames and the stream's frames up to AROUND places on either side. Decoding may begin at `place`;
    None stands for the start. `clock`: where the output's clock stands before the first frame.
    """

    number: int
    first: int
    stop: int
    marks: tuple[Mark, ...]
    place: Mark | None
    clock: ClockState

    @property
    def frames(self) -> int:
        """How many frames the stretch has."""
        return sum(self.first <= mark.index < self.stop for mark in self.marks)


@dataclass
class _Growing:
    """A task that waits for the last of its frames."""

    number: int
    length: int
    place: Mark | None
    clock: ClockState
    marks: list[Mark] = field(default_factory=list)

    @property
    def stop(self) -> int:
        return (self.number + 1) * self.length

    def task(self) -> Task:
        return Task(self.number, self.number * self.length, self.stop, tuple(self.marks), self.place, self.clock)


def tasks(frames: Iterable[Decoded], clock: FrameClock, length: int) -> Iterator[Task]:
    """The tasks of an input in rising order, each as soon as its last frame has come; holds a few hundred marks.

    length: frames of a stretch, a multiple of plan.STRIDE. `clock` stands at the beginning of the output.
    """
    recent: deque[Mark] = deque(maxlen=AROUND)
    keyframes: list[Mark] = []
    growing: list[_Growing] = []
    for frame in frames:
        mark, number = frame.mark(), frame.index // length
        while growing and mark.index >= growing[0].stop + AROUND:
            yield growing.pop(0).task()
        if not growing or growing[-1].number != number:
            before = [other for other in recent if other.index >= number * length - AROUND]
            begin = (before[0] if before else mark).index
            while len(keyframes) > 1 and keyframes[1].index <= begin - LEAD:
                keyframes.pop(0)
            place = keyframes[0] if keyframes and keyframes[0].index <= begin - LEAD else None
            growing.append(_Growing(number, length, place, clock.state, before))
        for task in growing:
            task.marks.append(mark)
        clock.tick(frame.pts, frame.time_base)
        recent.append(mark)
        if frame.keyframe:
            keyframes.append(mark)
    for task in growing:
        yield task.task()


def task_frames(task: Task, info: MediaInfo, start: float | None, duration: float | None) -> Generator[Frame]:
    """The frames that the marks of a task name, exactly as a pass from the start gives them.

    Decodes from the task's keyframe; from the start, which takes longer, where that gives other pictures. InputError
    when the input is not what it was.
    """
    position = 0
    for place in [None] if task.place is None else [task.place, None]:
        with FrameReader(info, start, duration) as reader, closing(reader.decoded(place)) as frames:
            for frame in frames:
                expected = task.marks[position]
                if frame.index < expected.index:
                    continue
                if frame.index != expected.index or (place is not None and frame.mark() != expected):
                    break
                yield frame.frame()
                position += 1
                if position == len(task.marks):
                    return
    raise InputError(f"{info.path}: changed while it was read; run the command again")
