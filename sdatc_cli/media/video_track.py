"""The restored video as a stream: its encoder, settled by settings, source and container, and frames to packets."""

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import av.error
import numpy as np
from av.container import OutputContainer
from av.packet import Packet

from sdatc_cli.errors import OutputError, UsageError
from sdatc_cli.media.clock import ClockState, FrameClock
from sdatc_cli.media.color import Converter, chroma_lies_left, is_rgb, resolve
from sdatc_cli.media.container import one_line, show
from sdatc_cli.media.encoders import EncoderPlan, container_format, plan_encoder
from sdatc_cli.media.info import MATRIX_RGB, RANGE_FULL, MediaInfo
from sdatc_cli.media.output_plan import OutputPlan
from sdatc_cli.media.read import Frame

LONGEST = Fraction(1800)  # seconds that a picture may last: MP4 counts the ticks of one in 31 bits
_ROTATABLE = {"matroska", "webm", "mp4", "mov"}
_RATE_ONLY = {"mpeg1video", "mpeg2video"}  # codecs that know no times, only a rate
_SQUARE_ONLY = {"libsvtav1", "libaom-av1", "libvpx-vp9", "libvpx", "prores_ks", "prores", "mjpeg"}
_FREE_RUNNING = {"mpegts", "mpeg"}  # containers whose clock starts anywhere


class VideoTrack:
    """The video stream of one output: `add_to` a container, then `open`, then `encode`.

    `format` is FFmpeg's name of the container, `shift` the seconds that its clock lies behind the input's, `end` where
    the wanted part ends on it, in seconds, or None. `clock` gives the timestamps, `notices` are lines for a person.
    """

    def __init__(self, plan: OutputPlan) -> None:
        """Raises UsageError if codec, options and container do not fit."""
        info, size, options = plan.info, plan.size, plan.encode
        self._info, self._out, self._size = info, plan.out, size
        self.format = container_format(plan.out)
        self._plan = plan_encoder(options, self.format, info, *size)
        self.notices = list(self._plan.notices)
        if info.has_alpha and info.kind != "video":
            self.notices.append("transparency is not kept: the frames stand over their own colours; pictures keep it")
        if info.tags.names:
            self.notices.append(f"{info.tags.names} left out: a video has no place for that; pictures have")
        rgb = is_rgb(info.pix_fmt)
        coded = size if rgb or info.kind != "video" else (info.width, info.height)
        self._color = resolve(info.color, *coded, rgb_source=rgb or info.kind != "video")
        self._converter = Converter(self._color)
        self._rate = options.frame_rate or info.frame_rate or Fraction(25)
        self.shift = _shift(info, plan.start)
        self.end = _end(plan, self.shift)
        self.clock = FrameClock(self._time_base(), self._rate, self.shift)
        self._durations: dict[int, int] = {}  # of the frames that the encoder has, by their timestamps
        self.stream: Any = None

    def _time_base(self) -> Fraction:
        """The encoder's clock: the input's own, unless container or codec cannot count in it."""
        base = self._info.time_base
        if base is None or self.format == "avi" or self._plan.codec in _RATE_ONLY or not 0 < base <= 1:
            return 1 / self._rate
        limit = 65535 if self._plan.codec in ("mpeg4", "msmpeg4", "msmpeg4v2", "h263", "h263p") else 1_000_000
        if base.denominator > limit:
            return Fraction(1, base.denominator // -(-base.denominator // limit))
        return base

    def add_to(self, output: OutputContainer) -> None:
        """Adds the stream to a container. UsageError when the container cannot hold the codec."""
        plan, info, color = self._plan, self._info, self._color
        width, height = self._size
        container: Any = output
        try:
            stream = container.add_stream(plan.codec, rate=self._rate, width=width, height=height,
                                          pix_fmt=plan.pix_fmt, time_base=self.clock.base)  # fmt: skip
        except ValueError as error:
            ending = self._out.suffix
            raise UsageError(f"{ending} cannot hold {plan.codec} video; use .mkv or another --codec") from error
        context = stream.codec_context
        context.time_base = self.clock.base
        rgb = is_rgb(plan.pix_fmt)
        context.colorspace = MATRIX_RGB if rgb else color.matrix
        context.color_range = RANGE_FULL if rgb else color.range
        context.color_primaries, context.color_trc = color.primaries, color.transfer
        place = {"chroma_sample_location": "left"} if chroma_lies_left(plan.pix_fmt) else {}
        context.options = place | dict(plan.options)
        if plan.quantiser is not None:
            context.qscale = True
            context.global_quality = plan.quantiser * 118  # FF_QP2LAMBDA
        if self.format in ("mp4", "mov") and context.codec.canonical_name == "hevc":
            context.codec_tag = "hvc1"  # what Apple's players ask for
        if self.format == "avi":
            context.max_b_frames = 0  # AVI stores no presentation times
        if info.sample_aspect_ratio is not None:
            self._set_aspect(context, info.sample_aspect_ratio)
        self._rotate(stream)
        self.stream = stream

    def _set_aspect(self, context: Any, ratio: Fraction) -> None:
        context.sample_aspect_ratio = ratio
        if self.format not in ("mp4", "mov") and self._plan.codec in _SQUARE_ONLY:
            shape = f"{ratio.numerator}:{ratio.denominator}"
            self.notices.append(f"{self._plan.codec} in {self.format} cannot say that pixels are {shape}; .mp4 can")

    def _rotate(self, stream: Any) -> None:
        if self._info.display_matrix is None:
            return
        if self.format in _ROTATABLE:
            stream.set_display_matrix(self._info.display_matrix)
        else:
            self.notices.append(
                f"{self.format} cannot store the rotation by {self._info.rotation} degrees; .mkv, .mp4 and .mov can"
            )

    def open(self, output: OutputContainer) -> None:
        """Opens the encoder and writes the container's header, so that bad settings show before any frame is restored.

        All streams must have been added. UsageError for settings that are refused; OutputError.
        """
        os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 would report itself on stderr: errors only
        try:
            self.stream.codec_context.open(strict=False)
            output.start_encoding()
        except av.error.OSError as error:
            raise OutputError(f"{show(self._out)}: cannot be written ({one_line(error)})") from error
        except (av.error.FFmpegError, ValueError) as error:
            raise UsageError(
                f"{self._plan.codec} refuses these settings ({self._plan.pix_fmt}, {_words(self._plan)}): "
                f"{one_line(error)}"
            ) from error

    def encode(self, frame: Frame | None) -> Iterator[Packet]:
        """The packets that are ready once the encoder has the next frame; those it holds back for None. OutputError."""
        picture = None if frame is None else self._picture(frame)
        try:
            for packet in self.stream.encode(picture):
                packet.duration = self._durations.pop(packet.pts, 0) or packet.duration  # encoders know only the rate
                yield packet
        except (av.error.FFmpegError, ValueError, ArithmeticError, MemoryError) as error:
            raise OutputError(f"{show(self._out)}: cannot be encoded ({one_line(error)})") from error

    def _picture(self, frame: Frame) -> Any:
        """The frame in the encoder's pixel format and clock."""
        picture = self._converter.to_frame(_depth(frame.image, self._info), self._plan.pix_fmt)
        before = self.clock.state.last
        picture.pts = self.clock.tick(frame.pts, frame.time_base)
        picture.time_base = self.clock.base
        if frame.duration and frame.time_base:
            duration = min(frame.duration * frame.time_base, LONGEST)
            if self.end is not None:  # cut there, but not below the usual: that would change the rate
                usual = 1 / self._rate if before is None else (picture.pts - before) * self.clock.base
                duration = min(duration, max(self.end - picture.pts * self.clock.base, usual))
            self._durations[picture.pts] = round(duration / self.clock.base)
        return picture


class PacketEncoder:
    """Encodes frames as a `VideoSink` for the same output would, but keeps the packets from any file.

    `clock` is where the output's clock stands after `encode`.
    """

    def __init__(self, plan: OutputPlan, clock: ClockState) -> None:
        """`clock`: where it stands before the first frame. Raises as `VideoTrack`, and its `open`."""
        self._track = VideoTrack(plan)
        self._track.clock.state = clock
        self._scratch = av.open(BytesIO(), "w", format=self._track.format)  # settles the encoder, holds nothing
        try:
            self._track.add_to(self._scratch)
            self._track.open(self._scratch)
        except BaseException:
            self.close()
            raise

    @property
    def clock(self) -> ClockState:
        return self._track.clock.state

    def encode(self, frame: Frame | None) -> Iterator[Packet]:
        """As `VideoTrack.encode`."""
        return self._track.encode(frame)

    def close(self) -> None:
        """Lets go of the encoder."""
        with contextlib.suppress(Exception):  # whatever the muxer says of a file without packets
            self._scratch.close()


def _shift(info: MediaInfo, start: float | None) -> float:
    """Seconds to take off every timestamp of the input."""
    if start is not None:
        return info.start_time + start
    return info.start_time if info.container in _FREE_RUNNING else 0.0


def _end(plan: OutputPlan, shift: float) -> Fraction | None:
    if plan.duration is None:
        return None
    return Fraction(plan.info.start_time + (plan.start or 0.0) + plan.duration) - Fraction(shift)


def _depth(image: np.ndarray, info: MediaInfo) -> np.ndarray:
    return image if image.dtype in (np.uint8, np.uint16) else np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _words(plan: EncoderPlan) -> str:
    return ", ".join(f"{k}={v}" for k, v in plan.options.items()) or "no options"
