"""When the frames of an input are shown."""

from av.video.frame import VideoFrame


class FrameTimes:
    """Chooses each frame's timestamp: its own, or the decoder's clock where the container's are in disorder (AVI)."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._last: int | None = None
        self._last_pts = self._last_dts = -(1 << 62)
        self._bad_pts = self._bad_dts = 0
        self._ahead: int | None = None

    def time(self, frame: VideoFrame, first_dts: int | None) -> int:
        """Timestamp of the next frame; `first_dts` is when the decoder began, some frames before it gave any."""
        pts, dts = (value if value is not None and abs(value) < 1 << 60 else None for value in (frame.pts, frame.dts))
        if dts is not None:
            self._bad_dts += dts <= self._last_dts
            self._last_dts = dts
        if pts is not None:
            self._bad_pts += pts <= self._last_pts
            self._last_pts = pts
        else:
            self._bad_pts += 1
        if dts is not None:
            if self._ahead is None:
                self._ahead = dts - first_dts if first_dts is not None and pts is None else 0
            dts -= self._ahead
        chosen = pts if pts is not None and (dts is None or self._bad_pts <= self._bad_dts) else dts
        if chosen is None:
            chosen = 0 if self._last is None else self._last + self._step
        self._last = chosen
        return chosen
