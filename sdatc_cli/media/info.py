"""What is known about an input before its frames are read."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

SMALLEST_EDGE = 16  # pixels of a frame that can be restored
UNSPECIFIED = 2  # ITU-T H.273 code point, the same for primaries, transfer and matrix
MATRIX_RGB, MATRIX_BT709, MATRIX_BT470BG, MATRIX_SMPTE170M, MATRIX_BT2020 = 0, 1, 5, 6, 9
PRIMARIES_BT2020 = 9
TRANSFER_PQ, TRANSFER_HLG = 16, 18
RANGE_LIMITED, RANGE_FULL = 1, 2


@dataclass(frozen=True)
class StreamInfo:
    """One stream of a container. `kind` is "video", "audio", "subtitle", "attachment" or "data"."""

    index: int
    kind: str
    codec: str
    language: str | None = None
    title: str | None = None
    disposition: tuple[str, ...] = ()
    cover: bool = False

    def __str__(self) -> str:
        return f"{self.kind} stream {self.index} ({self.codec})"


@dataclass(frozen=True)
class ColorInfo:
    """Colour tags as H.273 code points, `range` as FFmpeg's AVColorRange (1 limited, 2 full)."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    range: int = RANGE_LIMITED

    @property
    def hdr(self) -> str | None:
        """ "PQ" or "HLG" for high dynamic range, else None."""
        return {TRANSFER_PQ: "PQ", TRANSFER_HLG: "HLG"}.get(self.transfer)


@dataclass(frozen=True)
class Mastering:
    """HDR10 static metadata: chromaticities (x, y) of red, green, blue, white; luminances in cd/m2; light levels."""

    primaries: tuple[tuple[Fraction, Fraction], ...] | None = None  # red, green, blue, white
    luminance: tuple[Fraction, Fraction] | None = None  # least, greatest
    max_cll: int | None = None
    max_fall: int | None = None


@dataclass(frozen=True)
class PictureTags:
    """`profile`: the ICC profile of a picture in RGB that is not sRGB. `exif`: EXIF data less size and orientation."""

    profile: bytes | None = None
    exif: bytes | None = None

    @property
    def names(self) -> str:
        """What there is, for a person; empty for nothing."""
        there = [name for name, data in (("colour profile", self.profile), ("EXIF data", self.exif)) if data]
        return " and ".join(there)


UNTAGGED = PictureTags()


@dataclass(frozen=True)
class MediaInfo:
    """An input that holds at least one decodable frame.

    `width` and `height` are those of the coded frames, before `rotation` (degrees counter-clockwise that a player
    turns them). `frame_count` and `duration` (seconds) are estimates. `start_time` is the time of the first
    timestamp of the container in seconds: `start` arguments count from it. `tags` are those of the (first) picture of a
    still image or a folder, `frames` lists their files. `notices` are lines a person should read. `protocols` may be
    used to read it, beside files.
    """

    path: Path
    kind: Literal["video", "image", "frames"]
    width: int
    height: int
    frame_rate: Fraction | None = None
    frame_count: int | None = None
    duration: float | None = None
    pix_fmt: str = "rgb24"
    bit_depth: int = 8
    rotation: int = 0
    streams: tuple[StreamInfo, ...] = ()
    container: str = ""
    codec: str = ""
    video_index: int = 0
    time_base: Fraction | None = None
    start_time: float = 0.0
    color: ColorInfo = ColorInfo()
    sample_aspect_ratio: Fraction | None = None
    display_matrix: tuple[int, ...] | None = None
    interlaced: bool = False
    has_alpha: bool = False
    tags: PictureTags = UNTAGGED
    mastering: Mastering | None = None
    frames: tuple[Path, ...] = ()
    protocols: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
