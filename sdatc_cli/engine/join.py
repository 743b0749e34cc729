"""From finished stretches to the output: keeping them, joining them, and what to say when the disk fails."""

import errno
import os
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
CLEARLY = 0.25  # of that is more than any film can do without


def check_room(journal: Journal, size: tuple[int, int], frames: int) -> str | None:
    """What to say when so many more frames of (width, height) may find no room; OutputError if clearly none."""
    more = int(size[0] * size[1] * frames * BYTES_PER_PIXEL)
    for folder, need in _wanted(journal, more, _written(journal) + more).items():
        free = shutil.disk_usage(folder).free
        needs = f"{show(folder)}: the output needs about {need / 1e9:.1f} GB there while it is made"
        needs += f", and {free / 1e9:.1f} GB are free"
        if free < CLEARLY * need + MARGIN:
            raise OutputError(f"{needs}; make room, or give --work-dir on another disk")
        if free < need + MARGIN:
            return needs
    return None


def _written(journal: Journal) -> int:
    return sum(segment.size for segment in journal.segments)


def _output_folder(journal: Journal) -> Path:
    """Where the output will lie, its name may be a link."""
    return Path(os.path.realpath(journal.out)).parent


def _wanted(journal: Journal, stretches: int, output: int) -> dict[Path, int]:
    """The bytes that the disk of the stretches must have free, and that of the output where it is another."""
    work, out = journal.folder.parent, _output_folder(journal)
    if work.stat().st_dev == out.stat().st_dev:
        return {work: stretches + output}
    return {work: stretches, out: output}


def check_settings(plan: OutputPlan, folder: Path) -> None:
    """Writes and removes the head of the output in `folder`. UsageError for settings that do not fit; OutputError."""
    VideoSink(replace(plan, out=folder / f"container{plan.out.suffix}")).abort()


def record(journal: Journal, segment: Segment) -> None:
    """Notes a finished stretch. OSError; ENOSPC as soon as the joined output would not fit any more."""
    journal.append(segment)
    for folder, need in _wanted(journal, 0, _written(journal)).items():
        if shutil.disk_usage(folder).free < need + MARGIN:
            raise OSError(errno.ENOSPC, "the disk is nearly full", str(folder))


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
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        work, out = journal.folder.parent, _output_folder(journal)
        full = out if error.filename == str(out) else work
        return OutputError(f"{show(full)}: the disk is full{journal.kept()}")
    return OutputError(f"{show(journal.out)}: cannot be written ({one_line(error)}){journal.kept()}")
