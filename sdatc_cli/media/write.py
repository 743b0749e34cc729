"""Where restored frames go: a video file, a still image, or a folder of PNGs, by the output's name."""

from pathlib import Path
from types import TracebackType

import numpy as np

from sdatc_cli.errors import OutputError, UsageError
from sdatc_cli.media.container import one_line, show
from sdatc_cli.media.encoders import EncodeOptions
from sdatc_cli.media.images import ALPHA_SUFFIXES, holds_tags, is_image, write_image
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.output_plan import OutputPlan
from sdatc_cli.media.read import Frame
from sdatc_cli.media.target import TargetFile, TargetFolder, check_target
from sdatc_cli.media.video_sink import VideoSink

__all__ = ["EncodeOptions", "MediaWriter"]


class MediaWriter:
    """A context manager that takes restored frames in order and delivers the output whole or not at all.

    The ending of `out` decides: none for a folder of PNGs, an image's for a still, else a video container. Leaving the
    context normally flushes, copies the input's other streams and names the file; on an exception nothing is left.
    `notices` are lines a person should read: what was left out or changed, complete once the context is left.
    """

    def __init__(
        self,
        out: Path,
        source: MediaInfo,
        width: int,
        height: int,
        options: EncodeOptions,
        overwrite: bool,
        start: float | None = None,
        duration: float | None = None,
        folder: bool = False,
    ) -> None:
        """`folder`: a folder of PNGs, whatever its name ends in. Raises UsageError or OutputError before anything is
        written."""
        out = Path(out)
        check_target(out, source.path, overwrite, source.frames)
        self.out = out
        if folder or out.is_dir() or not out.suffix:
            self._sink: VideoSink | _FolderSink | _ImageSink = _FolderSink(out, source, overwrite)
        elif is_image(out):
            self._sink = _ImageSink(out, source, overwrite)
        else:
            self._sink = VideoSink(OutputPlan(out, source, (width, height), options, start, duration, overwrite))
        self._shape = (height, width, 3)

    @property
    def notices(self) -> list[str]:
        """What a person should know of the output."""
        return self._sink.notices

    def __enter__(self) -> "MediaWriter":
        return self

    def write(self, frame: Frame) -> None:
        """Take the next restored frame; its image is (height, width, 3) uint8 or uint16.

        Raises OutputError if the output cannot be written.
        """
        if frame.image.shape != self._shape:
            raise ValueError(f"frame of shape {frame.image.shape} for an output of {self._shape}")
        self._sink.write(frame)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._sink.finish()
        else:
            self._sink.abort()


class _FolderSink:
    """Numbered PNGs in a folder, turned upright, named by their absolute index in the input."""

    def __init__(self, out: Path, info: MediaInfo, overwrite: bool) -> None:
        self.notices = _left_out(info)
        self._info = info
        self._target = TargetFolder(out, frozenset({".png"}), overwrite)
        self._count = 0

    def write(self, frame: Frame) -> None:
        """Store one frame."""
        path = self._target.path / f"{frame.index:08d}.png"
        image, out = upright(frame.image, self._info), self._target.out / path.name
        write_image(path, image, frame.alpha, self._info.color, frame.tags, out)
        self._count += 1

    def finish(self) -> None:
        """Give the output its name. Raises OutputError if it is empty or cannot be named."""
        if not self._count:
            self.abort()
            raise OutputError(f"{show(self._target.out)}: not written, for there is no frame to put into it")
        self._target.commit()

    def abort(self) -> None:
        """Remove what was written."""
        self._target.discard()


SEVERAL = "an image cannot hold several frames; give a folder or video"


class _ImageSink:
    """One still image."""

    def __init__(self, out: Path, info: MediaInfo, overwrite: bool) -> None:
        self.notices = _left_out(info)
        suffix = out.suffix.lower()
        if info.color.hdr and suffix != ".png":
            raise UsageError(f"the input is HDR ({info.color.hdr}) and {suffix} would wash it out; use .png or a video")
        if info.has_alpha and suffix not in ALPHA_SUFFIXES:
            self.notices.append(f"transparency is not kept: {suffix} cannot hold it; .png can")
        if info.tags.names and not holds_tags(suffix, info.bit_depth):
            depth = " of 16 bits" if suffix in (".tif", ".tiff") else ""
            self.notices.append(f"{info.tags.names} left out: {suffix}{depth} has no place for that; .png has")
        self._info = info
        self._target = TargetFile(out, overwrite)
        self._count = 0

    def write(self, frame: Frame) -> None:
        """Store the only frame. Raises UsageError at a second one."""
        if self._count:
            raise UsageError(f"{show(self._target.out)}: {SEVERAL}")
        image, target = upright(frame.image, self._info), self._target
        write_image(target.path, image, frame.alpha, self._info.color, frame.tags, target.out)
        self._count = 1

    def finish(self) -> None:
        """Give the output its name. Raises OutputError if it is empty or cannot be named."""
        if not self._count:
            self.abort()
            raise OutputError(f"{show(self._target.out)}: not written, for there is no frame to put into it")
        self._target.commit()

    def abort(self) -> None:
        """Remove what was written. Raises OutputError if that fails."""
        try:
            self._target.discard()
        except OSError as error:
            raise OutputError(f"{show(self._target.out)}: {one_line(error)}") from error


def _left_out(info: MediaInfo) -> list[str]:
    """What pictures cannot hold of a video."""
    notices = []
    others = [str(s) for s in info.streams if s.index != info.video_index]
    if info.kind == "video" and others:
        notices.append(f"pictures hold no other streams: {', '.join(others)} left out")
    if info.sample_aspect_ratio is not None:
        ratio = info.sample_aspect_ratio
        notices.append(f"pixels are {ratio.numerator}:{ratio.denominator}, not square; pictures cannot say so")
    return notices


def upright(image: np.ndarray, info: MediaInfo) -> np.ndarray:
    """Turn and mirror a picture as the display matrix of its source tells players to (multiples of 90 degrees)."""
    if info.display_matrix is None:
        return image
    a, b, _, c, d = info.display_matrix[:5]
    if abs(b) > abs(a):  # x and y change places
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
