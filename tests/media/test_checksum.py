"""Checksums of decoded pictures: of every pixel format, of the pixels alone."""

import av
import numpy as np
import pytest

from sdatc_cli.media.checksum import checksum


def picture(fmt: str, change: int | None = None, padding: int = 0) -> av.VideoFrame:
    """A picture of 18x6 with the same pixels whatever its padding; `change`: the byte to change in the first plane."""
    frame = av.VideoFrame(18, 6, fmt)
    for number, plane in enumerate(frame.planes):
        content = np.full(plane.buffer_size, padding, np.uint8)
        lines = content[: plane.height * plane.line_size].reshape(plane.height, -1)
        lines[:, : plane.width] = np.arange(plane.height * plane.width).reshape(plane.height, -1) + 7 * number
        if change is not None and not number:
            content[change] ^= 1
        plane.update(content.tobytes())
    return frame


@pytest.mark.parametrize("fmt", ["yuv420p", "yuv422p", "yuv444p", "nv12", "gray", "gbrp"])
def test_every_pixel_counts_and_padding_does_not(fmt):
    plain = checksum(picture(fmt))
    assert plain == checksum(picture(fmt, padding=9))
    assert all(plain != checksum(picture(fmt, change=byte)) for byte in (0, 5, 17))


@pytest.mark.parametrize("fmt", ["yuv420p10le", "rgb24", "yuyv422", "bgra", "rgb48le", "gbrp12le", "yuva420p", "monow",
                                 "pal8", "p010le", "gray16le", "rgb555le"])  # fmt: skip
def test_no_format_is_refused(fmt):
    frames = [av.VideoFrame(18, 6, fmt) for _ in range(2)]
    for frame, value in zip(frames, (0, 1), strict=True):
        for plane in frame.planes:
            plane.update(bytes([value]) * plane.buffer_size)
    assert checksum(frames[0]) != checksum(frames[1])
