"""Between RGB arrays and the pixel formats of codecs, with the source's own matrix and range in both directions.

swscale only changes the sampling of the chroma; the matrix is applied here, in float, because swscale's own is off by
up to one level for full range and four for 16-bit RGB, which shows as a tint.
"""

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
from av.error import FFmpegError
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from sdatc_cli.errors import InputError
from sdatc_cli.media.info import (
    MATRIX_BT709,
    MATRIX_BT2020,
    MATRIX_RGB,
    MATRIX_SMPTE170M,
    PRIMARIES_BT2020,
    RANGE_FULL,
    RANGE_LIMITED,
    ColorInfo,
)

# Weights of red and blue in luma, by H.273 matrix. YCoCg, ICtCp and constant luminance are not of this form.
_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087),
            9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}  # fmt: skip
_FLAGS = int(
    Interpolation.BICUBIC
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.ACCURATE_RND
    | Interpolation.BITEXACT
)


def resolve(color: ColorInfo, width: int, height: int, rgb_source: bool = False) -> ColorInfo:
    """Fill in the matrix and range that a player would assume for untagged video of this size.

    For a source in YUV pass the source's size: the result goes into the output's tags, so that enlarged SD video is
    not taken for BT.709. A source in RGB has neither; pass the output's size and get limited range.
    """
    matrix = color.matrix
    if rgb_source and color.primaries == PRIMARIES_BT2020:
        matrix = MATRIX_BT2020
    elif rgb_source or matrix not in _WEIGHTS:
        matrix = MATRIX_BT709 if width >= 1280 or height > 576 else MATRIX_SMPTE170M
    full = color.range == RANGE_FULL and not rgb_source
    return replace(color, matrix=matrix, range=RANGE_FULL if full else RANGE_LIMITED)


def is_rgb(pix_fmt: str) -> bool:
    """Whether a pixel format holds red, green and blue (or a palette of them, or XYZ)."""
    return VideoFormat(pix_fmt).is_rgb or pix_fmt == "pal8" or pix_fmt.startswith("xyz")


def chroma_lies_left(pix_fmt: str) -> bool:
    """Whether frames are written with their chroma at the left one of two pixels. JPEG's lies between them."""
    return VideoFormat(pix_fmt).chroma_width(8) == 4 and not pix_fmt.startswith("yuvj")


def _same_sampling(bits: int) -> str:
    """Planar YUV of a depth with a full set of chroma."""
    return "yuv444p" if bits == 8 else f"yuv444p{bits}le"


def _plane(frame: VideoFrame, index: int) -> np.ndarray:
    """A view of a plane, (height, width) of its own, uint8 or uint16."""
    plane = frame.planes[index]
    deep = ">u2" if frame.format.is_big_endian else "<u2"
    kind = np.dtype(np.uint8 if frame.format.components[0].bits == 8 else deep)
    rows = np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)  # type: ignore[call-overload]
    return rows[: plane.height, : plane.width]


def _bands(height: int) -> Iterator[slice]:
    """A picture's rows in parts whose values stay in a processor's cache from one operation to the next."""
    return (slice(first, first + 64) for first in range(0, height, 64))


def _levels(values: np.ndarray, matrix: np.ndarray, most: int) -> np.ndarray:
    """A (3, C + 1) affine map of values (h, w, C), rounded to 0 ... most, float32."""
    mapped = cv2.transform(values.astype(np.float32), matrix)
    np.rint(mapped, out=mapped)
    return np.clip(mapped, 0, most, out=mapped)


class Converter:
    """Converts frames of one source. Not for use by several threads at once."""

    def __init__(self, color: ColorInfo) -> None:
        """`color` must be resolved (see `resolve`)."""
        self.color = color
        kr, kb = _WEIGHTS[color.matrix]
        kg = 1 - kr - kb
        self._yuv_of_rgb = np.array(  # both with a span of 1; chroma is centred on 0
            [
                [kr, kg, kb],
                [-kr / (2 - 2 * kb), -kg / (2 - 2 * kb), 0.5],
                [0.5, -kg / (2 - 2 * kr), -kb / (2 - 2 * kr)],
            ]
        )
        self._reformatter = VideoReformatter()

    def _codes(self, bits: int, full: bool) -> tuple[np.ndarray, np.ndarray]:
        """(span, zero) of the code values of Y, Cb and Cr."""
        unit = 2 ** (bits - 8)
        if full:
            most = 2**bits - 1
            return np.array([most, most, most], float), np.array([0, 128 * unit, 128 * unit], float)
        return np.array([219, 224, 224], float) * unit, np.array([16, 128, 128], float) * unit

    def to_rgb(self, frame: VideoFrame, width: int, height: int, deep: bool) -> np.ndarray:
        """A decoded frame as (height, width, 3) RGB, uint16 if `deep` else uint8, both full range."""
        name = frame.format.name
        components = [c for c in frame.format.components if not c.is_alpha]
        if is_rgb(name) or name.startswith(("bayer", "ya")):
            return self._reformat(frame, "rgb48le" if deep else "rgb24", True, width, height).to_ndarray()
        full = self.color.range == RANGE_FULL or name.startswith("yuvj")
        bits = components[0].bits
        grey = len(components) == 1 and (frame.width, frame.height) == (width, height)
        if not grey:  # swscale takes grey for full range whatever it is told
            frame = self._reformat(frame, _same_sampling(bits), full, width, height)
        elif not 8 <= bits <= 16:  # one bit, or a float: both from black to white
            bits, full = (8 if bits == 1 else 16), True
            frame = self._reformat(frame, "gray" if bits == 8 else "gray16le", full)
        span, zero = self._codes(bits, full)
        if grey:
            matrix, planes = np.ones((3, 1)) / span[0], [_plane(frame, 0)]
            offset = -np.full(3, zero[0] / span[0])
        else:
            matrix, planes = np.linalg.inv(self._yuv_of_rgb) / span, [_plane(frame, i) for i in range(3)]
            offset = -matrix @ zero
        image = np.empty((*planes[0].shape, 3), np.uint16 if deep else np.uint8)
        most = np.iinfo(image.dtype).max
        whole = np.column_stack([matrix, offset]).astype(np.float32) * most
        for rows in _bands(len(image)):
            image[rows] = _levels(np.stack([plane[rows] for plane in planes], axis=-1), whole, most)
        return image

    def to_frame(self, image: np.ndarray, pix_fmt: str) -> VideoFrame:
        """(height, width, 3) RGB, uint8 or uint16, as a tagged frame of `pix_fmt`."""
        deep = image.dtype == np.uint16
        rgb = is_rgb(pix_fmt)
        if rgb:
            whole = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb48le" if deep else "rgb24")
        else:
            whole = self._whole_chroma(image, pix_fmt, 65535 if deep else 255)
        if len(VideoFormat(pix_fmt).components) == 1:  # swscale takes grey for full range whatever it is told
            out = VideoFrame(whole.width, whole.height, pix_fmt)
            _plane(out, 0)[:] = _plane(whole, 0)
        else:
            out = self._reformat(whole, pix_fmt, rgb or self.color.range == RANGE_FULL)
        out.colorspace = MATRIX_RGB if rgb else self.color.matrix
        out.color_range = RANGE_FULL if rgb else self.color.range
        out.color_primaries = self.color.primaries
        out.color_trc = self.color.transfer
        return out

    def _whole_chroma(self, image: np.ndarray, pix_fmt: str, most: int) -> VideoFrame:
        """With a full set of chroma, from which swscale makes a smaller one by taking it for the middle of its pixels.

        But it is to lie at the left ones, as decoders take it unless told otherwise; so it is moved by half a pixel.
        """
        bits = VideoFormat(pix_fmt).components[0].bits
        span, zero = self._codes(bits, self.color.range == RANGE_FULL)
        matrix = np.column_stack([self._yuv_of_rgb * span[:, None] / most, zero]).astype(np.float32)
        frame = VideoFrame(image.shape[1], image.shape[0], _same_sampling(bits))
        planes = [_plane(frame, index) for index in range(3)]
        left = chroma_lies_left(pix_fmt)
        for rows in _bands(len(image)):
            codes = _levels(image[rows], matrix, 2**bits - 1)
            if left:
                codes[:, 1:, 1:] = np.rint((codes[:, 1:, 1:] + codes[:, :-1, 1:]) / 2)
            for index, plane in enumerate(planes):
                plane[rows] = codes[..., index]
        return frame

    def _reformat(
        self, frame: VideoFrame, pix_fmt: str, full: bool, width: int | None = None, height: int | None = None
    ) -> VideoFrame:
        """Change sampling, layout and size; neither matrix nor range. InputError where swscale cannot."""
        span = ColorRange.JPEG if full else ColorRange.MPEG
        table = int(self.color.matrix)
        try:
            return self._reformatter.reformat(
                frame,
                width,
                height,
                format=pix_fmt,
                src_colorspace=table,
                dst_colorspace=table,
                interpolation=_FLAGS,
                src_color_range=span,
                dst_color_range=span,
                threads=1,
            )
        except (FFmpegError, ValueError) as error:
            raise InputError(f"frames of pixel format {frame.format.name} cannot be converted to {pix_fmt}") from error
