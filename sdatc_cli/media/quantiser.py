"""How coarsely a codec rounded its pictures, as it tells itself.

Told on H.264's scale of quantisation parameters, 0 to 51, where six more double the step between two values of a
coefficient. FFmpeg's decoders export it for H.264, VP9, MPEG-1, -2 and -4 and their kin, and the pictures of HEVC, AV1,
VP8, JPEG and lossy WebP hold it in their headers (headers.py); for other codecs it is not known.
"""

import math
import statistics
import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame

from sdatc_cli.media.headers import PictureHeaders, jpeg_step, webp_index
from sdatc_cli.media.probe import side_data

OPTIONS = {"export_side_data": "venc_params"}  # of a decoder, so that its frames can be asked
_LARGEST = 51.0

_PARAMETERS = struct.Struct("@INNii")  # AVVideoEncParams: blocks, their offset, bytes of a block, kind, base
_DELTA = 4  # AVVideoBlockParams: x, y, width, height, and the difference from the base
_VP9, _H264, _MPEG = 0, 1, 2
# Steps by index, in levels: some places of the tables in the specifications, straight between them.
_STEPS = {
    "vp8": ((0, 54, 83, 102, 116, 127), (2, 29, 58, 86.5, 114.5, 142)),  # RFC 6386, 14.1, halves
    "vp9": (  # 8.6.1, eighths; AV1's is the same
        (0, 1, 95, 120, 144, 168, 192, 208, 224, 240, 255),
        (0.5, 1, 12.75, 19, 28.875, 44.125, 68.75, 92.875, 125.875, 171.125, 228.5),
    ),
}
_STEPS |= {"av1": _STEPS["vp9"], "webp": _STEPS["vp8"]}
# With the same steps these codecs leave less damage than H.264, or such that is better not sharpened: `lite`, which
# learnt from H.264, came nearest to the original when it was told so much less (measured, see its card).
BETTER = {"hevc": 5, "vp9": 4, "mjpeg": 3, "webp": 3, "av1": 2, "vp8": 0}


def frame_quantiser(frame: VideoFrame, bit_depth: int = 8) -> float | None:
    """The mean over the picture; None when the decoder does not tell. Its decoder needs OPTIONS."""
    content = side_data(frame, Type.VIDEO_ENC_PARAMS)
    if not content:
        return None
    blocks, offset, size, kind, base = _PARAMETERS.unpack_from(content)
    value = float(base)
    if blocks:
        words = np.frombuffer(content, np.int32, blocks * size // 4, offset)
        value += float(words.reshape(blocks, -1)[:, _DELTA].mean())
    if kind == _H264:
        value -= 6 * (bit_depth - 8)  # deeper formats count from below zero, shifted up
    elif kind == _MPEG and value > 0:
        value = _of_step(value)
    elif kind == _VP9:
        return _of_coded("vp9", value)
    else:
        return None
    return _within(value)


def packet_quantisers(headers: PictureHeaders, packet: Packet) -> list[float]:
    """Those of the pictures or slices of a packet whose headers tell, as they lie there. The packet is empty then."""
    return [_of_coded(headers.codec, value) for value in headers.quantisers(packet)]


def _of_coded(codec: str, value: float) -> float:
    """The parameter that stands for what one of the codecs of BETTER writes into its pictures."""
    if codec in _STEPS:
        value = _of_step(float(np.interp(value, *_STEPS[codec])))
    elif codec == "mjpeg":
        value = _of_step(value)
    return _within(value - BETTER[codec])


def _within(value: float) -> float:
    return min(max(value, 0.0), _LARGEST)


def _of_step(step: float) -> float:
    """The parameter whose step, in levels of an orthonormal transform, is this."""
    return 6 * math.log2(step / 0.625)


def run_quantiser(values: Sequence[float | None]) -> float | None:
    """One number for consecutive frames of a video: the lower decile. None where nothing is known.

    The frames that others are predicted from are quantised the most finely, and the others inherit their quality. A
    frame that only copies has a quantiser of 0, which tells nothing.
    """
    known = [value for value in values if value is not None]
    telling = [value for value in known if value] or known
    return float(np.quantile(telling, 0.1)) if telling else None


def pictures_quantiser(pictures: Sequence[Path | BytesIO]) -> float | None:
    """One number for picture files that belong together: the median. None where one of them does not tell."""
    values = [_of_picture(picture) for picture in pictures]
    known = [value for value in values if value is not None]
    return statistics.median(known) if len(known) == len(values) > 0 else None


def _of_picture(picture: Path | BytesIO) -> float | None:
    step = jpeg_step(picture)
    if step is not None:
        return _of_coded("mjpeg", step)
    index = webp_index(picture)
    return None if index is None else _of_coded("webp", index)
