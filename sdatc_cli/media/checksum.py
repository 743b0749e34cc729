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
    plane: Any  # its type does not tell that it is a buffer
    for plane in picture.planes:
        lines = np.frombuffer(plane, np.uint8, plane.height * plane.line_size).reshape(plane.height, plane.line_size)
        crc = zlib.crc32(np.ascontiguousarray(lines[:, : min(plane.width * size, plane.line_size)]).data, crc)
    return crc
