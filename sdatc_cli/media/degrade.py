"""Makes test data: reduces a video and compresses it hard, and writes down how, so that it can be made again."""

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain
from math import ceil
from pathlib import Path
from typing import Any

import cv2
import ffmpeg
import numpy as np
from av.format import Flags
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation
from PIL import Image

from sdatc_cli import __version__
from sdatc_cli.errors import OutputError, UsageError
from sdatc_cli.media.container import open_input, show
from sdatc_cli.media.encoders import CONTAINERS, holds, quantiser_for, steady_x264
from sdatc_cli.media.ffmpeg import feed, ffmpeg_binary, ffmpeg_version
from sdatc_cli.media.images import eight_bits
from sdatc_cli.media.info import MediaInfo
from sdatc_cli.media.isolated import IsolatedReader, probe
from sdatc_cli.media.read import Frame
from sdatc_cli.media.remux import can_hold
from sdatc_cli.media.target import TargetFile, check_target
from sdatc_cli.media.write import upright

KERNELS = ("bicubic", "gaussian", "bd", "swscale")
CODECS = ("libx264", "libx265", "mpeg4")
_SIGMA = {"gaussian": 1.5, "bd": 1.6}  # COMISR; FTVSR and DUF. Pixels of the original, for a scale of 4
_LEAST = 16  # pixels, the smallest edge that can be restored
_SLACK = Fraction(1, 10)  # of a tick: times are rounded, so that the end may seem to lie behind a tick it falls on

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Recipe:
    """How to spoil a video. `bitrate` (bits a second) takes the place of `crf`; `fps` None keeps the source's rate."""

    crf: int | None = 35
    bitrate: int | None = None
    scale: int = 4
    kernel: str = "bicubic"
    codec: str = "libx264"
    preset: str = "medium"
    fps: Fraction | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for values that do not exist."""
        if self.kernel not in KERNELS:
            raise UsageError(f"kernel {self.kernel!r} is not known; use {', '.join(KERNELS)}")
        if self.codec not in CODECS:
            raise UsageError(f"codec {self.codec!r} is not known here; use {', '.join(CODECS)}")
        if not 1 <= self.scale <= 16:
            raise UsageError(f"scale {self.scale} is not between 1 and 16")
        if self.bitrate is None and (self.crf is None or not 0 <= self.crf <= 51):
            raise UsageError(f"CRF {self.crf} is not between 0 and 51")
        if self.bitrate is not None and not 1000 <= self.bitrate <= 1_000_000_000:
            raise UsageError(f"bitrate {self.bitrate} is not between 1k and 1000000k")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise UsageError(f"frame rate {self.fps} is not between 0 and 1000")


def reduce_frame(image: np.ndarray, scale: int, kernel: str) -> np.ndarray:
    """Reduce (height, width, 3) RGB uint8 by `scale`, after cropping to a multiple of 2 * scale for 4:2:0.

    "bicubic" is Pillow's, which reproduces the paper's tables; "gaussian" and "bd" blur (sigma 1.5 or 1.6 for a scale
    of 4) and keep every `scale`-th pixel; "swscale" is FFmpeg's bicubic.
    """
    height, width = (edge // (2 * scale) * (2 * scale) for edge in image.shape[:2])
    image = np.ascontiguousarray(image[:height, :width])
    size = (width // scale, height // scale)
    if scale == 1:
        return image
    if kernel == "bicubic":
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    if kernel == "swscale":
        frame = VideoFrame.from_ndarray(image, format="rgb24")
        flags = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
        return frame.reformat(*size, interpolation=int(flags), threads=1).to_ndarray()
    sigma = _SIGMA[kernel] * scale / 4
    edge = 2 * round(4 * sigma) + 1
    return cv2.GaussianBlur(image, (edge, edge), sigma, borderType=cv2.BORDER_REFLECT_101)[::scale, ::scale]


def degrade(
    source: Path,
    out: Path,
    recipe: Recipe,
    frames: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write `out`, a reduced and compressed copy of a video or frame folder, and `out`.json, how it was made.

    At most `frames` frames. Frames follow each other at a constant rate; sound is copied, all else left out. `tell` is
    given a line of what is, of damage, and of frames that do not stand where they did. Returns the path of the JSON.

    Raises UsageError, InputError, OutputError or DeviceError, and leaves nothing behind then.
    """
    source, out = Path(source), Path(out)
    note = out.with_name(out.name + ".json")
    container = CONTAINERS.get(out.suffix.lower())
    if container is None or not holds(container, recipe.codec):
        raise UsageError(f"-o {show(out)}: give a name that ends in .mp4 or .mkv, which hold {recipe.codec}")
    info = probe(source)
    check_target(out, source, overwrite)
    check_target(note, source, overwrite)
    width, height = _cropped(info, recipe.scale)
    with ExitStack() as stack:
        target, note_target = TargetFile(out, overwrite), TargetFile(note, overwrite)
        stack.callback(target.discard)
        stack.callback(note_target.discard)
        sound, sound_zero = _sound(info, container)
        left_out = [str(s) for s in info.streams if s.index not in (info.video_index, *sound)]
        if left_out:
            tell(f"left out: {', '.join(left_out)}")
        for line in _lost(info):
            tell(line)
        rate = recipe.fps or info.frame_rate or Fraction(25)
        size = (width // recipe.scale, height // recipe.scale)
        reader = stack.enter_context(IsolatedReader(info))
        pictures = iter(reader)
        first = next(pictures, None)
        if first is None:
            raise OutputError(f"{show(out)}: not written, for no frame of the input can be decoded")
        delays = _delays(info, first, rate, sound_zero)
        command = _command(recipe, info, size, rate, frames, sound, delays, target.path, container)
        steps = Steps(info, recipe.fps, rate)
        count = feed(command, _reduced(steps.of(chain([first], pictures)), info, recipe, frames, progress))
        for line in [*reader.damage, *steps.moved()]:
            tell(line)
        shown = [f"file:{out}" if part == f"file:{target.path}" else part for part in command[1:]]
        made: dict[str, Any] = {"command": _own_command(recipe, source, out, frames)}
        made |= _note(recipe, info, source, target.path, out, size, (width, height), rate, count, ["ffmpeg", *shown])
        made["input_damage"] = reader.damage
        text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        note_target.path.write_bytes(text.encode(errors="backslashreplace"))  # of names that are not Unicode
        target.commit()
        note_target.commit()
    return note


def _cropped(info: MediaInfo, scale: int) -> tuple[int, int]:
    """(width, height) of an upright frame, cropped as `reduce_frame` does it. UsageError when too little is left."""
    step = 2 * scale
    height, width = (
        edge // step * step for edge in upright(np.empty((info.height, info.width, 1), np.uint8), info).shape[:2]
    )
    if min(width, height) // scale < _LEAST:
        raise UsageError(f"{show(info.path)}: frames of {info.width}x{info.height} are too small for --scale {scale}")
    return width, height


def _lost(info: MediaInfo) -> Iterator[str]:
    """What the pictures lose beside their size."""
    if info.interlaced:
        yield "interlaced video: deinterlaced, one frame for every two fields"
    if info.has_alpha:
        yield "transparency is not kept: the frames stand over their own colours"
    if info.color.hdr:
        yield f"high dynamic range ({info.color.hdr}): its values are written in 8 bit and without tags, and look pale"


def _sound(info: MediaInfo, container: str) -> tuple[list[int], Fraction]:
    """Indices of the sound tracks that the output can hold, and the time in seconds that ffmpeg takes for their 0.

    That is the start of the file, but where times may jump (MPEG-TS) the start of the tracks that are read.
    """
    start = Fraction(info.start_time)
    if info.kind != "video" or not any(s.kind == "audio" for s in info.streams):
        return [], start
    with open_input(info.path) as opened:
        tracks = [s for s in opened.streams.audio if can_hold(s, container)]
        if opened.format.flags & Flags.ts_discont.value:
            starts = [s.start_time * s.time_base for s in tracks if s.start_time is not None and s.time_base]
            start = min(starts, default=start)
        return [s.index for s in tracks], start


def _delays(info: MediaInfo, first: Frame, rate: Fraction, sound_zero: Fraction) -> tuple[Fraction, Fraction]:
    """Seconds by which the frames and the sound are to be moved from 0, so that they meet as in the input.

    The frames begin at a multiple of their duration, for ffmpeg would round their times to that; what this adds, the
    sound is delayed by, too.
    """
    start = Fraction(info.start_time)
    late = max((first.pts or 0) * (first.time_base or Fraction(0)) - start, Fraction(0))
    frames = ceil(late * rate - _SLACK) / rate
    return frames, sound_zero - start + frames - late


def encoder_settings(recipe: Recipe) -> dict[str, Any]:
    """What ffmpeg is told of the codec and of the colours, which determine the output with the rest of the recipe."""
    settings: dict[str, Any] = {"c:v": recipe.codec, "pix_fmt": "yuv420p"}
    # What swscale makes of RGB: untagged HD would be misread, and chroma be taken to lie at the left pixel of two.
    settings |= {"colorspace": "smpte170m", "color_range": "tv"}
    if recipe.codec == "mpeg4":  # it has no tag, and always means the left
        settings["vf"] = "scale=out_h_chr_pos=0:out_v_chr_pos=128"
    else:
        settings["chroma_sample_location"] = "center"
        settings["preset"] = recipe.preset
    if recipe.bitrate is not None:
        settings["b:v"] = recipe.bitrate
    elif recipe.codec == "mpeg4":
        settings["q:v"] = quantiser_for(recipe.crf or 0)
    else:
        settings["crf"] = recipe.crf
    if recipe.codec == "libx264":
        settings |= steady_x264()
    if recipe.codec == "libx265":
        settings["x265-params"] = "log-level=error"
    return settings


def _command(
    recipe: Recipe,
    info: MediaInfo,
    size: tuple[int, int],
    rate: Fraction,
    frames: int | None,
    sound: list[int],
    delays: tuple[Fraction, Fraction],
    path: Path,
    container: str,
) -> list[str]:
    """The ffmpeg command line that encodes raw RGB frames from its stdin; `delays` of them and of the sound."""
    shape = f"{size[0]}x{size[1]}"
    moved = [{"itsoffset": f"{float(delay):.6f}"} if sound and delay else {} for delay in delays]
    # not `r`, with which ffmpeg counts times from 0 whatever the offset
    raw = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=shape, framerate=_text(rate), **moved[0])
    settings = encoder_settings(recipe) | {"f": container, "map_metadata": "-1", "map_chapters": "-1"}
    if container == "avi":  # it has no times: none must lie before 0, and frames stand in the order they are decoded in
        settings |= {"avoid_negative_ts": "disabled", "bf": "0"}
    if info.sample_aspect_ratio is not None:
        ratio = info.sample_aspect_ratio if abs(info.rotation) % 180 == 0 else 1 / info.sample_aspect_ratio
        settings["aspect"] = f"{size[0] * ratio.numerator}:{size[1] * ratio.denominator}"
    streams = [raw.video]
    if sound:
        original = ffmpeg.input("INPUT", protocol_whitelist="file", **moved[1])
        streams += [original[str(index)] for index in sound]
        settings["c:a"] = "copy"
        if frames is not None:
            settings["t"] = f"{float(delays[0] + frames / rate):.6f}"
    output = ffmpeg.output(*streams, "OUTPUT", **settings)
    output = output.global_args("-nostdin", "-hide_banner", "-loglevel", "error")
    names = {"INPUT": f"file:{info.path.absolute()}", "OUTPUT": f"file:{path}"}  # ffmpeg-python takes only Unicode
    return [names.get(str(part), str(part)) for part in ffmpeg.compile(output, ffmpeg_binary(), overwrite_output=True)]


def _reduced(
    pictures: Iterable[Frame],
    info: MediaInfo,
    recipe: Recipe,
    frames: int | None,
    progress: Progress | None,
) -> Iterator[np.ndarray]:
    """Reduced frames, at most so many."""
    total = info.frame_count
    if total and recipe.fps and info.kind == "video" and info.frame_rate:
        total = round(total * recipe.fps / info.frame_rate)
    total = min(filter(None, (frames, total)), default=None)
    for done, frame in enumerate(pictures):
        if frames is not None and done >= frames:
            return
        image = eight_bits(frame.image)
        yield reduce_frame(upright(image, info), recipe.scale, recipe.kernel)
        if progress is not None:
            progress(done + 1, total)


class Steps:
    """Brings frames to a constant rate: those of a video to `fps`, where it is given, by what is on the screen at each
    tick; else every frame as it comes, at `rate`, and remembers by how much that moves it."""

    def __init__(self, info: MediaInfo, fps: Fraction | None, rate: Fraction) -> None:
        self._info, self._fps, self._rate = info, fps if info.kind == "video" else None, rate
        self._most = Fraction(0)  # seconds by which a frame was moved

    def of(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The frames of the output."""
        return self._as_they_come(frames) if self._fps is None else self._at_ticks(frames, self._fps)

    def moved(self) -> Iterator[str]:
        """A line for a person where frames stand further from their places than by one frame."""
        if self._most > 1 / self._rate:
            yield (
                f"frames stand up to {float(self._most):.2f} s from where they did, for they follow each other at "
                f"{float(self._rate):g} a second; --fps keeps their times"
            )

    def _as_they_come(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        first = None
        for number, frame in enumerate(frames):
            if frame.pts is not None and frame.time_base is not None:
                time = frame.pts * frame.time_base
                first = time if first is None else first
                self._most = max(self._most, abs(time - first - number / self._rate))
            yield frame

    def _at_ticks(self, frames: Iterable[Frame], fps: Fraction) -> Iterator[Frame]:
        """The last frame is shown as long as its file says, else for one step of the frame rate."""
        tick, first, shown, end = 0, None, None, Fraction(0)
        for frame in frames:
            base = frame.time_base or Fraction(0)
            time = (frame.pts or 0) * base
            first = time if first is None else first
            while shown is not None and tick / fps < time - first:
                yield shown
                tick += 1
            shown, end = frame, time - first + (frame.duration * base or 1 / (self._info.frame_rate or Fraction(25)))
        while shown is not None and (tick == 0 or (tick + _SLACK) / fps < end):
            yield shown
            tick += 1


def _text(rate: Fraction) -> str:
    return str(rate.numerator) if rate.denominator == 1 else f"{rate.numerator}/{rate.denominator}"


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_command(recipe: Recipe, source: Path, out: Path, frames: int | None) -> str:
    """The command line that makes the output again."""
    words = ["sdatc", "degrade", "-o", str(out), "--scale", str(recipe.scale), "--kernel", recipe.kernel,
             "--codec", recipe.codec, "--preset", recipe.preset]  # fmt: skip
    words += ["--bitrate", str(recipe.bitrate)] if recipe.bitrate is not None else ["--crf", str(recipe.crf)]
    words += ["--fps", _text(recipe.fps)] if recipe.fps is not None else []
    words += ["--frames", str(frames)] if frames is not None else []
    return shlex.join([*words, *(["--"] if str(source).startswith("-") else []), str(source)])


def _note(
    recipe: Recipe,
    info: MediaInfo,
    source: Path,
    made: Path,
    out: Path,
    size: tuple[int, int],
    cropped: tuple[int, int],
    rate: Fraction,
    count: int,
    command: list[str],
) -> dict[str, Any]:
    """Everything else needed to make the output again."""
    return {
        "sdatc": __version__,
        "ffmpeg": ffmpeg_version(),
        "ffmpeg_command": shlex.join(command),
        "recipe": {**asdict(recipe), "fps": None if recipe.fps is None else _text(recipe.fps)},
        "source": {
            "path": str(source),
            "sha256": _sha256(source),
            "width": info.width,
            "height": info.height,
            "rotation": info.rotation,
        },
        "cropped": {"width": cropped[0], "height": cropped[1]},
        "output": {
            "path": str(out),
            "sha256": _sha256(made),
            "width": size[0],
            "height": size[1],
            "frames": count,
            "frame_rate": _text(rate),
        },
    }
