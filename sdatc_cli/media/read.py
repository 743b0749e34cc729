"""Frames of an input, one after the other, in constant memory."""

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import TracebackType

import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sdatc_cli.errors import InputError
from sdatc_cli.media.checksum import checksum
from sdatc_cli.media.color import Converter, is_rgb, resolve
from sdatc_cli.media.container import MAX_PIXELS, demux, late_streams, one_line, open_input, pass_over_others, show
from sdatc_cli.media.damage import DamageLog, missing_bytes
from sdatc_cli.media.deinterlace import Deinterlacer
from sdatc_cli.media.frame_times import FrameTimes
from sdatc_cli.media.images import in_depth, read_picture
from sdatc_cli.media.info import UNTAGGED, MediaInfo, PictureTags

_LONGEST_GOP = 600  # packets held back while skipping to `start`; longer ones are decoded instead
_NO_INDEX = {"mpegts", "mpeg"}  # containers in which one lands anywhere, not at a keyframe
_STANDS = 0.1  # seconds without a picture at the beginning of a part that nobody misses
_EARLY = 1.0  # seconds to look for a keyframe there: more than the packets' reordering
_MOST_READ_ERRORS = 200  # in a row; then the rest of the file is given up
END = -1  # stands for the number of a packet, see Care


@dataclass
class Frame:
    """One picture. `image` is (height, width, 3) RGB, uint8, or uint16 over its full range for sources over 8 bits.

    `pts` and `duration` count in `time_base` seconds; None for stills. `index` is the absolute index of the frame in
    its input, whatever part of it is read. `name` is the file of a still, `alpha` its opacity, (height, width), `tags`
    what it says beside its pixels.
    """

    image: np.ndarray
    pts: int | None
    time_base: Fraction | None
    index: int
    name: Path | None = None
    duration: int = 0
    alpha: np.ndarray | None = None
    tags: PictureTags = UNTAGGED


@dataclass(frozen=True)
class Care:
    """How to read an input that brought the decoder down before, and who hears of every step beforehand.

    Packets (files of a folder) are numbered from 0 as they are read; END stands for what a decoder holds back at the
    end. Those in `left_out` are not decoded, and nothing is read from number `stop` on. Without `threads` a fault
    belongs to the packet that is being decoded. `tell` gets "read" or "decode", the number, and seconds where known.
    """

    left_out: frozenset[int] = frozenset()
    stop: int | None = None
    threads: bool = True
    tell: Callable[[str, int, float | None], None] = lambda step, number, time: None


@dataclass(frozen=True)
class Mark:
    """By what a decoded frame is known again: `index` and `pts` as in `Frame`, and the `checksum` of its picture."""

    index: int
    pts: int | None
    checksum: int


@dataclass(frozen=True)
class Decoded:
    """A decoded frame before its conversion to RGB, which `frame` does. `keyframe`: decoding may begin with it."""

    index: int
    pts: int | None
    time_base: Fraction | None
    keyframe: bool
    picture: VideoFrame | np.ndarray
    frame: Callable[[], Frame]

    def mark(self) -> Mark:
        """Looks at the whole picture."""
        return Mark(self.index, self.pts, checksum(self.picture))


class FrameReader:
    """Iterates over the frames of an input from `start` on for `duration` seconds (both from the input's first time).

    A context manager. What cannot be decoded is left out or concealed, and told in `damage` at the end of iteration.
    Iterating raises InputError only where nothing at all can be read. A still image ignores `start` and `duration`; a
    folder counts 25 frames a second. A picture that stands since before `start` comes first, at that time, where the
    next comes much later.
    """

    def __init__(
        self, info: MediaInfo, start: float | None = None, duration: float | None = None, care: Care | None = None
    ) -> None:
        self.info = info
        self.damage: list[str] = []
        self._start = start or 0.0
        self._end = None if duration is None else self._start + duration
        self._container: InputContainer | None = None
        self._log = DamageLog()
        self._care = care or Care()

    def __enter__(self) -> "FrameReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; iteration must have ended."""
        if self._container is not None:
            self._container.close()
            self._container = None

    def __iter__(self) -> Iterator[Frame]:
        return (decoded.frame() for decoded in self.decoded())

    def decoded(self, place: Mark | None = None) -> Generator[Decoded]:
        """The frames before their conversion, which costs more than the decoding.

        place: the keyframe to begin with in place of `start`, as an earlier pass over the input met it. What comes then
        may differ from what that pass saw, or be nothing at all, where decoding cannot begin there: compare the marks.
        """
        self._log = DamageLog()
        self.damage = []
        if self.info.kind == "video":
            return self._video_frames(place)
        return self._image_frames(place.index if place else 0)

    def _image_frames(self, first: int) -> Generator[Decoded]:
        info = self.info
        deep, others = info.bit_depth > 8, 0
        for index, path in enumerate(info.frames[first:], first):
            time = index / float(info.frame_rate or 25)
            if info.kind == "frames" and (time < self._start - 1e-9 or (self._end and time >= self._end - 1e-9)):
                continue
            if index in self._care.left_out:
                self.damage.append(f"frame left out: {show(path)}: the decoder crashed or hung on it")
                continue
            self._care.tell("decode", index, None)
            try:
                picture = read_picture(path)
            except InputError as error:
                self.damage.append(f"frame left out: {error}")
                continue
            height, width = picture.image.shape[:2]
            if (height, width) != (info.height, info.width):
                raise InputError(
                    f"{show(path)}: {width}x{height} pixels, but the first frame has {info.width}x{info.height}"
                )
            others += (picture.image.dtype == np.uint16) != deep
            image, alpha = in_depth(picture.image, deep), picture.alpha
            alpha = None if alpha is None else in_depth(alpha, deep)
            frame = Frame(image, None, None, index, path, alpha=alpha, tags=picture.tags)
            yield Decoded(index, None, None, True, image, partial(_itself, frame))
        if others:
            self.damage.append(f"{others} frames brought to {info.bit_depth} bits, which the first has")

    def _video_frames(self, place: Mark | None) -> Generator[Decoded]:
        info = self.info
        rgb = is_rgb(info.pix_fmt)
        converter = Converter(resolve(info.color, info.width, info.height, rgb))
        container = self._container = open_input(info.path, info.protocols)
        if info.video_index >= len(container.streams.get()):
            raise InputError(f"{show(info.path)}: the file changed after it was probed")
        stream = container.streams[info.video_index]
        if not isinstance(stream, VideoStream):
            raise InputError(f"{show(info.path)}: the file changed after it was probed")
        pass_over_others(container, [stream])
        stream.thread_type = "AUTO" if self._care.threads else "NONE"
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        if place is not None and place.pts is not None:
            with contextlib.suppress(av.error.FFmpegError):  # then it is read from the start, up to the place
                early = _EARLY if info.container in _NO_INDEX else 0.0
                container.seek(place.pts - round(early / (stream.time_base or 1)), stream=stream)
        source = _Source(container, stream, self._log, info, self._care)
        try:
            yield from self._select(source, converter, place)
        finally:
            self._report(source)

    def _select(self, source: "_Source", converter: Converter, place: Mark | None) -> Iterator[Decoded]:
        info = self.info
        base = source.time_base
        first = round((info.start_time + self._start) / base) if self._start and place is None else None
        end = None if self._end is None else round((info.start_time + self._end) / base)
        index = None
        before: VideoFrame | None = None  # the picture shown when the part begins, while the next is not there
        over = 0  # when it ends if none follows
        last: tuple[VideoFrame, int, int] | None = None  # held back until it is known whether it is the last

        def ready(frame: VideoFrame, pts: int, index: int, duration: int) -> Decoded:
            convert = partial(_converted, frame, pts, base, index, converter, info, duration)
            return Decoded(index, pts, base, frame.key_frame, frame, convert)

        missed = min(source.step, _STANDS / base)  # how long it must be there not to be passed over
        for frame, pts in source.frames(first):
            if index is None and place is not None:
                if pts < (place.pts or 0):
                    continue
                if pts != place.pts:
                    return
                index = place.index
            if index is None:
                index = source.rank(pts) if first is not None else 0
            if first is not None and pts < first:
                before, over = frame, pts + max(frame.duration, source.step)
                index += 1
                continue
            if before is not None and first is not None and pts - first > missed:
                yield _standing(before, first, pts if end is None else min(pts, end), base, index - 1, converter, info)
            before = None
            if last is not None and end is not None:
                stands = max(end - last[1], min(last[0].duration, source.step))
                yield ready(*last, max(last[0].duration, 0) if pts < end else stands)
            if end is not None and pts >= end:
                source.complete = False
                return
            if (frame.width, frame.height) != (info.width, info.height):
                self._log.add(f"frames of another size, brought to {info.width}x{info.height}", source.seconds(pts))
            if end is None:
                yield ready(frame, pts, index, max(frame.duration, 0))
            else:
                last = frame, pts, index
            index += 1
        if last is not None and end is not None:
            yield ready(*last, max(0, min(last[0].duration, max(end - last[1], source.step))))
        if before is not None and first is not None and index is not None and over - first > missed / 2:
            yield _standing(before, first, over if end is None else min(over, end), base, index - 1, converter, info)

    def _report(self, source: "_Source") -> None:
        self.damage = self._log.lines()
        if not source.complete or self._start or self._end is not None:
            return
        try:
            cut = missing_bytes(self.info.path)
        except OSError:
            cut = None
        if cut:
            self.damage.append(f"the file is cut short: {cut[0]} of {cut[1]} bytes are there")
        missing = source.announced - source.count - source.discarded
        if self._container is not None and (late := late_streams(self._container)):
            self.damage.append(f"left out, for they begin only further into the file: {', '.join(late)}")
        if source.announced and missing > 0:
            self.damage.append(f"{missing} of {source.announced} frames that the file announces are not in it")


def _itself(frame: Frame) -> Frame:
    return frame


def _converted(
    frame: VideoFrame, pts: int, base: Fraction, index: int, converter: Converter, info: MediaInfo, duration: int
) -> Frame:
    image = converter.to_rgb(frame, info.width, info.height, deep=info.bit_depth > 8)
    return Frame(image, pts, base, index, duration=duration)


def _standing(
    frame: VideoFrame, pts: int, stop: int, base: Fraction, index: int, converter: Converter, info: MediaInfo
) -> Decoded:
    """A picture from `pts`, later than its own, to `stop`. Decoding cannot begin with it, for it lies elsewhere."""
    convert = partial(_converted, frame, pts, base, index, converter, info, stop - pts)
    return Decoded(index, pts, base, False, frame, convert)


class _Source:
    """Decodes one stream: faults are logged, missing timestamps filled in."""

    def __init__(
        self, container: InputContainer, stream: VideoStream, log: DamageLog, info: MediaInfo, care: Care
    ) -> None:
        self._container, self._stream, self._log, self._info, self._care = container, stream, log, info, care
        self.time_base = stream.time_base or Fraction(1, 1000)
        self.announced = 0 if info.container == "avi" else stream.frames  # AVI counts repetitions
        self.count = 0  # frames decoded or skipped
        self.discarded = 0  # packets that an edit list hides
        self.complete = False
        self._first_dts: int | None = None
        self._unstamped = False
        self._seen: list[int] = []  # timestamps of packets, kept until the first frame is out
        rate = info.frame_rate or Fraction(25)
        self.step = max(round(1 / rate / self.time_base), 1)  # from one frame to the next, usually

    def seconds(self, pts: int | None) -> float | None:
        """A timestamp as seconds from the start of the input."""
        return None if pts is None else float(pts * self.time_base) - self._info.start_time

    def rank(self, pts: int) -> int:
        """How many frames of the stream come before this timestamp; none where packets have no times to skip by."""
        if self._unstamped:
            return 0
        return sum(other < pts for other in self._seen)

    def frames(self, first: int | None) -> Iterator[tuple[VideoFrame, int]]:
        """Decoded frames with their timestamps in order; frames long before timestamp `first` may be left out."""
        deinterlacer = Deinterlacer(self._stream) if self._info.interlaced else None
        times = FrameTimes(self.step)
        for frame in self._decoded(first):
            if deinterlacer is None and frame is not None and frame.interlaced_frame:
                deinterlacer = Deinterlacer(self._stream)
                self._log.add("stretch of interlaced video begins: deinterlaced from there", self.seconds(frame.pts))
            for ready in deinterlacer.push(frame) if deinterlacer else [frame]:
                if ready is not None:
                    yield ready, times.time(ready, self._first_dts)
        self.complete = True

    def _decoded(self, first: int | None) -> Iterator[VideoFrame | None]:
        """Frames, then None to flush."""
        for number, packet in self._from_keyframe(first):
            flush = packet.size == 0 and packet.pts is None and packet.dts is None
            if packet.size == 0 and not flush:
                continue  # AVI marks a repeated frame so; sent on, it would end the decoder
            if first is not None and not self.count and packet.pts is not None and not packet.is_discard:
                self._seen.append(packet.pts)
            self.discarded += packet.is_discard
            self._unstamped |= packet.pts is None and not flush
            if self._first_dts is None:
                self._first_dts = packet.dts
            time = self.seconds(packet.pts or packet.dts)
            if number in self._care.left_out:
                self._log.add("packets were left out, for the decoder crashed or hung on them", time)
                continue
            self._care.tell("decode", number, time)
            try:
                frames = packet.decode()
            except av.error.EOFError:
                break
            except (av.error.FFmpegError, ValueError, ArithmeticError, MemoryError):
                self._log.add("packets could not be decoded", time)
                continue
            yield from self._counted(frames)
        if END not in self._care.left_out:
            self._care.tell("decode", END, None)
            with contextlib.suppress(av.error.FFmpegError, ValueError, ArithmeticError, MemoryError):
                yield from self._counted(self._stream.decode(None))
        yield None

    def _counted(self, frames: list[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            if frame.is_corrupt:
                self._log.add("damaged frames were concealed", self.seconds(frame.pts))
            self.count += 1
            yield frame

    def _from_keyframe(self, first: int | None) -> Iterator[tuple[int, Packet]]:
        """All packets from the last keyframe at or before timestamp `first`; the others are only counted."""
        if first is None:
            yield from self._packets()
            return
        held: list[tuple[int, Packet]] = []
        packets = self._packets()
        for number, packet in packets:
            if packet.is_keyframe and packet.pts is not None and packet.pts <= first:
                self._seen.extend(p.pts for _, p in held if p.pts is not None and not p.is_discard)
                held = []
            held.append((number, packet))
            if packet.pts is None or packet.pts > first or len(held) > _LONGEST_GOP:
                break
        yield from held
        yield from packets

    def _packets(self) -> Iterator[tuple[int, Packet]]:
        """Packets of the stream with their numbers, going on after read errors where the demuxer can."""
        errors = number = 0
        last = None
        packets = demux(self._container, self._stream)
        while number != self._care.stop:
            self._care.tell("read", number, self.seconds(last))
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                errors += 1
                if errors == 1:
                    self._log.add(f"read errors ({one_line(error)})", self.seconds(last))
                if errors > _MOST_READ_ERRORS:
                    return
                packets = demux(self._container, self._stream)
                continue
            if packet is None:
                return
            errors = 0
            last = packet.pts if packet.pts is not None else last
            yield number, packet
            number += 1
        self._log.add("place from which the rest was left out, for reading it crashed or hung", self.seconds(last))
