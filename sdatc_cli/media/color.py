"""Between RGB arrays and the pixel formats of codecs, with the source's own matrix and range in both directions."""

from dataclasses import replace

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from sdatc_cli.media.info import (
    MATRIX_BT709,
    MATRIX_RGB,
    MATRIX_SMPTE170M,
    RANGE_FULL,
    RANGE_LIMITED,
    ColorInfo,
)

# swscale's coefficient tables by H.273 matrix. YCoCg, ICtCp and constant luminance have none.
_TABLES = {1: Colorspace.ITU709, 4: Colorspace.FCC, 5: Colorspace.ITU601, 6: Colorspace.ITU601,
           7: Colorspace.SMPTE240M, 9: Colorspace.BT2020, 10: Colorspace.BT2020}  # fmt: skip
_FLAGS = (
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
    if rgb_source or matrix not in _TABLES:
        matrix = MATRIX_BT709 if width >= 1280 or height > 576 else MATRIX_SMPTE170M
    full = color.range == RANGE_FULL and not rgb_source
    return replace(color, matrix=matrix, range=RANGE_FULL if full else RANGE_LIMITED)


def is_rgb(pix_fmt: str) -> bool:
    """Whether a pixel format holds red, green and blue (or a palette of them)."""
    return VideoFormat(pix_fmt).is_rgb or pix_fmt == "pal8"


class Converter:
    """Converts frames of one source. Not for use by several threads at once."""

    def __init__(self, color: ColorInfo) -> None:
        """`color` must be resolved (see `resolve`)."""
        self.color = color
        self._table = _TABLES[color.matrix]
        self._range = ColorRange(color.range)
        self._reformatter = VideoReformatter()

    def to_rgb(self, frame: VideoFrame, width: int, height: int, deep: bool) -> np.ndarray:
        """A decoded frame as (height, width, 3) RGB, uint16 if `deep` else uint8, both full range."""
        full = self.color.range == RANGE_FULL or frame.format.name.startswith("yuvj")
        rgb = self._reformatter.reformat(
            frame,
            width,
            height,
            format="rgb48le" if deep else "rgb24",
            src_colorspace=self._table,
            dst_colorspace=self._table,
            interpolation=int(_FLAGS),
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        image = rgb.to_ndarray()
        if deep and not is_rgb(frame.format.name):
            # swscale leaves the white of 16-bit RGB made of YUV short of 65535: at 65280, or 65472 for full range.
            shift, white = (10, 0xFFC0) if full else (8, 0xFF00)
            image = np.minimum(image, np.uint16(white))
            image += image >> shift
        return image

    def to_frame(self, image: np.ndarray, pix_fmt: str) -> VideoFrame:
        """(height, width, 3) RGB, uint8 or uint16, as a tagged frame of `pix_fmt`."""
        deep = image.dtype == np.uint16
        rgb = is_rgb(pix_fmt)
        if deep and not rgb:  # see to_rgb
            image = image - (image >> 8)
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb48le" if deep else "rgb24")
        out = self._reformatter.reformat(
            frame,
            format=pix_fmt,
            src_colorspace=self._table,
            dst_colorspace=self._table,
            interpolation=int(_FLAGS),
            src_color_range=ColorRange.JPEG,
            dst_color_range=self._range,
            threads=1,
        )
        out.colorspace = MATRIX_RGB if rgb else self.color.matrix
        out.color_range = RANGE_FULL if rgb else self.color.range
        out.color_primaries = self.color.primaries
        out.color_trc = self.color.transfer
        return out
