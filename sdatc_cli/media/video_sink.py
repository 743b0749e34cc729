"""A video file being written: encoded frames, and everything else of the input copied beside them."""

import contextlib
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np

from sdatc_cli.errors import OutputError, UsageError
from sdatc_cli.media.color import Converter, is_rgb, resolve
from sdatc_cli.media.container import one_line, show
from sdatc_cli.media.encoders import EncodeOptions, EncoderPlan, container_format, plan_encoder
from sdatc_cli.media.info import MATRIX_RGB, RANGE_FULL, MediaInfo
from sdatc_cli.media.read import Frame
from sdatc_cli.media.remux import StreamCopier, live_tags
from sdatc_cli.media.target import TargetFile

_ROTATABLE = {"matroska", "webm", "mp4", "mov"}
_RATE_ONLY = {"mpeg1video", "mpeg2video"}  # codecs that know no times, only a rate
_SQUARE_ONLY = {"libsvtav1", "libaom-av1", "libvpx-vp9", "libvpx", "prores_ks", "prores", "mjpeg"}
_FREE_RUNNING = {"mpegts", "mpeg"}  # containers whose clock starts anywhere


class VideoSink:
    """Encodes frames into a temporary file; `finish` completes and names it, `abort` removes it."""

    def __init__(
        self,
        out: Path,
        info: MediaInfo,
        width: int,
        height: int,
        options: EncodeOptions,
        start: float | None,
        duration: float | None,
    ) -> None:
        """Raises UsageError if codec, options and container do not fit; OutputError if `out` cannot be written."""
        self.notices: list[str] = []
        self._info, self._out, self._start = info, out, start
        self._format = container_format(out)
        self._plan = plan_encoder(options, self._format, info, width, height)
        self.notices += self._plan.notices
        if info.has_alpha and info.kind != "video":
            self.notices.append("transparency is not kept: the frames stand over their own colours; pictures keep it")
        rgb = is_rgb(info.pix_fmt)
        size = (width, height) if rgb or info.kind != "video" else (info.width, info.height)
        self._color = resolve(info.color, *size, rgb_source=rgb or info.kind != "video")
        self._converter = Converter(self._color)
        self._rate = options.frame_rate or info.frame_rate or Fraction(25)
        self._base = self._time_base()
        self._shift = self._clock_shift()
        self._last: int | None = None
        self._count = self._repaired = 0
        self._target = TargetFile(out)
        self._output: Any = None
        self._copier: StreamCopier | None = None
        try:
            self._output = av.open(
                f"file:{self._target.path}", "w", format=self._format, container_options=self._container_options()
            )
            if info.kind == "video":
                end = None if duration is None else (start or 0.0) + duration
                self._copier = StreamCopier(info, self._format, start, end, self._shift)
                self._copier.add_streams(self._output, before=True)
            self._stream = self._add_video(width, height)
            if self._copier is not None:
                self._copier.add_streams(self._output, before=False)
                self._copy_header(self._copier, duration)
                self._copier.begin()
                self.notices += self._copier.notices
                self._copier.notices.clear()
            self._open()
        except BaseException:
            self.abort()
            raise

    def _time_base(self) -> Fraction:
        """The encoder's clock: the input's own, unless container or codec cannot count in it."""
        base = self._info.time_base
        if base is None or self._format == "avi" or self._plan.codec in _RATE_ONLY or not 0 < base <= 1:
            return 1 / self._rate
        limit = 65535 if self._plan.codec in ("mpeg4", "msmpeg4", "msmpeg4v2", "h263", "h263p") else 1_000_000
        if base.denominator > limit:
            return Fraction(1, base.denominator // -(-base.denominator // limit))
        return base

    def _container_options(self) -> dict[str, str]:
        """Keep the muxer from moving frames, and from writing dates and random numbers into the file.

        AVI counts in whole frames: shifted by the priming of its sound, the video would get a hole. MP4 counts the time
        before the first frame in a clock of its own: let it be as fine as the frames'.
        """
        options = {"fflags": "+bitexact"}
        if self._format == "avi":
            options["avoid_negative_ts"] = "disabled"
        if self._format in ("mp4", "mov"):
            scale = self._base.denominator
            options["movie_timescale"] = str(scale * -(-10_000 // scale))
        return options

    def _clock_shift(self) -> float:
        """Seconds to take off every timestamp of the input."""
        if self._start is not None:
            return self._info.start_time + self._start
        return self._info.start_time if self._info.container in _FREE_RUNNING else 0.0

    def _add_video(self, width: int, height: int) -> Any:
        plan, info, color = self._plan, self._info, self._color
        try:
            stream = self._output.add_stream(plan.codec, rate=self._rate, width=width, height=height,
                                             pix_fmt=plan.pix_fmt, time_base=self._base)  # fmt: skip
        except ValueError as error:
            ending = self._out.suffix
            raise UsageError(f"{ending} cannot hold {plan.codec} video; use .mkv or another --codec") from error
        context = stream.codec_context
        context.time_base = self._base
        rgb = is_rgb(plan.pix_fmt)
        context.colorspace = MATRIX_RGB if rgb else color.matrix
        context.color_range = RANGE_FULL if rgb else color.range
        context.color_primaries, context.color_trc = color.primaries, color.transfer
        context.options = dict(plan.options)
        if plan.quantiser is not None:
            context.qscale = True
            context.global_quality = plan.quantiser * 118  # FF_QP2LAMBDA
        if self._format == "avi":
            context.max_b_frames = 0  # AVI stores no presentation times
        if info.sample_aspect_ratio is not None:
            self._set_aspect(context, info.sample_aspect_ratio)
        self._rotate(stream)
        return stream

    def _set_aspect(self, context: Any, ratio: Fraction) -> None:
        context.sample_aspect_ratio = ratio
        if self._format not in ("mp4", "mov") and self._plan.codec in _SQUARE_ONLY:
            shape = f"{ratio.numerator}:{ratio.denominator}"
            self.notices.append(f"{self._plan.codec} in {self._format} cannot say that pixels are {shape}; .mp4 can")

    def _rotate(self, stream: Any) -> None:
        if self._info.display_matrix is None:
            return
        if self._format in _ROTATABLE:
            stream.set_display_matrix(self._info.display_matrix)
        else:
            self.notices.append(
                f"{self._format} cannot store the rotation by {self._info.rotation} degrees; .mkv, .mp4 and .mov can"
            )

    def _copy_header(self, copier: StreamCopier, duration: float | None) -> None:
        """Tags and chapters."""
        source = copier.input.streams[self._info.video_index]
        self._stream.metadata.update(live_tags(source.metadata))
        self._stream.metadata.pop("rotate", None)
        self._stream.disposition = source.disposition
        self._output.metadata.update(live_tags(copier.input.metadata))
        chapters = []
        for chapter in copier.input.chapters():
            base = chapter["time_base"] or Fraction(1, 1000)
            shift = round(Fraction(self._shift) / base)
            start, end = chapter["start"] - shift, chapter["end"] - shift
            limit = end if duration is None else round(Fraction(duration) / base)
            if self._start is not None and (end <= 0 or start >= limit):
                continue
            chapters.append({**chapter, "start": max(start, 0), "end": min(end, limit)})
        if chapters and self._format in ("mpegts", "avi"):
            self.notices.append(f"{len(chapters)} chapters left out: {self._format} cannot hold them")
        elif chapters:
            self._output.set_chapters(chapters)

    def _open(self) -> None:
        """Open the encoder and write the header now, so that bad settings show before any frame is restored."""
        os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 would report itself on stderr: errors only
        try:
            self._stream.codec_context.open(strict=False)
            self._output.start_encoding()
        except av.error.OSError as error:
            raise OutputError(f"{show(self._out)}: cannot be written ({one_line(error)})") from error
        except (av.error.FFmpegError, ValueError) as error:
            raise UsageError(
                f"{self._plan.codec} refuses these settings ({self._plan.pix_fmt}, {_words(self._plan)}): "
                f"{one_line(error)}"
            ) from error

    def write(self, frame: Frame) -> None:
        """Encode one frame and copy what belongs before it."""
        picture = self._converter.to_frame(_depth(frame.image, self._info), self._plan.pix_fmt)
        picture.pts = self._pts(frame)
        picture.time_base = self._base
        if frame.duration and frame.time_base:
            picture.duration = round(frame.duration * frame.time_base / self._base)
        self._encode(picture)

    def _pts(self, frame: Frame) -> int:
        if frame.pts is None or frame.time_base is None:
            pts = round(self._count / self._rate / self._base)
        else:
            pts = round((frame.pts * frame.time_base - Fraction(self._shift)) / self._base)
        self._count += 1
        if self._last is not None and pts <= self._last:
            pts = self._last + 1
            self._repaired += 1
        self._last = pts
        return pts

    def _encode(self, picture: Any) -> None:
        try:
            for packet in self._stream.encode(picture):
                time = packet.dts if packet.dts is not None else packet.pts
                seconds = float(time * packet.time_base)
                self._output.mux(packet)
                if self._copier is not None:
                    self._copier.advance(seconds)
        except (av.error.FFmpegError, ValueError, ArithmeticError, MemoryError) as error:
            raise OutputError(f"{show(self._out)}: cannot be written ({one_line(error)})") from error

    def finish(self) -> None:
        """Flush the encoder, copy the rest, write the trailer, and give the file its name."""
        if self._count == 0:
            self.abort()
            raise OutputError(f"{show(self._out)}: not written, for there is no frame to put into it")
        try:
            self._encode(None)
            if self._copier is not None:
                self._copier.advance(None)
                self._copier.close()
                self.notices += self._copier.notices
            self._output.close()
        except (av.error.FFmpegError, ValueError, ArithmeticError) as error:
            self.abort()
            raise OutputError(f"{show(self._out)}: cannot be written ({one_line(error)})") from error
        except BaseException:
            self.abort()
            raise
        if self._repaired:
            why = "avi knows only a constant rate" if self._format == "avi" else "they did not advance"
            self.notices.append(f"{self._repaired} frames were moved behind their predecessors: {why}")
        self._target.commit()

    def abort(self) -> None:
        """Remove what was written."""
        if self._copier is not None:
            self._copier.close()
        if self._output is not None:
            with contextlib.suppress(Exception):  # whatever the muxer says of a file that is thrown away
                self._output.close()
        self._target.discard()


def _depth(image: np.ndarray, info: MediaInfo) -> np.ndarray:
    return image if image.dtype in (np.uint8, np.uint16) else np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _words(plan: EncoderPlan) -> str:
    return ", ".join(f"{k}={v}" for k, v in plan.options.items()) or "no options"
