"""The quantisers in the headers of HEVC's, AV1's, VP8's and JPEG's pictures, whose decoders do not export any.

FFmpeg's bit stream filter `trace_headers` reads those of video (and of WebP, whose lossy pictures are VP8's), and tells
what stands in them in FFmpeg's log alone. Pillow reads JPEG's.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import av
import av.error
import av.logging
import numpy as np
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.video.stream import VideoStream
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

# By codec, with all passed over that is neither a header nor a picture: a message may be as long as its author likes.
_FILTERS = {
    "hevc": "filter_units=pass_types=0-34,trace_headers",
    "av1": "filter_units=pass_types=1-4|6|7,trace_headers",
    "vp8": "trace_headers",
}
_ELEMENT = re.compile(r"\d+ +(\w+) .*= (-?\d+)\n")
_IVF = struct.Struct("<4sHH4sHHIIII")  # FFmpeg's simplest container of VP8: of no use but to have the headers read
_IVF_FRAME = struct.Struct("<IQ")
_CHUNK = struct.Struct("<4sI")  # of a WebP file
_JPEG = "mjpeg"
_LOW = np.add.outer(range(8), range(8)) < 4  # frequencies at which small pictures have most of what they show
_FIRST = 26  # HEVC's initial quantisation parameter, from which a set of parameters says the difference

Log = list[tuple[int, str, str]]


class PictureHeaders:
    """Reads the packets of one stream, in order."""

    def __init__(self, stream: VideoStream) -> None:
        """`stream`: of an open input. Nothing is told of one whose codec is another, or that is broken."""
        self.codec = stream.codec.canonical_name
        self._filter: BitStreamFilterContext | None = None
        self._initial: dict[int, int] = {}  # of HEVC's sets of picture parameters, by their numbers
        self._set = 0
        if self.codec in _FILTERS:
            with _traced() as log, suppress(av.error.FFmpegError, ValueError):
                self._filter = BitStreamFilterContext(_FILTERS[self.codec], stream)
            list(self._read(log))

    @property
    def tell(self) -> bool:
        """Whether there is any use in asking."""
        return self._filter is not None or self.codec == _JPEG

    def quantisers(self, packet: Packet) -> list[float]:
        """What the headers in a packet say, picture by picture or slice by slice, hidden pictures too: HEVC's
        parameters, from below zero to 51 for all bit depths; AV1's indices, 0 to 255; VP8's, 0 to 127; Motion JPEG's
        step in levels. The packet is empty then.
        """
        if self.codec == _JPEG:
            step = jpeg_step(BytesIO(bytes(packet)))
            return [] if step is None else [step]
        if self._filter is None or not packet.size:
            return []
        with _traced() as log, suppress(av.error.FFmpegError, ValueError):  # the decoder will say what is wrong
            self._filter.filter(packet)
        return list(self._read(log))

    def _read(self, log: Log) -> Iterator[float]:
        for _, source, text in log:
            match = _ELEMENT.fullmatch(text) if source == "trace_headers" else None
            if match is None:
                continue
            name, value = match[1], int(match[2])
            if name in ("pps_pic_parameter_set_id", "slice_pic_parameter_set_id"):
                self._set = value
            elif name == "init_qp_minus26":
                self._initial[self._set] = _FIRST + value
            elif name == "slice_qp_delta" and self._set in self._initial:
                yield self._initial[self._set] + value
            elif name in ("base_q_idx", "base_qindex"):
                yield value


def jpeg_step(source: Path | BytesIO) -> float | None:
    """Between two values of a coefficient of a JPEG picture's luma, in levels, the geometric mean over the lower
    frequencies. None for anything that is no JPEG or tells of no step.
    """
    with (
        suppress(OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError),
        Image.open(source) as image,
    ):
        if isinstance(image, JpegImageFile) and image.quantization:
            table = np.array(next(iter(image.quantization.values())), float).reshape(8, 8)
            return float(np.exp(np.log(table.clip(min=1)[_LOW]).mean()))
    return None


def webp_index(source: Path | BytesIO) -> float | None:
    """VP8's index, 0 to 127, of a WebP picture. None for anything else, a lossless or an animated one."""
    with suppress(OSError, ValueError, struct.error):
        data = source.read_bytes() if isinstance(source, Path) else source.getvalue()
        chunk = _vp8_chunk(data)
        if chunk is None:
            return None
        head = _IVF.pack(b"DKIF", 0, _IVF.size, b"VP80", 16, 16, 1, 1, 1, 0)
        with av.open(BytesIO(head + _IVF_FRAME.pack(len(chunk), 0) + chunk), "r", format="ivf") as container:
            headers = PictureHeaders(container.streams.video[0])
            for packet in container.demux(video=0):
                for value in headers.quantisers(packet):
                    return value
    return None


def _vp8_chunk(data: bytes) -> bytes | None:
    """The picture in a lossy WebP file, as VP8 has it."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return None
    at = 12
    while at + 8 <= len(data):
        kind, size = _CHUNK.unpack_from(data, at)
        if kind == b"VP8 ":
            return data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return None


@contextmanager
def _traced() -> Iterator[Log]:
    """What FFmpeg says in this thread meanwhile."""
    av.logging.set_level(av.logging.INFO)
    try:
        with av.logging.Capture() as log:
            yield log
    finally:
        av.logging.set_level(None)
