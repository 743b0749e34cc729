"""Single frames of a video, before and after, as pictures side by side."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice

import cv2
import numpy as np

from sdatc_cli.engine.job import Job, Watcher, frugal
from sdatc_cli.engine.plan import LENGTH
from sdatc_cli.engine.restore import restore_frames
from sdatc_cli.errors import InputError, UsageError
from sdatc_cli.media.container import show
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.read import Frame, FrameReader
from sdatc_cli.media.write import upright
from sdatc_models.restorer import Restorer

COUNT = 5
FOLDER_RATE = 25  # frames a second of a folder, as `FrameReader` counts


def spread(info: MediaInfo, start: float | None, duration: float | None, count: int = COUNT) -> tuple[float, ...]:
    """Moments in seconds, evenly spaced over an input or a part of it; a still image has only 0.

    Raises UsageError when the length is not known and `duration` does not give it.
    """
    if info.kind == "image":
        return (0.0,)
    begin = start or 0.0
    length = info.duration
    if length is None and info.frame_count:
        length = info.frame_count / float(info.frame_rate or FOLDER_RATE)
    if duration is not None:
        length = begin + duration if length is None else min(length, begin + duration)
    if length is None:
        raise UsageError(f"{show(info.path)}: its length is not known; say with --preview where to take the stills")
    return tuple(round(begin + (i + 0.5) * max(length - begin, 0.0) / count, 3) for i in range(count))


def before_after(
    job: Job, moments: Sequence[float], load: Callable[[], Restorer], watcher: Watcher
) -> Iterator[np.ndarray]:
    """For each moment (seconds) the frame that begins there or next: its bicubic enlargement | itself restored.

    Each is (scale h, 2 scale w, 3) of the source's pixel type, turned upright half by half. `job.out` is not written.
    Raises InputError where the input has no frame.
    """
    for line in job.info.notices:
        watcher.notice(line)
    network = None
    for number, moment in enumerate(moments):
        watcher.progress(number, len(moments))
        frames = _frames_from(job.info, moment)
        network = network or frugal(load(), job, None, watcher.notice)
        restored = next(restore_frames(frames, network, job.scale)).image
        enlarged = cv2.resize(frames[0].image, restored.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        watcher.progress(number + 1, len(moments))
        yield np.hstack([upright(enlarged, job.info), upright(restored, job.info)])


def _frames_from(info: MediaInfo, moment: float) -> list[Frame]:
    """A clip's worth of frames from a moment on, at least one."""
    with FrameReader(info, moment) as reader, closing(_each(reader)) as frames:
        found = list(islice(frames, LENGTH))
    if not found:
        raise InputError(f"{show(info.path)}: no frame at {moment:g} seconds or later")
    return found


def _each(reader: FrameReader) -> Generator[Frame, None, None]:
    yield from reader
