"""The unit of work for any process on any machine: restore and encode one stretch."""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from sdatc_cli.engine.journal import Segment
from sdatc_cli.engine.memory import Frugal, peak_bytes
from sdatc_cli.engine.pipeline import Timing, run
from sdatc_cli.engine.restore import restore_part
from sdatc_cli.engine.scan import Task, task_frames
from sdatc_cli.engine.stretch import StretchWriter
from sdatc_cli.media.output_plan import OutputPlan
from sdatc_cli.media.read import Frame
from sdatc_models.restorer import Restorer


@dataclass(frozen=True)
class Made:
    """A finished stretch, what it took, and the most memory of the process in bytes: "host", "device"."""

    segment: Segment
    timing: Timing
    peak: dict[str, int]


def make_stretch(
    task: Task, plan: OutputPlan, network: Frugal[Restorer], scale: int, file: Path, progress: Callable[[int], None]
) -> Made:
    """Makes one stretch of an output in `file`, the same to the bit wherever it is made on the same kind of device.

    `plan.info` says where the input lies. `progress` hears, in another thread, how many frames are stored. Raises the
    classes of errors.py, OSError; what was written is removed then.
    """
    writer = StretchWriter(plan, file, task.number, task.clock)
    try:
        with closing(task_frames(task, plan.info, plan.start, plan.duration)) as frames:

            def store(frame: Frame) -> None:
                writer.write(frame)
                progress(writer.frames)

            def work(source: Iterator[Frame]) -> Iterator[Frame]:
                return restore_part(source, network, scale, task.first, task.stop)

            timing = run(frames, work, store)
        segment = writer.close(network.options.tile)
    except BaseException:
        with suppress(OSError):
            writer.abort()
        raise
    return Made(segment, timing, peak_bytes(network.restorer.device))
