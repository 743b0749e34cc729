"""What `sdatc upscale` was asked for."""

import os
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

from sdatc_cli.errors import UsageError
from sdatc_cli.media.container import show
from sdatc_cli.media.encoders import EncodeOptions
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.isolated import probe


@dataclass(frozen=True)
class Request:
    """The command line, each value checked by itself. Times are seconds.

    `network` holds the arguments of RestoreOptions in their order, whose module would bring torch; its first one is the
    number of steps, None for as few as the model needs, its last one the edge of a tile, None for auto. `quantiser` is
    the input's, "auto" for what its codec and its pictures tell, None for telling the networks nothing. `fps` is the
    rate of folders of frames, None for the usual one. `protocols` may be read from besides local files.
    """

    sources: tuple[Path, ...]
    out: Path | None
    scale: int
    network: tuple
    quantiser: Literal["auto"] | float | None
    encode: EncodeOptions
    fps: Fraction | None
    start: float | None
    duration: float | None
    previews: tuple[float, ...]
    sample: Path | None
    overwrite: bool
    skip_existing: bool
    resume: bool
    work_dir: Path | None
    protocols: tuple[str, ...]
    model: str
    device: str
    dtype: str
    engine: str
    address: str | None
    as_json: bool
    quiet: bool
    debug: bool

    def look(self, path: Path) -> MediaInfo:
        """What an input is, with the rate that was asked for where it has none of its own. InputError, UsageError."""
        info = probe(path, self.protocols)
        if self.fps is not None and info.kind == "video":
            raise UsageError(f"--fps is for folders of frames; {show(path)} is a video, whose frames keep their times")
        return replace(info, frame_rate=self.fps) if self.fps is not None and info.kind == "frames" else info

    def check(self) -> None:
        """Raises UsageError for options that make no sense together, or mean pipes, which are not used."""
        if Path("-") in self.sources and not os.path.lexists("-"):
            raise UsageError("-: stdin is not read; give a file")
        if Path("-") in (self.out, self.sample):
            raise UsageError("-o -: stdout is not written; give the name of a file or folder")
        if self.skip_existing and self.overwrite:
            raise UsageError("--skip-existing and -y contradict each other; give one of them")
        if self.address is not None and self.engine != "ray":
            raise UsageError("--address is that of a Ray cluster: give --engine ray too")
        if self.previews and self.start is not None:
            raise UsageError("--start: --preview says itself where to begin")
        if self.sample is not None:
            self._check_sample()
        elif self.out is None:
            raise UsageError("missing -o OUT: where the restored video goes")
        elif self.previews and self.skip_existing:
            raise UsageError("--skip-existing is for whole outputs, not for --preview")

    def _check_sample(self) -> None:
        encoding = [f"--encoder-option {name}={value}" for name, value in self.encode.options]
        if self.encode.pix_fmt is not None:
            encoding.append(f"--pix-fmt {self.encode.pix_fmt}")
        if encoding:
            raise UsageError(f"{encoding[0]}: --sample writes pictures, no video")
        if self.skip_existing:
            raise UsageError("--skip-existing is for whole outputs, not for --sample")
        if self.engine != "local":
            raise UsageError("--engine: --sample works on this machine alone")
        if self.work_dir is not None:
            raise UsageError("--work-dir: --sample leaves no unfinished work")
        if self.previews and self.duration is not None:
            raise UsageError("--duration: with --sample, the times of --preview are single moments")
