"""A short checksum of a decoded picture, to tell whether two decoders gave the same one."""

import zlib
from typing import Any

import numpy as np
from av.video.frame import VideoFrame


def checksum(picture: VideoFrame | np.ndarray) -> int:
    """CRC-32 over the planes of a picture, without the padding of their lines. Of packed and odd formats a part of each
    line is enough."""
    if isinstance(picture, np.ndarray):
        return zlib.crc32(np.ascontiguousarray(picture).data)
    size = max((component.bits + 7) // 8 for component in picture.format.components)
    crc = 0
    for plane in picture.planes:
        crc = zlib.crc32(_pixels(plane, size).data, crc)
    return crc


def _pixels(plane: Any, size: int) -> np.ndarray:
    """The bytes of a plane whose samples take `size` of them; all there are where it has no lines (a palette)."""
    content = np.frombuffer(plane, np.uint8)
    lines, stride = plane.height, plane.line_size
    if stride <= 0 or lines * stride > content.size:
        return content
    return np.ascontiguousarray(content[: lines * stride].reshape(lines, stride)[:, : min(plane.width * size, stride)])
