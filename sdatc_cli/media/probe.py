"""What an input is: container, streams, sizes, times, colour. Decodes a frame, for only that tells the truth."""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av.error
from av.container import InputContainer
from av.sidedata.sidedata import Type
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sdatc_cli.errors import InputError
from sdatc_cli.media.color import is_rgb
from sdatc_cli.media.container import (
    MAX_PIXELS,
    check_input,
    demux,
    open_input,
    pass_over_others,
    protocol_of,
    refers_outside,
    show,
)
from sdatc_cli.media.images import is_still, probe_images
from sdatc_cli.media.info import SMALLEST_EDGE, UNSPECIFIED, ColorInfo, Mastering, MediaInfo, StreamInfo

__all__ = ["MediaInfo", "StreamInfo", "check_size", "pick_video", "probe", "stream_info"]

ALPHA_TAG = "alpha_mode"  # of WebM whose transparency is a video of its own beside the packets, which no frame shows
_LEFT_OUT = {  # what frames have beside their pictures that PyAV cannot write, as the first frame shows it
    Type.A53_CC: "closed captions inside the video are",
    Type.DOVI_METADATA: "the metadata of Dolby Vision are",
    Type.DYNAMIC_HDR_PLUS: "the metadata of HDR10+ are",
    Type.DYNAMIC_HDR_VIVID: "the metadata of HDR Vivid are",
    Type.STEREO3D: "the mark of stereoscopic video is",
    Type.SPHERICAL: "the mark of spherical video is",
}
_DURATION_NAME = re.compile(r"duration(-\w+)?", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]{1,6}):([0-9]{1,2}):([0-9]{1,2}(?:\.[0-9]{1,12})?)")
_FIRST_FRAME_PACKETS = 2000  # give up on a stream that yields no frame within so many packets


def probe(path: Path, protocols: tuple[str, ...] = ()) -> MediaInfo:
    """What a video file, a still image or a folder of numbered frames holds; `protocols` as in `open_input`.

    Raises InputError if it is missing, unreadable, or holds no frames.
    """
    path = Path(path)
    check_input(path, protocols)
    if path.is_dir() or (is_still(path) and path.is_file()):
        return probe_images(path)
    with open_input(path, protocols) as container:
        return replace(_probe_video(path, container), protocols=protocols)


def check_size(info: MediaInfo) -> None:
    """InputError when the frames are too small to be restored."""
    if min(info.width, info.height) < SMALLEST_EDGE:
        least = f"{SMALLEST_EDGE}x{SMALLEST_EDGE} is the least"
        raise InputError(f"{show(info.path)}: frames of {info.width}x{info.height} are too small; {least}")


def pick_video(container: InputContainer, path: Path) -> VideoStream:
    """The video stream to restore: not a cover, the default one if one is marked so, else the first.

    Raises InputError if there is none.
    """
    streams = [s for s in container.streams.video if s.codec_context is not None and not _is_cover(s)]
    if not streams:
        kinds = sorted({s.type for s in container.streams})
        has = f"only {', '.join(kinds)}" if kinds else "no streams"
        if "video" in kinds:
            has = "only cover pictures or video in an unknown codec"
        raise InputError(f"{show(path)}: no video in this file ({has})")
    return next((s for s in streams if s.disposition & Disposition.default), streams[0])


def _is_cover(stream: Stream) -> bool:
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def stream_info(stream: Stream) -> StreamInfo:
    """The description of one stream of an open container."""
    codec = stream.codec_context.name if stream.codec_context is not None else getattr(stream, "name", None)
    disposition = tuple(flag.name for flag in Disposition if flag & stream.disposition and flag.name)
    return StreamInfo(
        index=stream.index,
        kind=stream.type if stream.type in ("video", "audio", "subtitle", "attachment") else "data",
        codec=codec or "unknown",
        language=stream.metadata.get("language"),
        title=stream.metadata.get("title"),
        disposition=disposition,
        cover=_is_cover(stream),
    )


def decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Frames of a stream, silently skipping what cannot be decoded, over a bounded number of packets."""
    for count, packet in enumerate(demux(container, stream)):
        if count > _FIRST_FRAME_PACKETS:
            return
        try:
            yield from packet.decode()
        except av.error.EOFError:
            return
        except (av.error.FFmpegError, ValueError):
            continue


def _first_frame(container: InputContainer, stream: VideoStream, path: Path) -> VideoFrame:
    stream.thread_type = "SLICE"  # frame threads would decode many frames to deliver one
    try:
        frame = next(decoded(container, stream), None)
    except (av.error.FFmpegError, OSError):
        frame = None
    if frame is None:
        if protocol_of(path) is None and refers_outside(path):
            raise InputError(f"{show(path)}: its pictures lie in another file, which is not followed; give that file")
        raise InputError(f"{show(path)}: no frame of the video can be decoded ({stream.codec_context.name})")
    if frame.width < 1 or frame.height < 1 or frame.width * frame.height > MAX_PIXELS:
        raise InputError(f"{show(path)}: frames of {frame.width}x{frame.height} pixels cannot be restored")
    return frame


def _probe_video(path: Path, container: InputContainer) -> MediaInfo:
    stream = pick_video(container, path)
    pass_over_others(container, [stream])
    streams = tuple(stream_info(s) for s in container.streams)
    frame = _first_frame(container, stream, path)
    rate = _plausible_rate(stream.average_rate) or _plausible_rate(stream.guessed_rate)
    duration = _duration(container, stream)
    count = stream.frames or (round(duration * rate) if duration and rate else 0)
    alpha = any(c.is_alpha for c in frame.format.components) or ALPHA_TAG in map(str.casefold, stream.metadata)
    color = _color(stream, frame)
    interlaced = bool(frame.interlaced_frame)
    return MediaInfo(
        path=path,
        kind="video",
        width=frame.width,
        height=frame.height,
        frame_rate=rate,
        frame_count=count if 0 < count < 1 << 40 else None,
        duration=duration,
        pix_fmt=frame.format.name,
        bit_depth=max(c.bits for c in frame.format.components),
        rotation=frame.rotation % 360,
        streams=streams,
        container=container.format.name,
        codec=stream.codec_context.name,
        video_index=stream.index,
        time_base=stream.time_base,
        start_time=(container.start_time or 0) / 1_000_000,
        color=color,
        sample_aspect_ratio=_aspect(stream),
        display_matrix=_display_matrix(frame),
        interlaced=interlaced,
        has_alpha=alpha,
        mastering=_mastering(frame),
        notices=(
            *_notices(streams, stream.index, alpha, interlaced, color),
            *(f"{what} left out" for kind, what in _LEFT_OUT.items() if side_data(frame, kind)),
        ),
    )


def _plausible_rate(rate: Fraction | None) -> Fraction | None:
    return rate if rate and Fraction(1, 1000) <= rate <= 1000 else None


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    whole = container.duration / 1_000_000 if container.duration is not None else None
    if stream.duration is not None and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif (told := _told_duration(stream.metadata)) is not None:
        seconds = min(told, whole or told)  # a tag may stem from before the file was cut
    elif whole is not None:
        seconds = whole
    else:
        return None
    return seconds if 0 < seconds < 1e9 else None


def _told_duration(tags: Mapping[str, str]) -> float | None:
    """Seconds that Matroska's statistics tell of a stream: the file as a whole may end with a late subtitle."""
    names = sorted((name for name in tags if _DURATION_NAME.fullmatch(name)), key=len)  # the one without language first
    for name in names:
        match = _DURATION.fullmatch(tags[name].strip())
        if match is not None:
            seconds = 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])
            if seconds > 0:
                return seconds
    return None


def _aspect(stream: VideoStream) -> Fraction | None:
    ratio = stream.sample_aspect_ratio
    return ratio if ratio and ratio > 0 and ratio != 1 else None


def _color(stream: VideoStream, frame: VideoFrame) -> ColorInfo:
    context = stream.codec_context

    def known(mine: int, other: int) -> int:
        """The frame's own tag, else the stream's."""
        return int(mine if mine != UNSPECIFIED else other)

    full = frame.format.name.startswith("yuvj") or is_rgb(frame.format.name)
    return ColorInfo(
        primaries=known(frame.color_primaries, context.color_primaries),
        transfer=known(frame.color_trc, context.color_trc),
        matrix=known(frame.colorspace, context.colorspace),
        range=2 if full else int(frame.color_range or context.color_range),
    )


def side_data(frame: VideoFrame, kind: Type) -> bytes:
    """What a decoder says of a frame beside its picture; nothing where it says nothing of this kind."""
    data: Any = frame.side_data
    return bytes(data[kind]) if kind in data else b""


def _display_matrix(frame: VideoFrame) -> tuple[int, ...] | None:
    data = side_data(frame, Type.DISPLAYMATRIX)
    if len(data) != 36:
        return None
    matrix = struct.unpack("9i", data)
    return None if matrix == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30) else matrix


def _mastering(frame: VideoFrame) -> Mastering | None:
    """HDR10 metadata from the side data, which are C structs of FFmpeg (libavutil/mastering_display_metadata.h)."""
    display = side_data(frame, Type.MASTERING_DISPLAY_METADATA)
    light = side_data(frame, Type.CONTENT_LIGHT_LEVEL)
    primaries = luminance = cll = fall = None
    if len(display) >= 88:
        values = struct.unpack("22i", display[:88])
        pairs = [Fraction(n, d) if d else Fraction(0) for n, d in zip(values[0:20:2], values[1:20:2], strict=True)]
        if values[20]:
            primaries = tuple((pairs[i], pairs[i + 1]) for i in range(0, 8, 2))
        if values[21]:
            luminance = (pairs[8], pairs[9])
    if len(light) >= 8:
        cll, fall = struct.unpack("2I", light[:8])
    return Mastering(primaries, luminance, cll, fall) if primaries or luminance or cll or fall else None


def _notices(
    streams: tuple[StreamInfo, ...], index: int, alpha: bool, interlaced: bool, color: ColorInfo
) -> Iterator[str]:
    videos = [s for s in streams if s.kind == "video" and not s.cover]
    if len(videos) > 1:
        others = ", ".join(str(s.index) for s in videos if s.index != index)
        yield f"{len(videos)} video streams: stream {index} is restored, {others} copied as they are"
    if alpha:
        yield "transparency is not kept: the frames are restored over their own colours"
    if interlaced:
        yield "interlaced video: deinterlaced, one frame for every two fields"
    if color.hdr:
        yield f"high dynamic range ({color.hdr}): kept in 10 bit, with its tags"
