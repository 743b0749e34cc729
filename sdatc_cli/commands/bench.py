"""`sdatc bench`: makes test data, runs methods, scores them, and shows the result beside the paper's numbers."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from sdatc_cli import output, settings
from sdatc_cli.errors import UsageError

DatasetName = Annotated[str, typer.Option("--dataset", help="vid4, reds4, udm10, or a folder of clips.")]
Data = Annotated[Path | None, typer.Option(help="Where the test sets lie. [default: the current folder]")]
Crf = Annotated[str, typer.Option(help="Compression levels of the inputs, 0 to 51, separated by commas.")]
Kernel = Annotated[str, typer.Option(help="How inputs are reduced: bicubic, gaussian, bd or swscale.")]
MethodNames = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help="sdatc, bicubic, lanczos, real-esrgan, separated by commas; settings follow a colon, as in "
        "sdatc:steps=8:solver=dpmpp. May be given again. [default: sdatc,bicubic]",
    ),
]
Candidates = Annotated[
    list[str] | None,
    typer.Option(
        "--candidate", metavar="NAME=DIR", help="Frames made elsewhere, in DIR/crfNN/CLIP. May be given again."
    ),
]
MetricNames = Annotated[
    str | None,
    typer.Option(
        "--metrics", help="Metrics or groups (psnr, ssim, lpips, temporal, all), separated by commas. [default: all]"
    ),
]
Frames = Annotated[int | None, typer.Option(help="Only the first so many frames of each clip.")]
Every = Annotated[int, typer.Option(help="Score every so many frames (with it, some temporal figures are left out).")]
Model = Annotated[str, typer.Option(help="The model of sdatc: lite, base, base-v, or the path of a model folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[Literal["auto", "fp32", "bf16", "fp16"], typer.Option(help="Number format of sdatc's networks.")]
Out = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="REPORT_DIR", help="Where report.json and report.html go.")
]
SaveFrames = Annotated[
    bool,
    typer.Option(
        "--save-frames",
        help="Keep restored frames in REPORT_DIR/frames/METHOD; --candidate reads them, if --every was not given.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in REPORT_DIR.")]
Overwrite = Annotated[bool, typer.Option("-y", "--overwrite", help="Replace the report in REPORT_DIR.")]
Json = Annotated[bool, typer.Option("--json", help="Print the report as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no table.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def bench(
    dataset: DatasetName = "vid4",
    data: Data = None,
    crf: Crf = "15,25,35",
    kernel: Kernel = "bicubic",
    method: MethodNames = None,
    candidate: Candidates = None,
    metric: MetricNames = None,
    frames: Frames = None,
    every: Every = 1,
    model: Model = "lite",
    device: Device = "auto",
    dtype: Dtype = "auto",
    out: Out = None,
    save_frames: SaveFrames = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure methods on a test set: quality, steadiness, speed, beside the paper's figures."""
    settings.between("--frames", frames, 1)
    settings.between("--every", every, 1)
    if out is None and (resume or save_frames):
        raise UsageError(f"{'--resume' if resume else '--save-frames'} needs a report folder: -o REPORT_DIR")
    from sdatc_cli.bench.command import Request, run

    request = Request(
        dataset=dataset,
        data=data,
        crfs=levels(crf),
        kernel=kernel,
        methods=tuple(name for part in method or ["sdatc,bicubic"] for name in part.split(",") if name),
        candidates=tuple(candidate or ()),
        metrics=metric,
        frames=frames,
        every=every,
        model=model,
        device=device,
        dtype=dtype,
        out=out,
        save_frames=save_frames,
        resume=resume,
        overwrite=overwrite,
        command=("sdatc", *sys.argv[1:]),
    )
    terminal = output.Terminal(quiet)
    report = run(request, terminal)
    if as_json:
        output.print_json(report)
    elif not quiet:
        from rich.console import Console

        from sdatc_cli.bench.table import WIDE, show

        show(report, Console(width=None if sys.stdout.isatty() else WIDE))


def levels(text: str) -> tuple[int, ...]:
    """ "15,25,35" as numbers from 0 to 51, each once."""
    found: list[int] = []
    for part in text.split(","):
        if not part.strip().isdecimal() or len(part) > 9 or not 0 <= int(part) <= 51:
            raise UsageError(
                f"--crf {settings.short(text)}: give numbers from 0 to 51 separated by commas, for example 15,25,35"
            )
        found += [int(part)] if int(part) not in found else []
    return tuple(found)
