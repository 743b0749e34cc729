"""What a video output shall be, settled before any frame of it is there."""

from dataclasses import dataclass
from pathlib import Path

from sdatc_cli.media.encoders import EncodeOptions
from sdatc_cli.media.info import MediaInfo


@dataclass(frozen=True)
class OutputPlan:
    """The output `out` of the input `info`. `size` is (width, height); `start` and `duration` are seconds.

    `overwrite`: whether a file that has the name when the output is finished gives way.
    """

    out: Path
    info: MediaInfo
    size: tuple[int, int]
    encode: EncodeOptions
    start: float | None = None
    duration: float | None = None
    overwrite: bool = False
