"""From finished stretches to the output: keeping them, joining them, and what to say when the disk fails."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

from sdatc_cli.engine.journal import Journal, Segment
from sdatc_cli.engine.packets import timed
from sdatc_cli.errors import OutputError
from sdatc_cli.media.container import one_line, show
from sdatc_cli.media.output_plan import OutputPlan
from sdatc_cli.media.video_sink import VideoSink

MARGIN = 64 << 20  # bytes of disk that are left free
BYTES_PER_PIXEL = 0.04  # of output: 16 Mbit/s at 1080p; stretches and the joined file both need them


def check_room(folder: Path, size: tuple[int, int], frames: int) -> None:
    """OutputError when the disk of `folder` has clearly too little room for so many frames of (width, height)."""
    need = 2 * int(size[0] * size[1] * frames * BYTES_PER_PIXEL) + MARGIN
    free = shutil.disk_usage(folder).free
    if free < need:
        raise OutputError(
            f"{show(folder)}: the output needs about {need / 1e9:.1f} GB while it is made, and {free / 1e9:.1f} GB are "
            "free; make room, or give --work-dir on another disk"
        )


def check_settings(plan: OutputPlan, folder: Path) -> None:
    """Writes and removes the head of the output in `folder`. UsageError for settings that do not fit; OutputError."""
    VideoSink(replace(plan, out=folder / f"container{plan.out.suffix}")).abort()


def record(journal: Journal, segment: Segment) -> None:
    """Notes a finished stretch. OSError; ENOSPC as soon as the joined output would not fit any more."""
    journal.append(segment)
    written = sum(segment.size for segment in journal.segments)
    free = shutil.disk_usage(journal.folder).free
    if free < written + MARGIN:  # the joined output needs as much again
        raise OSError(errno.ENOSPC, "the disk is nearly full")


def join(journal: Journal, plan: OutputPlan) -> list[str]:
    """Makes the output of all stretches and the input's other streams; returns lines for a person. OSError,
    OutputError."""
    sink = VideoSink(plan)
    try:
        paths = [journal.folder / segment.name for segment in journal.segments]
        delay = max((segment.delay for segment in journal.segments), default=0)
        for packet, dts in timed(paths, delay):
            sink.write_encoded(packet.payload, packet.pts, dts, packet.duration, packet.keyframe)
    except BaseException:
        sink.abort()
        raise
    sink.finish(journal.segments[-1].repaired if journal.segments else 0)
    return sink.notices


def trouble(journal: Journal, error: OSError) -> OutputError:
    """What a person can do about a failure of the disk."""
    kept = sum(segment.frames for segment in journal.segments)
    again = f"; {kept} finished frames are kept, the same command goes on from there" if kept else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OutputError(f"{show(journal.folder.parent)}: the disk is full{again}")
    return OutputError(f"{show(journal.out)}: cannot be written ({one_line(error)}){again}")
