"""Single frames of a video, before and after, as pictures side by side."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice

import cv2
import numpy as np

from sdatc_cli.engine.job import Job, Watcher, frugal
from sdatc_cli.engine.plan import LENGTH
from sdatc_cli.engine.restore import restore_frames
from sdatc_cli.errors import UsageError
from sdatc_cli.media.container import show
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.isolated import IsolatedReader
from sdatc_cli.media.read import Frame
from sdatc_cli.media.write import upright
from sdatc_models.restorer import Restorer

COUNT = 5
RATE = 25  # frames a second where an input tells none, as `FrameReader` counts those of a folder


def spread(info: MediaInfo, start: float | None, duration: float | None, count: int = COUNT) -> tuple[float, ...]:
    """Moments in seconds, evenly spaced over an input or a part of it, none behind the start of its last frame.

    A still image has only 0. Raises UsageError when the length is not known and `duration` does not give it.
    """
    if info.kind == "image":
        return (0.0,)
    begin, rate = start or 0.0, float(info.frame_rate or RATE)
    length = info.frame_count / rate if info.duration is None and info.frame_count else info.duration
    ends = [end for end in (length, None if duration is None else begin + duration) if end is not None]
    if not ends:
        raise UsageError(f"{show(info.path)}: its length is not known; say with --preview where to take the stills")
    step = max(min(ends) - begin, 0.0) / count
    last = max(min(ends) - 1 / rate, begin)
    moments = (min(begin + (i + 0.5) * step, last) for i in range(count))
    return tuple(dict.fromkeys(math.floor(moment * 1000 + 1e-6) / 1000 for moment in moments))


def before_after(
    job: Job, moments: Sequence[float], load: Callable[[], Restorer], watcher: Watcher
) -> Iterator[np.ndarray | None]:
    """For each moment (seconds) the frame that begins there or next: its bicubic enlargement | itself restored.

    Each is (scale h, 2 scale w, 3) of the source's pixel type, turned upright half by half; None where the input has no
    frame. `job.out` is not written. Raises InputError.
    """
    for line in job.info.notices:
        watcher.notice(line)
    network = None
    for number, moment in enumerate(moments):
        watcher.progress(number, len(moments))
        frames = _frames_from(job.info, moment)
        if not frames:
            yield None
            continue
        network = network or frugal(load(), job, (), watcher.notice)
        restored = next(restore_frames(frames, network, job.scale)).image
        enlarged = cv2.resize(frames[0].image, restored.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        watcher.progress(number + 1, len(moments))
        yield np.hstack([upright(enlarged, job.info), upright(restored, job.info)])


def _frames_from(info: MediaInfo, moment: float) -> list[Frame]:
    """At most a clip's worth of frames from a moment on."""
    with IsolatedReader(info, moment) as reader, closing(_each(reader)) as frames:
        return list(islice(frames, LENGTH))


def _each(reader: IsolatedReader) -> Generator[Frame, None, None]:
    yield from reader
