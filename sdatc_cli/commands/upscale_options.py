"""The arguments and options of `sdatc upscale`, as its help shows them."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer


def _in(panel: str, *names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **settings)


QUALITY, ENCODING, PART, MANY, RUN = "Quality", "Encoding", "Part of the video", "Many files", "Run"

Sources = Annotated[
    list[Path],
    typer.Argument(  # the look at each input says which cannot be read, and does not stop the others
        metavar="IN",
        readable=False,
        help="Videos, images, folders of numbered frames; folders or 'patterns' of any of these.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="A video file, an image, or a folder: for PNG frames, or for many outputs."),
]
Overwrite = Annotated[bool, typer.Option("-y", "--overwrite", help="Replace an existing output.")]

Scale = Annotated[int, _in(QUALITY, help="2, 3 or 4 times the size; 2 and 3 are reduced from 4.")]
Model = Annotated[str, _in(QUALITY, help="lite, base, base-v, or the path of a model folder.")]
Fast = Annotated[
    bool,
    _in(QUALITY, "--fast", help="Several times as fast and nearly as good: few steps of dpmpp, no mirror images."),
]
Steps = Annotated[
    int | None,
    _in(
        QUALITY,
        help="Denoising steps, 1 to 1000; lite takes 200 at most. [default: 50; --fast: 2 for lite, 10 for base]",
    ),
]
Solver = Annotated[
    Literal["ddpm", "dpmpp"] | None,
    _in(QUALITY, help="How a step is taken; dpmpp needs fewer of them. [default: ddpm; --fast: dpmpp]"),
]
Fidelity = Annotated[
    float, _in(QUALITY, help="0 (free) to 1 (true to the input): omega of eq. (12); no use where CFW is untrained.")
]
Detail = Annotated[
    float, _in(QUALITY, help="How much of what the networks add is shown, 0 to 2: below 1 softer, above 1 sharper.")
]
Quantiser = Annotated[
    str,
    _in(
        QUALITY,
        metavar="auto|none|Q",
        help="How coarsely the input was compressed, 0 to 51 as H.264 counts: auto asks its codec and looks.",
    ),
]
Guidance = Annotated[
    float | None, _in(QUALITY, help="Strength of the motion guidance, 0 (none) to 1000. [default: the model's]")
]
Flow = Annotated[
    Literal["dis", "raft", "none"],
    _in(QUALITY, help="Optical flow; none keeps frames apart, raft needs torchvision."),
]
Color = Annotated[Literal["adain", "wavelet", "none"], _in(QUALITY, help="How colours are kept.")]
Seed = Annotated[int, _in(QUALITY, help="The noise; the same seed gives the same video.")]

Codec = Annotated[str, _in(ENCODING, help="Video encoder; hardware such as hevc_nvenc where `sdatc doctor` finds it.")]
Crf = Annotated[int, _in(ENCODING, help="Quality of the encoder, 0 to 51 (VP9, AV1: 63); lower is better and larger.")]
Preset = Annotated[str, _in(ENCODING, help="Speed of the encoder: ultrafast to veryslow, or its own name for it.")]
PixFmt = Annotated[
    str | None, _in(ENCODING, metavar="FORMAT", help="Pixel format, such as yuv420p10le. [default: the input's]")
]
EncoderOption = Annotated[
    list[str] | None, _in(ENCODING, metavar="NAME=VALUE", help="A setting of the encoder by its own name; repeatable.")
]

Fps = Annotated[
    str | None,
    _in(ENCODING, metavar="R", help="Frames a second of a folder of frames, such as 24000/1001. [default: 25]"),
]

Start = Annotated[str | None, _in(PART, metavar="T", help="Begin here: seconds or [HH:]MM:SS.")]
Duration = Annotated[str | None, _in(PART, metavar="T", help="Restore this long.")]
Preview = Annotated[
    str | None,
    _in(PART, metavar="T[,T...]", help="Only 2 s (or --duration) from each time, as OUT.preview-T beside OUT."),
]
Sample = Annotated[
    Path | None,
    _in(PART, metavar="DIR", help="Only stills, before | after, at 5 times or those of --preview, into DIR."),
]

SkipExisting = Annotated[bool, _in(MANY, "--skip-existing", help="Leave out inputs whose output is there.")]

Device = Annotated[str, _in(RUN, help="auto, cpu, cuda, cuda:N or mps; several as cuda:0,cuda:1 or all.")]
Dtype = Annotated[Literal["auto", "fp32", "bf16", "fp16"], _in(RUN, help="Number format of the networks.")]
Engine = Annotated[Literal["local", "ray"], _in(RUN, help="ray: the nodes of a Ray cluster.")]
Address = Annotated[str | None, _in(RUN, help="Of the Ray cluster. [default: RAY_ADDRESS, else this machine]")]
Tile = Annotated[
    str, _in(RUN, help="auto, or the edge of a tile in input pixels, 32 at least: smaller needs less memory.")
]
Resume = Annotated[bool, _in(RUN, "--resume/--no-resume", help="Take up unfinished work of an earlier run.")]
WorkDir = Annotated[Path | None, _in(RUN, metavar="DIR", help="A folder for unfinished work. [default: beside OUT]")]
Protocols = Annotated[str | None, _in(RUN, metavar="NAMES", help="Read beyond local files: http,hls,concat,...")]
Json = Annotated[bool, _in(RUN, "--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, _in(RUN, "--quiet", help="No progress and no summary.")]
Debug = Annotated[bool, _in(RUN, "--debug", help="Show the traceback of an error.")]
