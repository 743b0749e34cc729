"""`sdatc degrade`: compressed low-resolution test data out of good video, with a note of how it was made."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from sdatc_cli import output, settings
from sdatc_cli.errors import Interrupted, UsageError

MOST_FRAMES = 10**9  # over a year at 25 a second

In = Annotated[
    Path, typer.Argument(metavar="IN", readable=False, help="A video, a picture, or a folder of numbered frames.")
]
Out = Annotated[Path, typer.Option("-o", "--output", help="The video to write; OUT.json tells how it was made.")]
Crf = Annotated[int | None, typer.Option(help="Quality of the encoder, 0 to 51; higher is worse. [default: 35]")]
Bitrate = Annotated[str | None, typer.Option(help="Bits a second in place of --crf, such as 50k.")]
Scale = Annotated[int, typer.Option(help="How many times smaller.")]
Kernel = Annotated[
    Literal["bicubic", "gaussian", "bd", "swscale"],
    typer.Option(help="How frames are reduced: Pillow's bicubic, COMISR's or FTVSR's blur, FFmpeg's bicubic."),
]
Codec = Annotated[Literal["libx264", "libx265", "mpeg4"], typer.Option(help="Video encoder.")]
Preset = Annotated[str, typer.Option(help="Speed of x264 and x265.")]
Fps = Annotated[str | None, typer.Option(metavar="R", help="Frame rate, such as 25 or 30000/1001.")]
Frames = Annotated[int | None, typer.Option(help="Take only this many frames.")]
Overwrite = Annotated[bool, typer.Option("-y", "--overwrite", help="Replace an existing output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no summary.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def degrade(
    source: In,
    out: Out,
    crf: Crf = None,
    bitrate: Bitrate = None,
    scale: Scale = 4,
    kernel: Kernel = "bicubic",
    codec: Codec = "libx264",
    preset: Preset = "medium",
    fps: Fps = None,
    frames: Frames = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Reduces a video and compresses it hard: input for `upscale` whose original is known.

    Frames follow each other at a constant rate, uneven ones moved unless --fps keeps their times. Sound is copied;
    subtitles, chapters and all else are left out. High dynamic range is not kept.
    """
    if crf is not None and bitrate is not None:
        raise UsageError("give --crf or --bitrate, not both")
    settings.preset(codec, preset)
    settings.between("--frames", frames, 1, MOST_FRAMES)
    rate = _bitrate(bitrate)
    frame_rate = settings.rate("--fps", fps)
    from sdatc_cli.media.degrade import Recipe
    from sdatc_cli.media.degrade import degrade as make

    quality = None if rate is not None else 35 if crf is None else crf
    recipe = Recipe(quality, rate, scale, kernel, codec, preset, frame_rate)
    terminal = output.Terminal(quiet)
    try:
        with terminal.showing("degrading"):
            note = make(source, out, recipe, frames, overwrite, terminal.progress, terminal.notice)
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {out} was not written") from None
    terminal.say(f"{out}: written; {note.name} tells how")


def _bitrate(text: str | None) -> int | None:
    """ "50k", "1.5M" or "50000" as bits a second."""
    if text is None:
        return None
    factor = {"k": 1000, "m": 1_000_000}.get(text[-1:].lower(), 1)
    try:
        return round(float(text[:-1] if factor > 1 else text) * factor)
    except (ValueError, OverflowError):
        raise UsageError(f"--bitrate {settings.short(text)!r} is not a number of bits a second, such as 50k") from None
