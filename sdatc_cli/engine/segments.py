"""A video written in stretches that survive a crash, joined at the end.

Every stretch holds STRETCH frames of the input (at multiples of STRETCH of the absolute frame index) and is encoded by
an encoder of its own, so it depends on nothing but its frames: the output is the same, to the bit, whether or not the
work was interrupted in between, and in whatever order and wherever the stretches were made.
"""

import contextlib
from types import TracebackType

from sdatc_cli.engine import stretch
from sdatc_cli.engine.join import check_settings, join, record, trouble
from sdatc_cli.engine.journal import Journal
from sdatc_cli.engine.stretch import StretchWriter
from sdatc_cli.errors import OutputError
from sdatc_cli.media.clock import ClockState
from sdatc_cli.media.output_plan import OutputPlan
from sdatc_cli.media.read import Frame


class SegmentedVideo:
    """Takes restored frames in order, as `MediaWriter` does, and keeps finished stretches in a journal.

    A context manager. Frames that it `has` are there already. On an exception the finished stretches stay, and the work
    folder goes when there are none. `tile` is noted with each stretch.
    """

    def __init__(self, journal: Journal, plan: OutputPlan) -> None:
        """Raises UsageError for settings that do not fit; OutputError."""
        self.notices: list[str] = []
        self.tile: int | None = None
        self._journal = journal
        self._plan = plan
        self._finished = frozenset(segment.first // stretch.STRETCH for segment in journal.segments)
        self._open: StretchWriter | None = None
        check_settings(plan, journal.folder)

    def has(self, index: int) -> bool:
        """Whether an earlier run finished the stretch that the absolute index lies in."""
        return index // stretch.STRETCH in self._finished

    @property
    def stored(self) -> int:
        """Frames that are there."""
        return sum(segment.frames for segment in self._journal.segments) + (self._open.frames if self._open else 0)

    def __enter__(self) -> "SegmentedVideo":
        return self

    def write(self, frame: Frame) -> None:
        """Takes the next frame. OutputError when the disk is full or the output cannot be written."""
        number = frame.index // stretch.STRETCH
        try:
            if self._open is None or self._open.number != number:
                self._finish_stretch()
                file = self._journal.folder / f"{number:06}.packets"
                self._open = StretchWriter(self._plan, file, number, clock_before(self._journal, number))
            self._open.write(frame)
        except OSError as error:
            raise trouble(self._journal, error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish_stretch()
                self.notices = join(self._journal, self._plan)
                self._journal.remove()
            elif self._open is not None:
                with contextlib.suppress(OSError):
                    self._open.abort()
        except OutputError as problem:
            raise type(problem)(f"{problem}{self._journal.kept()}") from problem
        except OSError as problem:
            raise trouble(self._journal, problem) from problem
        finally:
            self._open = None
            self._journal.abandon()

    def _finish_stretch(self) -> None:
        writer, self._open = self._open, None
        if writer is None:
            return
        try:
            segment = writer.close(self.tile)
        except BaseException:
            with contextlib.suppress(OSError):
                writer.abort()
            raise
        record(self._journal, segment)


def clock_before(journal: Journal, number: int) -> ClockState:
    """Where the output's clock stands before a stretch, once all stretches before it are finished."""
    before = [segment for segment in journal.segments if segment.first // stretch.STRETCH < number]
    if not before:
        return ClockState()
    return ClockState(before[-1].last_pts, sum(segment.frames for segment in before), before[-1].repaired)
