"""What tells how coarsely an input was compressed: the word of its codec, and some of its pictures."""

import itertools
import statistics
from contextlib import suppress
from dataclasses import dataclass, field

import av.error
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from sdatc_cli.errors import InputError
from sdatc_cli.media.color import Converter, is_rgb, resolve
from sdatc_cli.media.container import MAX_PIXELS, demux, open_input, pass_over_others
from sdatc_cli.media.headers import PictureHeaders
from sdatc_cli.media.images import eight_bits, read_image
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.quantiser import OPTIONS, frame_quantiser, packet_quantisers, pictures_quantiser, run_quantiser

_PLACES = 5
_RUN = 15  # frames, or packets whose headers tell, looked at in one place
_MOST_PACKETS = 2000  # read for them
_LOOKED_AT = 2  # frames in one place
_EDGE = 384  # pixels of a picture, at most: its middle
_BLOCK = 16  # pixels in which codecs work


@dataclass
class Evidence:
    """`quantiser`: what the codec tells, on H.264's scale (quantiser.py), None where it does not.

    `pictures`: some of the input's, as they are decoded, their middles, (h, w, 3) uint8 RGB.
    """

    quantiser: float | None = None
    pictures: list[np.ndarray] = field(default_factory=list)


def evidence(info: MediaInfo) -> Evidence:
    """One number and a few pictures for a whole input, from some places of it.

    One number and not one a frame: what is restored by it must not change from frame to frame. It is the median over
    the places. InputError when the input cannot be opened any more.
    """
    if info.kind != "video":
        return _of_pictures(info)
    with open_input(info.path, info.protocols) as container:
        streams = container.streams.get()
        stream = streams[info.video_index] if info.video_index < len(streams) else None
        return _of_video(container, stream, info) if isinstance(stream, VideoStream) else Evidence()


def _of_pictures(info: MediaInfo) -> Evidence:
    paths = info.frames[:: -(-len(info.frames) // _PLACES)]
    found = Evidence(pictures_quantiser(paths))
    for path in paths:
        with suppress(InputError):  # the frame will be left out
            found.pictures.append(_middle(eight_bits(read_image(path))))
    return found


def _of_video(container: InputContainer, stream: VideoStream, info: MediaInfo) -> Evidence:
    pass_over_others(container, [stream])
    stream.thread_type = "SLICE"
    stream.codec_context.options = OPTIONS | {"max_pixels": str(MAX_PIXELS)}
    headers = PictureHeaders(stream)
    converter = Converter(resolve(info.color, info.width, info.height, is_rgb(info.pix_fmt)))
    pictures, told = [], []
    for place in range(_PLACES):
        with suppress(av.error.FFmpegError, ArithmeticError):  # a seek that fails: it goes on where it is
            if place:
                moment = info.start_time + (info.duration or 0) * place / _PLACES
                container.seek(round(moment / (stream.time_base or 1)), stream=stream)
        told_here: list[float | None] = []
        frames: list[VideoFrame] = []
        with suppress(av.error.FFmpegError, ValueError, ArithmeticError, LookupError):  # the rest cannot be read
            for packet in itertools.islice(demux(container, stream), _RUN if headers.tell else _MOST_PACKETS):
                if headers.tell:
                    told_here += packet_quantisers(headers, Packet(bytes(packet)))
                with suppress(av.error.FFmpegError, ValueError):  # a damaged one
                    frames += packet.decode()
                if len(frames) >= _RUN:
                    break
        frames = frames[:_RUN]
        if not headers.tell:
            told_here += [frame_quantiser(frame, info.bit_depth) for frame in frames]
        value = run_quantiser(told_here)
        if value is not None:
            told.append(value)
        if not info.interlaced:  # the comb of two fields would be taken for damage
            for frame in _some(frames):
                pictures.append(_middle(converter.to_rgb(frame, frame.width, frame.height, deep=False)))
    return Evidence(statistics.median(told) if told else None, pictures)


def _some(frames: list[VideoFrame]) -> list[VideoFrame]:
    """Of a run: the last, and one halfway, which others are predicted from less often than from the first."""
    return frames[:: -max(len(frames) // _LOOKED_AT, 1)][:_LOOKED_AT]


def _middle(picture: np.ndarray) -> np.ndarray:
    """The middle of a picture, its corner on the grid of blocks; a copy that does not hold the rest in memory."""
    top, left = (max(edge - _EDGE, 0) // 2 // _BLOCK * _BLOCK for edge in picture.shape[:2])
    return picture[top : top + _EDGE, left : left + _EDGE].copy()
